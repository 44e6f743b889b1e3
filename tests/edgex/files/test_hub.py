"""Hub files against a small hub on this machine that speaks the real one's protocol, and against none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgex.errors import ArtefactError, UsageError
from edgex.files.hub import fetch, weights_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"/org/repo/resolve/main/model.bin": b"weights", "/org/repo/resolve/main/deep/er.bin": b"deeper"}


class _Hub(BaseHTTPRequestHandler):
    """HEAD and GET of files with the headers that the hub's client reads."""

    def _answer(self, *, body: bool) -> None:
        found = FILES.get(self.path)
        if found is None:
            self.send_response(403 if "secret" in self.path else 404)
            code = "EntryNotFound" if self.path.startswith("/org/repo/") else "RepoNotFound"
            self.send_header("X-Error-Code", "GatedRepo" if "secret" in self.path else code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hash(found):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        if body:
            self.wfile.write(found)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A running hub; the client talks to it and caches in a folder of the test's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    _point_client(monkeypatch, tmp_path, address)
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A client whose hub does not answer: port 9 (discard) is closed."""
    _point_client(monkeypatch, tmp_path, "http://127.0.0.1:9")


def _point_client(monkeypatch: pytest.MonkeyPatch, cache: Path, address: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "cache"))


def test_downloads_and_caches(hub: str) -> None:
    path = weights_file("hf://org/repo/model.bin")
    assert path.read_bytes() == b"weights"
    assert weights_file("hf://org/repo/deep/er.bin").read_bytes() == b"deeper"
    assert fetch("org/repo", ["model.bin"]) == path


def test_takes_the_first_file_that_exists(hub: str) -> None:
    assert fetch("org/repo", ["model.safetensors", "model.bin"]).name == "model.bin"


def test_the_cache_serves_where_the_hub_does_not(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch("org/repo", ["model.bin"])
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    assert fetch("org/repo", ["model.safetensors", "model.bin"]) == path


def test_missing_files_and_repositories_are_named(hub: str) -> None:
    with pytest.raises(ArtefactError, match=r"repository org/repo has no file a\.bin or b\.bin"):
        fetch("org/repo", ["a.bin", "b.bin"])
    with pytest.raises(ArtefactError, match=r"does not give hf://org/other/a\.bin .*check the name"):
        fetch("org/other", ["a.bin"])
    with pytest.raises(ArtefactError, match=r"does not give hf://org/secret/a\.bin .*your access"):
        fetch("org/secret", ["a.bin"])


def test_no_hub_is_one_line_and_is_not_tried_again(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client's download retries for half a minute.
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("the client would retry"))
    with pytest.raises(ArtefactError) as caught:
        weights_file("hf://org/repo/model.bin")
    message = str(caught.value)
    assert message.startswith("cannot get hf://org/repo/model.bin: the hub was not reached")
    assert "give its path instead" in message
    assert "\n" not in message


def test_offline_mode_is_no_different(monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtefactError, match="the hub was not reached"):
        fetch("org/repo", ["model.bin"])


@pytest.mark.parametrize("name", ["hf://org/repo", "hf://org", "hf:///a/b", "hf://org//file"])
def test_incomplete_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected hf://organisation/repository/file"):
        weights_file(name)


def test_paths_are_left_alone() -> None:
    assert weights_file("folder/model.bin") == weights_file(Path("folder/model.bin")) == Path("folder/model.bin")
