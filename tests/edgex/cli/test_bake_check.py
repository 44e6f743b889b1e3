"""`edgex bake --check` as a user meets it: exit codes and words; what is judged is tested in tests/edgex/vectors."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.cli import main
from edgex.files.model_file import save_model
from edgex.files.vector_file import save_vector
from pictures import picture_folder
from vectors import fitting

Bake = Callable[..., int]


@pytest.fixture
def bake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_model: Callable[..., Any]) -> Bake:
    """Runs `edgex bake ...` with a vector that turns heatmaps upside down; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    model, card = random_model("timm/test_vit", classes=3, seed=1)
    save_model(tmp_path / "target.safetensors", model, card)
    deltas = {"norm.bias": torch.zeros_like(model.backbone.tensors()["norm.bias"])}
    turned = dataclasses.replace(card.evidence, scale=-1.0)
    described = fitting(model, card, deltas, name="turning", evidence=turned, alpha=1.0)
    save_vector(tmp_path / "turning.safetensors", deltas, described, dtype=torch.float32)
    picture_folder(tmp_path / "pictures", {"": 8})

    def call(*arguments: str) -> int:
        files = ("--target", "target.safetensors", "--vector", "turning.safetensors", "--out", "baked.safetensors")
        monkeypatch.setattr(sys, "argv", ["edgex", "bake", *files, *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
            sys.exit(0)
        return int(exit_info.value.code or 0)

    return call


def test_a_worse_bake_ends_with_1_and_leaves_no_file(bake: Bake, capsys: pytest.CaptureFixture[str]) -> None:
    assert bake("--check", "pictures", "--device", "cpu") == 1
    out, err = capsys.readouterr()
    assert not out
    assert "faithfulness (insertion - deletion): worse, -" in err
    (line,) = [line for line in err.splitlines() if line.startswith("edgex: error: ")]
    assert "this bake makes heatmaps of these pictures less faithful" in line
    assert not Path("baked.safetensors").exists()
    assert bake("--check", "pictures", "--device", "cpu", "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["check"]["faithfulness"]["verdict"] == "worse"
    assert Path("baked.safetensors").exists()


def test_what_is_for_pictures_alone_is_refused_without_any(bake: Bake, capsys: pytest.CaptureFixture[str]) -> None:
    assert bake("--skip-bad") == 2
    assert "--skip-bad: skip_bad is for pictures that are measured" in capsys.readouterr().err
