from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgex.runtime import ArtefactError, Session, schema
from edgex.runtime.drift import observation_of
from edgex.runtime.sketch import EDGES, SKETCH, Observation, Sketch, evidence_shape

CLASSES = 4


def observations(count: int, seed: int = 0) -> list[Observation]:
    rng = np.random.default_rng(seed)
    table = rng.random((count, 3))
    return [Observation(a, int(c), b, e) for (a, b, e), c in zip(table, rng.integers(0, CLASSES, count), strict=True)]


@pytest.mark.parametrize("size", [(14, 14), (7, 9), (3, 3), (1, 1), (2, 5)])
def test_border_and_entropy_against_loops(size: tuple[int, int]) -> None:
    heatmap = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    border, entropy = evidence_shape(heatmap)
    floor = max(float(np.median(heatmap)), 0.0)
    heat = {place: max(float(value) - floor, 0.0) for place, value in np.ndenumerate(heatmap)}
    total = sum(heat.values())
    if total == 0:
        heat, total = dict.fromkeys(heat, 1.0), len(heat)
    rows, columns = size
    ring = sum(v for (r, c), v in heat.items() if r in (0, rows - 1) or c in (0, columns - 1))
    assert border == pytest.approx(ring / total, abs=1e-6)
    wanted = -sum(v / total * np.log(v / total) for v in heat.values() if v > 0)
    assert entropy == pytest.approx(wanted / np.log(max(len(heat), 2)), abs=1e-6)
    assert 0 <= border <= 1 and 0 <= entropy <= 1 + 1e-9


def test_the_extremes_of_heatmaps() -> None:
    flat = np.full((14, 14), 0.3, np.float32)
    assert evidence_shape(flat) == pytest.approx((52 / 196, 1))
    one = np.zeros((14, 14), np.float32)
    one[7, 7] = 2
    assert evidence_shape(one) == pytest.approx((0, 0))
    one[0, 3] = 2
    # An amount that is the same everywhere is no evidence.
    assert evidence_shape(one + 5) == pytest.approx((0.5, np.log(2) / np.log(196)), abs=1e-5)


def test_quantiles_are_those_of_the_values() -> None:
    seen = observations(4000)
    sketch = Sketch.of(seen, CLASSES)
    assert sketch.pictures == 4000
    for quantity in EDGES:
        values = [getattr(observation, quantity) for observation in seen]
        for share in (0.05, 0.25, 0.5, 0.9):
            wanted = float(np.quantile(values, share))
            edges = EDGES[quantity]
            # One bin wide at most.
            allowed = float(np.diff(edges)[np.searchsorted(edges, wanted) - 1])
            assert sketch.quantile(quantity, share) == pytest.approx(wanted, abs=allowed)
    assert Sketch.of([Observation(1.0, 0, 0.0, 1.0)], CLASSES).quantile("score", 0.5) > 0.99


def test_sketches_add_up_and_forget() -> None:
    first, second = observations(50), observations(30, seed=1)
    both = Sketch.of(first, CLASSES) + Sketch.of(second, CLASSES)
    assert both == Sketch.of([*second, *first], CLASSES)
    for observation in second:
        both.count(observation.bins(), -1)
    assert both == Sketch.of(first, CLASSES) != Sketch.of(second, CLASSES)


def test_stored_and_read_again() -> None:
    sketch = Sketch.of(observations(20), CLASSES)
    text = json.dumps(sketch.to_dict())
    assert len(text) < 2000
    assert schema.checked(SKETCH, json.loads(text), "sketch") == sketch
    sketch.check(CLASSES)
    with pytest.raises(ArtefactError, match="expected a sketch of 5 classes, found one of 4; calibrate again"):
        sketch.check(5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"score": [1]}, "score: expected a list of 107"),
        ({"classes": []}, "classes: expected a list of at least 1"),
        ({"classes": [1, -1]}, r"classes\[1\]"),
        ({"classes": [19, 0, 0, 0]}, "as many pictures in each histogram"),
        ({"classes": [2**62] * 4}, r"classes\[0\]"),
    ],
)
def test_sketches_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    stored = Sketch.of(observations(20), CLASSES).to_dict() | changes
    with pytest.raises(ArtefactError, match=words):
        schema.checked(SKETCH, stored, "sketch")


def test_a_sketch_of_nothing_is_refused() -> None:
    with pytest.raises(ArtefactError, match="at least one"):
        schema.checked(SKETCH, Sketch.empty(CLASSES).to_dict(), "sketch")


def test_of_results(session: Session, frame: np.ndarray) -> None:
    result = session(frame)
    observed = observation_of(result)
    assert (observed.score, observed.index) == (result.score, result.index)
    assert (observed.border, observed.entropy) == evidence_shape(result.heatmap)
    assert Sketch.of([observed], len(session.classes)).counts["classes"][result.index] == 1
