from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgex.data import image_folders
from edgex.evaluation import classification
from edgex.models.self_explaining import normalise
from pictures import picture_folder


def test_every_picture_is_held_against_its_own_label(random_model: Callable[..., Any], tmp_path: Path) -> None:
    """Labels that are right for chosen pictures only, over more than one batch: nothing else may come out right."""
    model, card = random_model("timm/test_vit", classes=3)
    found = image_folders.labelled(picture_folder(tmp_path, {"": 15}))
    images = torch.from_numpy(image_folders.load_batch(found.paths, card.preprocessing))
    with torch.inference_mode():
        predicted = model(normalise(images, card.preprocessing.mean, card.preprocessing.std)).logits.argmax(dim=1)
    assert len(found) > classification._BATCH
    assert len(predicted.unique()) > 1
    right = np.random.default_rng(0).random(len(found)) < 0.5
    labels = np.where(right, predicted.numpy(), (predicted.numpy() + 1) % 3)
    pictures = image_folders.Pictures(found.paths, tuple(labels.tolist()), found.classes)
    for workers in (0, 1):
        hits = classification.correct(model, pictures, card.preprocessing, workers=workers)
        assert np.array_equal(hits, right)
    assert classification.accuracy(model, pictures, card.preprocessing) == right.mean()


def test_measuring_leaves_the_model_as_it_is(
    random_model: Callable[..., Any], unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    model = copy.deepcopy(model).train().requires_grad_(True)
    pictures = image_folders.labelled(picture_folder(tmp_path, {"": 3}))
    with unchanged(model):
        classification.accuracy(model, pictures, card.preprocessing)
