from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.remove_unused import remove_unused


def test_what_no_output_needs_is_removed(plain: Callable[[], ir.Model]) -> None:
    model = plain()
    remove_unused(model)
    nodes, weights = len(list(model.graph)), set(model.graph.initializers)
    left = graph.constant(model, "left over", np.ones(3, dtype=np.float32))
    model.graph.append(ir.node("Neg", [left]))
    assert remove_unused(model) is True
    assert len(list(model.graph)) == nodes and set(model.graph.initializers) == weights
    assert remove_unused(model) is False
