from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 49, 999])
def test_intervals_are_students(freedom: int) -> None:
    from scipy.stats import t

    assert math.isclose(evaluate.student_t(freedom), t.ppf(0.975, freedom), rel_tol=0.01)
    values = np.random.default_rng(freedom).normal(size=freedom + 1)
    low, high = t.interval(0.95, freedom, values.mean(), values.std(ddof=1) / math.sqrt(freedom + 1))
    assert np.allclose(Estimate.of(values).interval, (low, high), rtol=0.02)


def test_a_single_picture_has_no_interval() -> None:
    assert all(math.isnan(end) for end in Estimate.of([1.0]).interval)
