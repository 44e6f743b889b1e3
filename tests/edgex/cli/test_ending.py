"""How commands end as processes: standard streams that are full, closed or gone, and signals."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgex.cli.ending import ends_in_words
from edgex.files import model_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams and signals of POSIX")

EDGEX = [sys.executable, "-m", "edgex"]
COMMANDS = ["--version", "--help", "inspect imagenet --json"]
FULL = "edgex: error: cannot write to standard output (No space left on device): the result is not complete"
CLOSED = "edgex: error: cannot write to standard output (Bad file descriptor): the result is not complete"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A line of sh in which $edgex is the command."""
    words = f'edgex="{sys.executable} -m edgex"; {command}'
    return subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_standard_output_that_is_full(command: str) -> None:
    done = shell(f"$edgex {command} > /dev/full")
    assert (done.returncode, done.stderr) == (1, f"{FULL}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_standard_output_that_is_closed(command: str) -> None:
    done = shell(f"$edgex {command} >&-")
    assert (done.returncode, done.stderr) == (1, f"{CLOSED}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_is_gone(command: str) -> None:
    done = shell(f"(sleep 0.2; $edgex {command}; echo $? >&2) | true")
    assert done.stderr == "1\n"


def test_output_with_and_without_a_buffer() -> None:
    for value in ("", "1"):
        done = shell(f"export PYTHONUNBUFFERED={value}; $edgex --version > /dev/full")
        assert (done.returncode, done.stderr) == (1, f"{FULL}\n")


@pytest.mark.parametrize("to", ["2> /dev/full", "2>&-", "2>&- <&-"])
def test_standard_error_that_takes_nothing(to: str) -> None:
    done = shell(f"$edgex --version {to}")
    assert done.returncode == 0
    assert done.stdout.startswith("edgex ")
    assert shell(f"$edgex watch nothing --source a {to}").returncode == 2
    assert shell(f"$edgex --version > /dev/full {to}").returncode == 1


def test_no_stream_at_all() -> None:
    assert shell("$edgex --version <&- >&- 2>&-").returncode == 1


def test_an_error_of_its_own_is_not_hidden_by_a_full_output() -> None:
    done = shell("$edgex watch nothing --source a > /dev/full")
    assert done.returncode == 2
    assert "expected an exported file" in done.stderr and len(done.stderr.splitlines()) == 1


SIGNALS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGHUP, 129, "stopped, since its terminal was closed"),
]


def stopped(
    arguments: list[str], folder: Path, number: signal.Signals, ready: Callable[[], bool]
) -> tuple[int, str, str]:
    """Exit code, output and error of a command that is sent a signal as soon as it is at a point."""
    command = [*EDGEX, *arguments]
    process = subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 120
        while not ready():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(number)
        out, error = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, out, error


@pytest.mark.parametrize("number, code, words", SIGNALS)
def test_a_signal_ends_a_command_with_one_line(tmp_path: Path, number: signal.Signals, code: int, words: str) -> None:
    """The file that it reads is a pipe that never ends."""
    os.mkfifo(tmp_path / "a.onnx")
    (tmp_path / "b.jpg").touch()
    ends: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):  # as long as it is not open for reading
            ends.append(os.open(tmp_path / "a.onnx", os.O_WRONLY | os.O_NONBLOCK))
            # Between opening and reading, Python would see the signal only once the read is over.
            time.sleep(0.3)
        return bool(ends)

    found = stopped(["predict", "a.onnx", "b.jpg"], tmp_path, number, is_read)
    os.close(*ends)
    assert found == (code, "", f"edgex: {words}; no file is half-written; give the same command again to go on\n")


@pytest.mark.parametrize("number, code, words", SIGNALS[1:2])
def test_a_signal_while_a_file_is_written(
    random_model: Callable[..., Any], tmp_path: Path, number: signal.Signals, code: int, words: str
) -> None:
    model_file.save_model(tmp_path / "a.safetensors", *random_model("timm/test_vit", alpha=1.0))
    arguments = ["export", "a.safetensors", "--onnx", "fp32", "--out", "b.onnx"]
    for _ in range(5):
        found, _, error = stopped(arguments, tmp_path, number, lambda: bool([*tmp_path.glob(".b.onnx.*.part")]))
        if found:
            break
        # On a busy machine the file may be written before the signal comes.
        (tmp_path / "b.onnx").unlink()
    assert found == code
    assert error.splitlines()[-1].startswith(f"edgex: {words}; ")
    assert "Traceback" not in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    code = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from edgex.cli.ending import ends_in_words
with ends_in_words():
    os.kill(os.getpid(), signal.SIGHUP)
    print("went on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


WARNS = (
    "import logging, warnings\n"
    "from edgex.cli.ending import ends_in_words\n"
    "with ends_in_words():\n"
    "    warnings.warn('of a library', stacklevel=1)\n"
    "    logging.getLogger('library').warning('also of a library')\n"
)


def test_warnings_of_libraries_are_not_shown() -> None:
    done = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    done = subprocess.run([sys.executable, "-W", "default", "-c", WARNS], capture_output=True, text=True, check=True)
    assert "UserWarning: of a library" in done.stderr and "also of a library" in done.stderr


def test_warnings_stay_errors_where_they_are_made_errors(caplog: pytest.LogCaptureFixture) -> None:
    with ends_in_words(), pytest.raises(UserWarning, match="of a library"):
        warnings.warn("of a library", stacklevel=1)
    logging.getLogger("library").warning("afterwards")
    assert caplog.messages == ["afterwards"]


def test_an_import_of_parameters_prints_its_result_alone(tmp_path: Path) -> None:
    """torch warns of a Parameter that is made a number."""
    import timm
    import torch

    model = timm.create_model("test_vit", num_classes=2)
    torch.save(dict(model.named_parameters()), tmp_path / "c.pth")
    weights = ("c.pth", "--arch", "timm/test_vit", "--classes", "a,b", "--out", "m.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "edgex", "import", *weights],
        cwd=tmp_path,
        env={**os.environ, "EDGEX_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Warning" not in done.stderr and ".py" not in done.stderr
    assert done.stdout.startswith("m.safetensors: timm/test_vit")
