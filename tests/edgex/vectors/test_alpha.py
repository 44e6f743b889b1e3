from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.data import image_folders
from edgex.errors import UsageError
from edgex.evaluation import classification
from edgex.files.model_file import load_model, save_model
from edgex.files.vector_file import save_vector
from edgex.vectors import alpha
from edgex.vectors.bake import add_vector
from pictures import picture_folder
from vectors import fitting


@pytest.fixture
def pair(random_model: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path, image_folders.Pictures]:
    """A model, a vector of noise that harms it more the larger alpha is, and pictures it labels itself."""
    model, card = random_model("timm/test_vit", classes=3)
    target, vector = tmp_path / "target.safetensors", tmp_path / "vector.safetensors"
    save_model(target, model, card)
    generator = torch.Generator().manual_seed(0)
    deltas = {
        name: 0.4 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.backbone.tensors().items()
        if name.startswith("blocks.5") and tensor.ndim > 1
    }
    described = fitting(model, card, deltas, name="noise", evidence=card.evidence, alpha=1.0)
    save_vector(vector, deltas, described, dtype=torch.float32)
    pictures = image_folders.labelled(picture_folder(tmp_path / "pictures", {"": 12}))
    return target, vector, pictures


def test_the_largest_allowed_alpha_is_chosen(pair: tuple[Path, Path, image_folders.Pictures], tmp_path: Path) -> None:
    target, vector, pictures = pair
    choice = alpha.choose(target, vector, pictures, max_drop=3.0, max_alpha=2.0)
    accuracies = dict(choice.curve)
    assert choice.curve[0][0] == 0.0
    assert 100 * (accuracies[0.0] - accuracies[choice.alpha]) <= 3.0
    if choice.curve[-1][0] != choice.alpha:
        assert 100 * (accuracies[0.0] - choice.curve[-1][1]) > 3.0
    baked = tmp_path / "baked.safetensors"
    add_vector(target, vector, baked, alpha=choice.alpha)
    model, card = load_model(baked)
    assert classification.accuracy(model, pictures, card.preprocessing) == pytest.approx(choice.accuracy)


def test_without_a_limit_the_walk_goes_to_the_end(pair: tuple[Path, Path, image_folders.Pictures]) -> None:
    choice = alpha.choose(*pair, max_drop=100.0, max_alpha=0.5)
    assert [value for value, _ in choice.curve] == [0.0, 0.25, 0.5]
    assert choice.alpha == 0.5


def test_bad_limits_are_refused(pair: tuple[Path, Path, image_folders.Pictures]) -> None:
    with pytest.raises(UsageError, match="drop of at least 0"):
        alpha.choose(*pair, max_drop=-1, max_alpha=1)
    with pytest.raises(UsageError, match="largest alpha from 0.25"):
        alpha.choose(*pair, max_drop=1, max_alpha=0.1)
