"""Values of imported tensors: float32 in the end, and no value that no trained weight has."""

from __future__ import annotations

import math

import pytest
import torch

from edgex.errors import ArtefactError
from edgex.importers.values import as_float32, check_weights


def test_counters_and_indices_stay_integers() -> None:
    tensors = {"ids": torch.arange(3), "mask": torch.tensor([True]), "w": torch.ones(2).double()}
    found = as_float32(tensors, "c.pth")
    assert [tensor.dtype for tensor in found.values()] == [torch.int64, torch.bool, torch.float32]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_quantised_and_other_types_are_named(dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(ArtefactError, match=f"c.pth: tensor 'blocks.0.w' holds {kind} values"):
        as_float32({"blocks.0.w": torch.zeros(2).to(dtype)}, "c.pth")


def test_values_beyond_float32_are_named() -> None:
    with pytest.raises(ArtefactError, match="tensor 'w' holds values up to 3e"):
        as_float32({"w": torch.tensor([1.0, -3e300], dtype=torch.float64)}, "c.pth")
    infinite = as_float32({"mask": torch.tensor([0.0, -math.inf], dtype=torch.float64)}, "c.pth")
    assert infinite["mask"].tolist() == [0.0, -math.inf]


@pytest.mark.parametrize("value", [3e37, -3e37, 2e6])
def test_no_trained_weight_is_that_large(value: float) -> None:
    with pytest.raises(ArtefactError, match=r"c.pth: tensor 'w' holds a value of .e.\d+, which no trained"):
        check_weights({"v": torch.zeros(2), "w": torch.tensor([0.1, value])}, "c.pth")
    check_weights({"v": torch.tensor([-99.0, 1e5]), "none": torch.zeros(0)}, "c.pth")
