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
from edgex.models.self_explaining import normalise
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
    found = image_folders.labelled(picture_folder(tmp_path / "pictures", {"": 12}))
    images = torch.from_numpy(image_folders.load_batch(found.paths, card.preprocessing))
    with torch.inference_mode():
        predicted = model(normalise(images, card.preprocessing.mean, card.preprocessing.std)).logits.argmax(dim=1)
    return target, vector, image_folders.Pictures(found.paths, tuple(predicted.tolist()), card.classes)


def test_the_largest_allowed_alpha_is_chosen(pair: tuple[Path, Path, image_folders.Pictures], tmp_path: Path) -> None:
    target, vector, pictures = pair
    choice = alpha.choose(target, vector, pictures, max_drop=10.0, max_alpha=4.0)
    drops = [100 * (choice.curve[0][1] - accuracy) for _, accuracy in choice.curve]
    assert choice.curve[0] == (0.0, 1.0), "the labels are its own"
    assert [value for value, _ in choice.curve] == [0.25 * index for index in range(len(drops))]
    assert drops[-1] > 10.0, "the walk ends at the first alpha that costs too much"
    assert all(drop <= 10.0 for drop in drops[:-1])
    assert choice.alpha == choice.curve[-2][0] > 0
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
