"""Helpers for tests against other libraries: shaken random weights, their files, and equal logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgex.models.backbones import Architecture

CLASSES = ("cat", "traffic light", "teapot")
TEMPLATES = ("a photo of a {}.", "a blurry picture of the {}, from above.")
TOLERANCE = 1e-5

# What `conftest.tiny_clips` makes known to open_clip.
TINY = Architecture("open_clip/tiny-token", (64, 64), "token")
TINY_QUICK = Architecture("open_clip/tiny-quickgelu", (64, 64), "token")


def shaken(module: nn.Module, seed: int = 0) -> Any:
    """Moves every parameter away from its neutral start, so that no tensor could be swapped unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "logit_scale":
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((0.02 if parameter.ndim > 1 else 0.1) * noise)
    return module.eval()


def pictures(size: int, seed: int = 1) -> Tensor:
    """Normalised pictures [2, 3, size, size]."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Writes tensors as safetensors, or with torch.save where the suffix says so."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


@torch.no_grad()
def assert_same_logits(model: Any, images: Tensor, expected: Tensor, record: Callable[[str, Any], None]) -> None:
    found = model(images).logits
    difference = (found - expected).abs().max().item()
    record("max_abs_difference", difference)
    assert found.std() > 0.01
    assert difference <= TOLERANCE, difference
