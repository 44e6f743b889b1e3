"""A small hub on this machine that speaks the real one's protocol: HEAD and GET of the files of "org/repo"."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY = "org/repo"
NO_HUB = "http://127.0.0.1:9"
"""A hub that does not answer: port 9 (discard) is closed."""


class SmallHub:
    """What is published: revision -> (commit, path -> content). address: of the server."""

    def __init__(self) -> None:
        self.revisions: dict[str, tuple[str, dict[str, bytes]]] = {}
        self.address = ""

    def publish(self, commit: str, files: dict[str, bytes]) -> None:
        """A commit of the branch "main" with these files."""
        self.revisions["main"] = self.revisions[commit] = (commit, files)

    def find(self, url: str) -> tuple[str, bytes] | None:
        """Commit and content of what a URL's path names."""
        prefix = f"/{REPOSITORY}/resolve/"
        revision, _, path = url.removeprefix(prefix).partition("/")
        commit, files = self.revisions.get(revision, ("", {}))
        return (commit, files[path]) if url.startswith(prefix) and path in files else None

    def error_of(self, url: str) -> str:
        """The hub's word for why there is no such file."""
        if "secret" in url:
            return "GatedRepo"
        known = url.startswith(f"/{REPOSITORY}/")
        revision = url.partition("/resolve/")[2].partition("/")[0]
        return ("EntryNotFound" if revision in self.revisions else "RevisionNotFound") if known else "RepoNotFound"


@contextmanager
def serve() -> Iterator[SmallHub]:
    """A hub that answers for as long as the block runs."""
    hub = SmallHub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, *, body: bool) -> None:
            found = hub.find(self.path)
            if found is None:
                self.send_response(403 if "secret" in self.path else 404)
                self.send_header("X-Error-Code", hub.error_of(self.path))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            commit, content = found
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def point_client(monkeypatch: pytest.MonkeyPatch, folder: Path, address: str) -> None:
    """The hub's client talks to `address`, and caches in a folder of the test's own, as edgex keeps its records."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setenv("EDGEX_HOME", str(folder / "home"))
