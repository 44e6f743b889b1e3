"""Shell completion: pressing the tabulator in a real bash, and the names that are offered."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgex.cli.completion import SHELLS, artefacts, models, vectors
from edgex.files import names, zoo

COMMAND = Path(sys.executable).with_name("edgex")
needs_bash = pytest.mark.skipif(
    shutil.which("bash") is None or not COMMAND.exists(), reason="bash, or edgex as a command, is not installed"
)


def test_the_names_are_those_of_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path))
    (tmp_path / "zoo").mkdir()
    shutil.copy(zoo.BUILT_IN / "imagenet.safetensors", tmp_path / "zoo" / "mine.safetensors")
    (tmp_path / "zoo" / "broken.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "zoo" / "empty.safetensors").write_bytes(b"")
    known = zoo.entries()
    assert names.names() == sorted({entry.name for entry in known}) and "broken" not in names.names()
    for kind in ("model", "vector"):
        assert names.names(kind) == sorted({entry.name for entry in known if entry.kind == kind})
    assert (vectors("mi"), models("mi"), artefacts("mi")) == (["mine"], [], ["mine"])
    assert {"cars", "imagenet-1k"} <= set(models(""))


def test_names_are_found_without_the_heavy_packages() -> None:
    code = "import sys; from edgex.cli import completion; completion.artefacts(''); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_scripts(run: Callable[..., str]) -> None:
    for shell in SHELLS:
        assert "_EDGEX_COMPLETE" in run("--show-completion", shell)
    line = run("--show-completion", "bsh", code=2)
    assert "--show-completion: expected bash, zsh, fish, powershell, found 'bsh'; did you mean bash" in line
    assert "--install-completion: expected bash" in run("--install-completion", "csh", code=2)


def test_installing_adds_it_to_the_shells_own_files(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'\n")
    said = run("--install-completion", "bash")
    script = tmp_path / ".bash_completions" / "edgex.sh"
    assert said == f"{script}: completion for bash, which works in shells that are opened from now on\n"
    assert "alias ll" in (tmp_path / ".bashrc").read_text() and str(script) in (tmp_path / ".bashrc").read_text()


class Bash:
    """An interactive bash on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self._terminal, other = pty.openpty()
        environment = os.environ | {"PATH": f"{COMMAND.parent}:{os.environ['PATH']}", "PS1": "ready> ", "TERM": "dumb"}
        environment |= {"EDGEX_HOME": str(folder / "home"), "INPUTRC": "/dev/null"}
        command = ["bash", "--norc", "--noprofile", "-i"]
        streams: dict[str, Any] = {"stdin": other, "stdout": other, "stderr": other}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)
        os.close(other)
        self._read = ""
        self.expect("ready> ")

    def expect(self, text: str, seconds: float = 120) -> None:
        """Reads until a text was printed."""
        end = time.monotonic() + seconds
        while text not in self._read:
            assert time.monotonic() < end, f"expected {text!r}, found {self._read!r}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                self._read += os.read(self._terminal, 4096).decode()
        self._read = self._read.partition(text)[2]

    def type(self, text: str) -> None:
        """Presses keys."""
        os.write(self._terminal, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Bash]:
    """With completion loaded as the documentation says, in a folder with an exported file."""
    (tmp_path / "my-model.onnx").touch()
    shell = Bash(tmp_path)
    try:
        shell.type('eval "$(edgex --show-completion bash)"; echo load"ed"\n')
        shell.expect("loaded")
        shell.expect("ready> ")
        yield shell
    finally:
        shell.close()


@needs_bash
def test_the_tabulator_completes_commands_options_names_and_files(bash: Bash) -> None:
    for typed, completed in (
        ("edgex ex", "port "),
        ("edgex bake --vec", "tor "),
        ("edgex bake --vector imag", "enet "),
        ("edgex bake --target car", "s "),
        ("edgex predict my-mod", "el.onnx "),
    ):
        bash.type(f"{typed}\t")
        bash.expect(typed + completed)
        bash.type("\x15")  # Ctrl-U: a new line
