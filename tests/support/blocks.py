"""The fenced blocks of a page, and how they are run: Python as it stands, `edgex` commands in this process."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "examples/README.md", *(f"docs/{p.name}" for p in sorted((REPOSITORY / "docs").glob("*.md"))))
_FENCE = re.compile(
    r"^(?P<comment><!--.*?-->\n)?``` ?\{?\.?(?P<language>\w*)\}?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARKER = re.compile(r"<!-- not run: (.+) -->")
RUNNABLE = ("python", "bash")

# What is added so that a command takes seconds.
QUICK = {
    "train": ["--epochs", "1", "--batch-size", "4"],
    "vector label": ["--pairs", "2", "--limit", "4"],
    "vector train --model trained.safetensors --labels": ["--force", "--steps", "2", "--batch-size", "2"],
    "vector train --model trained.safetensors --data": ["--force", "--batch-size", "2", "--minutes", "0.02"],
    "eval": ["--num-images", "2", "--steps", "2"],
    "export": ["--pictures", "pictures"],
    # The weights of the base are random in the tests, so that the built-in vector was learned from another base.
    "bake --target my.safetensors": ["--force"],
}


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    line: int
    language: str
    text: str
    reason: str
    """Why it is not run; empty where it is."""


def blocks(page: str) -> list[Block]:
    """The blocks of a page in Python or bash."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if match["language"] in RUNNABLE:
            marker = _MARKER.match(match["comment"] or "")
            line = text.count("\n", 0, match.start("text"))
            found.append(Block(line, match["language"], match["text"], marker[1] if marker else ""))
    return found


def run(page: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a page's blocks in the current folder, one after the other; returns how many ran."""
    names: dict[str, Any] = {"__name__": page}
    ran = 0
    with Servers() as servers:
        for block in blocks(page):
            if block.reason:
                continue
            text = servers.at_their_port(block.text)
            try:
                if block.text.startswith("--8<--"):
                    check_example(block.text)
                elif block.language == "python":
                    exec(compile("\n" * block.line + text, page, "exec"), names)
                else:
                    run_commands(text, monkeypatch, servers)
            except BaseException as error:
                raise AssertionError(f"{page}, line {block.line}: {type(error).__name__}: {error}\n{text}") from error
            ran += 1
    return ran


class Servers:
    """What `edgex serve` started: processes that go on to the end of their page, at a free port."""

    PORT = "8080"

    def __enter__(self) -> Servers:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self._running: list[subprocess.Popen[bytes]] = []
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
            assert process.wait(60) == 0, "edgex serve did not end cleanly"

    def at_their_port(self, text: str) -> str:
        """The text with that port for the documented one."""
        return text.replace(self.PORT, self._port)

    def start(self, arguments: list[str]) -> None:
        """Starts one and waits until it is ready."""
        process = subprocess.Popen([sys.executable, "-m", "edgex", *arguments], stderr=subprocess.DEVNULL)
        self._running.append(process)
        for _ in range(600):
            assert process.poll() is None, f"edgex {' '.join(arguments)} ended with exit code {process.returncode}"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=60).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("edgex serve never became ready")


def run_commands(text: str, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> None:
    """Runs `edgex ...` and `curl ...`; of `pip install '.[...]'` it checks that the extras exist."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[:2] == ["pip", "install"]:
            check_extras(words[2])
        elif words[:2] == ["edgex", "serve"]:
            servers.start(words[1:])
        elif words[0] == "curl":
            subprocess.run(["curl", "--silent", "--show-error", "--fail", *words[1:]], check=True)
        elif words[0] == "edgex":
            run_edgex(words[1:], monkeypatch)
        else:
            raise AssertionError(f"no way to run this: {line}; mark the block with '<!-- not run: REASON -->'")


def run_edgex(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One command, as the entry point runs it."""
    from edgex.cli import main

    for command, options in QUICK.items():
        if arguments[: len(command.split())] == command.split() and options[0] not in arguments:
            arguments = [*arguments, *options]
    monkeypatch.setattr(sys, "argv", ["edgex", *arguments])
    try:
        main()
    except SystemExit as stop:
        assert stop.code in (None, 0), f"edgex {' '.join(arguments)} ended with exit code {stop.code}"


def check_extras(requirement: str) -> None:
    """'.[bake,bench]' names extras of pyproject.toml."""
    import tomllib

    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    match = re.fullmatch(r"\.\[([a-z,]+)\]", requirement)
    assert match, f"expected pip install '.[EXTRA]', found {requirement}"
    assert set(match[1].split(",")) <= set(known), requirement


def check_example(text: str) -> None:
    """An included file lies in examples/, where a test runs it."""
    name = text.split('"')[1]
    assert (REPOSITORY / name).is_file(), name
    assert Path(name).name in (REPOSITORY / "tests" / "examples" / "test_examples.py").read_text(encoding="utf-8")
