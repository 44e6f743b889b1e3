"""Fixtures of the workstation's tests: small models of other libraries, the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from libraries import CLASSES, saved, shaken


@pytest.fixture
def timm_vit() -> Any:
    """timm's smallest ViT with a head for CLASSES."""
    import timm
    import torch

    torch.manual_seed(0)
    return shaken(timm.create_model("test_vit", num_classes=len(CLASSES)))


@pytest.fixture(scope="module")
def clip(tiny_clips: None) -> Any:
    """open_clip's whole model of "tiny-token"."""
    import open_clip
    import torch

    torch.manual_seed(0)
    return shaken(open_clip.create_model("tiny-token"))


@pytest.fixture(scope="module")
def hf_config() -> Any:
    """transformers' configuration with the dimensions of open_clip/tiny-quickgelu."""
    from transformers import CLIPConfig

    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    text = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    }
    shared = {"projection_dim": 32, "hidden_act": "quick_gelu"}
    return CLIPConfig(vision_config={**vision, **shared}, text_config={**text, **shared}, projection_dim=32)


@pytest.fixture
def linear_head(tmp_path: Path) -> Callable[[int], tuple[Path, Any]]:
    """Makes a random linear head of a width, and its file."""

    import torch

    def make(width: int) -> tuple[Path, Any]:
        torch.manual_seed(3)
        head = torch.nn.Linear(width, len(CLASSES))
        return saved(tmp_path / "head.safetensors", dict(head.state_dict())), head

    return make


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `edgex ...` in this process, in a folder of its own.

    Returns what it printed, or its error line where an exit code is expected.
    """
    from edgex.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["edgex", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        assert (exit_.value.code or 0) == code, said.err
        if code == 0:
            return said.out + said.err
        (line,) = [line for line in said.err.splitlines() if line.startswith("edgex: error: ")]
        return line

    return call
