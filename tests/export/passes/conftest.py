"""Graphs that passes change: traced and folded once, given anew to every test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgex.export import graph_builder
from edgex.export.exported_module import ExportedModule
from edgex.export.passes.attention_to_products import attention_to_products
from edgex.export.passes.fold_constants import fold_constants
from export_checks import outputs_of


@pytest.fixture(scope="session")
def raw_trace(small: Any) -> Callable[[], ir.Model]:
    """Makes the graph of the small model as torch traced it: six blocks, of which the heatmap reads the last four."""
    network, card = small
    return lambda: graph_builder.trace(ExportedModule(network, card.preprocessing), (160, 160))


@pytest.fixture(scope="session")
def traced(raw_trace: Callable[[], ir.Model]) -> Callable[[], ir.Model]:
    """Makes the traced graph with its constants folded, at the opset of `Attention`."""
    folded = raw_trace()
    fold_constants(folded)
    message = ir.to_proto(folded)
    return lambda: ir.from_proto(message)


@pytest.fixture(scope="session")
def plain(traced: Callable[[], ir.Model]) -> Callable[[], ir.Model]:
    """Makes the traced graph with its attention as matrix products."""
    made = traced()
    attention_to_products(made)
    message = ir.to_proto(made)
    return lambda: ir.from_proto(message)


@pytest.fixture(scope="session")
def explained() -> np.ndarray:
    """A class for each of the small pictures: the predicted one and several by number."""
    return np.array([-1, 0, 3, 6, -1, 1, 2, 5, 4])


@pytest.fixture(scope="session")
def expected(traced: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray) -> list[np.ndarray]:
    """What the graph gives for the small pictures and these classes before any pass."""
    return outputs_of(traced(), small_pictures, explained)
