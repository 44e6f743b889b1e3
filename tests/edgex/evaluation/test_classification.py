from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgex.data import image_folders
from edgex.evaluation import classification
from edgex.models.self_explaining import normalise
from pictures import picture_folder


def test_accuracy_counts_matches(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    pictures = image_folders.labelled(picture_folder(tmp_path, {"": 3}))
    images = torch.from_numpy(image_folders.load_batch(pictures.paths, card.preprocessing))
    predicted = model(normalise(images, card.preprocessing.mean, card.preprocessing.std)).logits.argmax(dim=1)
    expected = (predicted == torch.tensor(pictures.labels)).float().mean().item()
    assert 0 < expected < 1
    assert math.isclose(classification.accuracy(model, pictures, card.preprocessing), expected, rel_tol=1e-6)


def test_measuring_leaves_the_model_as_it_is(
    random_model: Callable[..., Any], unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    model = copy.deepcopy(model).train().requires_grad_(True)
    pictures = image_folders.labelled(picture_folder(tmp_path, {"": 3}))
    with unchanged(model):
        classification.accuracy(model, pictures, card.preprocessing)
