"""Commands that take long go on where a signal stopped them, when the command that they print is given again."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.files.model_file import save_model
from pictures import COLOURS, picture_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

TRAIN = ("train", "--data", "my set", "--base", "timm/test_vit", "--weights", "base.pt", "--epochs", "12")
SHAPLEY = ("--model", "model.safetensors", "--data", "my set", "--pairs", "8", "--players", "25")
CASES = {
    "train": (TRAIN, signal.SIGINT, 130, "*.checkpoint", "epoch 1/"),
    "vector label": (("vector", "label", *SHAPLEY), signal.SIGTERM, 143, "*.work/labels/labels-*.pt", ""),
    "vector train": (
        ("vector", "train", *SHAPLEY, "--steps", "120"),
        signal.SIGINT,
        130,
        "*.work/*.checkpoint",
        "step 0:",
    ),
}


@pytest.fixture
def place(random_model: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder with a model, weights of a base, and pictures of three classes: two chunks of labels' cache."""
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, name="shapes", classes=tuple(sorted(COLOURS)))
    save_model(tmp_path / "model.safetensors", model, card)
    torch.save(model.backbone.tensors(), tmp_path / "base.pt")
    picture_folder(tmp_path / "my set", {"": 30})
    return tmp_path


def stopped(
    arguments: tuple[str, ...], folder: Path, number: signal.Signals, pattern: str, first: str
) -> tuple[int, str]:
    """Exit code and standard error of a command whose processes all get a signal once it has stored something.

    A step is stored before it is told, so the signal also waits until `first` was told.
    """
    environment = os.environ | {"EDGEX_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "edgex", *arguments]
    told, out = folder / "told.txt", folder / "out.txt"
    with told.open("w") as error_file, out.open("w") as out_file:
        pipes: dict[str, Any] = {"stdout": out_file, "stderr": error_file, "start_new_session": True}
        with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
            end = time.monotonic() + 240
            while not [*folder.glob(pattern)] or first not in told.read_text():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.005)
            os.killpg(process.pid, number)
            process.wait(timeout=240)
    assert out.read_text() == ""
    return process.returncode, told.read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_command_goes_on_where_it_was(run: Callable[..., str], place: Path, name: str) -> None:
    arguments, number, code, pattern, first = CASES[name]
    arguments = (*arguments, "--out", "made.safetensors")
    found, error = stopped(arguments, place, number, pattern, first)
    assert found == code and "Traceback" not in error and "Aborted" not in error
    last = error.splitlines()[-1]
    words = "interrupted" if number == signal.SIGINT else "terminated"
    beginning = f"edgex: {words}; no file is half-written; to go on from there: edgex "
    assert last.startswith(beginning)
    again = shlex.split(last.removeprefix(beginning))
    assert tuple(again) == arguments
    assert not (place / "made.safetensors").exists()
    stored = {path: path.stat().st_mtime_ns for path in place.glob(pattern)}
    assert first in error
    said = run(*again)
    assert (place / "made.safetensors").exists()
    if name == "vector label":
        assert all(path.stat().st_mtime_ns == written for path, written in stored.items())
    else:
        assert first not in said, "it began at the start again"
        assert not [*place.glob(pattern)]
