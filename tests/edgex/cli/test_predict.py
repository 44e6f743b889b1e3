"""`edgex predict`: what its options do to what it prints and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex.evaluation.torch_session import TorchSession
from edgex.files.model_file import save_model


@pytest.fixture
def picture(random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """A picture beside a model "model.safetensors" of five classes."""
    model, card = random_model("timm/test_vit", classes=5)
    save_model(tmp_path / "model.safetensors", model, card)
    path = tmp_path / "picture.png"
    Image.fromarray(natural_pictures(1, card.preprocessing.image_size)[0]).save(path)
    return path


@pytest.mark.parametrize("top", [1, 4])
def test_top_says_how_many_classes_are_printed(run: Callable[..., str], picture: Path, top: int) -> None:
    best = TorchSession(picture.with_name("model.safetensors"))(picture).top(top)
    line = run("predict", "model.safetensors", str(picture), "--top", str(top)).strip()
    assert line == f"{picture}: " + ", ".join(f"{label} {100 * score:.1f}%" for label, score in best)
    (found,) = json.loads(run("predict", "model.safetensors", str(picture), "--top", str(top), "--json"))
    assert len(found["top"]) == top


def test_an_overlay_is_that_of_the_explained_class(run: Callable[..., str], picture: Path, tmp_path: Path) -> None:
    result = TorchSession(picture.with_name("model.safetensors"))(picture, explain="class 3")
    said = run("predict", "model.safetensors", str(picture), "--explain", "class 3", "--overlay", "overlays")
    assert "(explained: class 3)" in said
    (written,) = (tmp_path / "overlays").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(written)), result.overlay(picture))
