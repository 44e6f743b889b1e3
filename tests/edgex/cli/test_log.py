"""`--quiet` and `--log-file` of commands that take long, and what they say where there is no terminal."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pictures import picture_folder

TRAIN = (
    *("train", "--data", "shapes", "--base", "timm/test_vit", "--weights", "base.pt", "--out", "my.safetensors"),
    *("--epochs", "1", "--batch-size", "8", "--precision", "fp32"),
)
LABEL = (
    *("vector", "label", "--model", "my.safetensors", "--data", "shapes", "--out", "labels.safetensors"),
    *("--pairs", "2", "--players", "25", "--limit", "4"),
)
COUNTS = (
    "shapes: 18 pictures in train, 3 pictures in val, 3 classes",
    "training timm/test_vit (160x160 px, token pooling): epochs 1, 3 steps each, "
    "8 pictures a step; 18 pictures in train, 3 pictures in val",
)
LABEL_COUNTS = (
    "shapes: 21 pictures, 4 of them taken",
    "labelling 4 crops of 4 pictures: 2 pairs of coalitions each, of the 3 highest classes of 3",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of three classes and weights to start from."""
    import timm

    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=2).state_dict(), folder / "base.pt")
    picture_folder(folder / "shapes", {"train": 6, "val": 1})
    return folder


def started(place: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with files as standard output and error. before: Python that runs first."""
    code = f"{before}\nimport sys; from edgex.cli import main; sys.argv[0] = 'edgex'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=place,
        env=os.environ | {"EDGEX_HOME": str(place / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def logged(file: Path) -> list[str]:
    """The lines of a log, each of which begins with a time of the last hour."""
    lines = []
    for line in file.read_text("utf-8").splitlines():
        time, text = line.split(" ", 1)
        age = datetime.datetime.now().astimezone() - datetime.datetime.fromisoformat(time)
        assert datetime.timedelta(seconds=-1) <= age < datetime.timedelta(hours=1)
        lines.append(text)
    return lines


def test_counts_at_once_progress_and_the_same_in_the_log(place: Path) -> None:
    """Training says how much there is to do, then how far it is; --quiet leaves the result, the log has all."""
    often = "from edgex.utils import progress; progress.LINE_SECONDS = 0.0"
    done = started(place, *TRAIN, "--log-file", "train.log", before=often)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if line in COUNTS] == list(COUNTS), lines
    steps = [line for line in lines if line.startswith("training: ")]
    assert len(steps) == 3 and re.fullmatch(r"training: 1 of 3 steps, 33%, \d+ s left; epoch 1/1, loss .*", steps[0])
    kept = logged(place / "train.log")
    assert re.fullmatch(r"edgex \S+: edgex train", kept[0])
    assert kept[1:] == [*lines, *done.stdout.splitlines()]

    done = started(place, *LABEL, "--quiet", "--log-file", "label.log", before=often)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("labels.safetensors: labels of 4 views of 4 pictures")
    kept = logged(place / "label.log")
    assert [line for line in kept if line in LABEL_COUNTS] == list(LABEL_COUNTS)
    assert any(line.startswith("labelling: 4 of 4 crops, 100%") for line in kept)
    assert kept[-2:] == done.stdout.splitlines()

    done = started(place, *LABEL, "--quiet", "--log-file", "label.log")
    assert done.returncode == 2 and done.stderr.startswith("edgex: error: --out: labels.safetensors exists")
    again = logged(place / "label.log")
    assert again[: len(kept)] == kept, "a log is continued"
    assert again[-1] == done.stderr.strip()


def test_a_log_that_cannot_be_written(run: Callable[..., str], tmp_path: Path) -> None:
    line = run("predict", "m.onnx", "x.png", "--log-file", str(tmp_path), code=2)
    assert line == f"edgex: error: --log-file: expected a file that can be written, found {tmp_path} (Is a directory)"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_log_with_one_line_and_not_the_command(place: Path) -> None:
    done = started(place, "predict", "missing.onnx", "x.png", "--log-file", "/dev/full")
    full, error = done.stderr.splitlines()
    assert full == "edgex: note: /dev/full ends here, it cannot be written (No space left on device)"
    assert "missing.onnx" in error and done.returncode == 1


def test_short_commands_have_neither(run: Callable[..., str]) -> None:
    assert "--log-file" not in run("zoo", "list", "--help")
