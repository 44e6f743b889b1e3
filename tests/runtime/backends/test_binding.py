"""Memory bound to a session. The device is the CPU here, which onnxruntime binds alike; test_cuda.py has the GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgex.runtime.backends.binding import DeviceBinding, HostBinding
from edgex.runtime.backends.onnxruntime import open_session
from small_model import CLASSES, GRID, MAX_BATCH

Reference = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]
SHAPES: dict[str, tuple[int, ...]] = {"logits": (len(CLASSES),), "heatmap": GRID, "base": ()}


def inputs(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    return {"image": images, "explain_class": np.arange(count) % 5 - 1}


@pytest.fixture(params=["host", "device"])
def binding(request: pytest.FixtureRequest) -> HostBinding | DeviceBinding:
    if request.param == "host":
        return HostBinding(onnxruntime, SHAPES)
    return DeviceBinding(onnxruntime, SHAPES, MAX_BATCH, "cpu")


@pytest.fixture
def opened(model_path: Path) -> Any:
    return open_session(model_path, "cpu", 1)


def check(found: list[np.ndarray], given: dict[str, np.ndarray], reference: Reference) -> None:
    for one, other in zip(found, reference(given["image"], given["explain_class"]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_any_batch_size_in_any_order(binding: Any, opened: Any, reference: Reference) -> None:
    kept = []
    # The last one is larger than what gets memory of its own.
    for seed, count in enumerate((1, 3, 1, 4, 3, 1, MAX_BATCH + 2)):
        given = inputs(count, seed)
        kept.append((binding.run(opened, given), given))
    for found, given in kept:
        check(found, given, reference)


def test_what_the_model_does_not_take_is_an_error_and_leaves_no_trace(
    binding: Any, opened: Any, reference: Reference
) -> None:
    good = inputs(2)
    for order in range(2):
        for bad in (
            {**good, "image": good["image"].astype(np.float32)},
            {**good, "image": good["image"][:, :16]},
            {**good, "explain_class": good["explain_class"].astype(np.int32)},
        ):
            with pytest.raises(Exception, match="image|explain_class|[dD]imension|data type"):
                binding.run(opened, bad)
        if order == 0:
            check(binding.run(opened, good), good, reference)
    check(binding.run(opened, good), good, reference)


def test_inputs_that_are_not_contiguous(binding: Any, opened: Any, reference: Reference) -> None:
    given = inputs(2)
    turned = {**given, "image": given["image"][:, :, ::-1]}
    check(binding.run(opened, turned), turned, reference)
    check(binding.run(opened, given), given, reference)


def test_threads(binding: Any, opened: Any, reference: Reference) -> None:
    tasks = [inputs(1 + seed % MAX_BATCH, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for found, given in zip(pool.map(lambda given: binding.run(opened, given), tasks), tasks, strict=True):
            check(found, given, reference)


def test_one_picture_with_several_classes(opened: Any) -> None:
    """This model wants a class per picture; the binding hands the call on as it is."""
    with pytest.raises(Exception, match="Invalid|broadcast|dimension"):
        DeviceBinding(onnxruntime, SHAPES, MAX_BATCH, "cpu").run(
            opened, {**inputs(2), "explain_class": np.zeros(3, np.int64)}
        )
