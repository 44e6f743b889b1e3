from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgex import data, evaluate
from edgex.evaluate import Estimate
from edgex.model import normalise
from pictures import picture_folder


def test_an_estimate_is_mean_and_standard_error() -> None:
    found = Estimate.of([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3.0
    assert math.isclose(found.standard_error, np.std([1, 2, 3, 6], ddof=1) / 2)
    assert found.n == 4


def test_accuracy_counts_matches(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    pictures = data.labelled(picture_folder(tmp_path, {"": 3}))
    images = torch.from_numpy(data.load_batch(pictures.paths, card.preprocessing))
    predicted = model(normalise(images, card.preprocessing.mean, card.preprocessing.std)).logits.argmax(dim=1)
    expected = (predicted == torch.tensor(pictures.labels)).float().mean().item()
    assert math.isclose(evaluate.accuracy(model, pictures, card.preprocessing), expected, rel_tol=1e-6)


def test_insertion_and_deletion_equal_curves_computed_one_by_one(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    images = normalise(
        torch.from_numpy(natural_pictures(2, (160, 160))), card.preprocessing.mean, card.preprocessing.std
    )
    explained = model(images)
    classes = explained.logits.argmax(dim=1)
    found = evaluate.faithfulness(model, images, classes, explained.heatmap, steps=4)
    for picture in range(2):
        order = np.argsort(-explained.heatmap[picture].flatten().numpy(), kind="stable")
        for name, inserting in (("insertion", True), ("deletion", False)):
            probabilities = []
            for step in range(5):
                chosen = set(order[: round(step * 100 / 4)].tolist())
                pixels = torch.zeros_like(images[picture])
                for patch in range(100):
                    if (patch in chosen) == inserting:
                        row, column = divmod(patch, 10)
                        area = (slice(None), slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
                        pixels[area] = images[picture][area]
                probabilities.append(model(pixels[None]).logits.softmax(dim=1)[0, classes[picture]].item())
            area = np.trapezoid(probabilities, dx=0.25)
            assert math.isclose(getattr(found, name)[picture], area, abs_tol=1e-4)


def test_a_heatmap_of_the_model_beats_its_negative(
    deit_tiny: Callable[[], Any], real_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = deit_tiny()
    images = normalise(torch.from_numpy(real_pictures(6)), card.preprocessing.mean, card.preprocessing.std)
    explained = model(images)
    classes = explained.logits.argmax(dim=1)
    good = evaluate.faithfulness(model, images, classes, explained.heatmap, steps=7)
    bad = evaluate.faithfulness(model, images, classes, -explained.heatmap, steps=7)
    assert good.difference.mean() > bad.difference.mean() + 0.2
