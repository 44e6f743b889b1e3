from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.graph import MICROSOFT
from edgex.export.passes.attention_to_products import attention_to_products
from edgex.export.passes.fuse_attention import fuse_attention
from export_checks import assert_same_outputs, outputs_of


def test_blocks_that_the_heatmap_does_not_read_are_fused(
    traced: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = traced()
    # The heatmap reads the heads of the last four blocks.
    assert fuse_attention(model) == 2 and fuse_attention(model) == 0
    kinds = Counter((node.domain, node.op_type) for node in model.graph)
    assert kinds[MICROSOFT, "MultiHeadAttention"] == 2 and kinds["", "Attention"] == 4
    assert model.opset_imports[MICROSOFT] == 1
    assert attention_to_products(model) == 4
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))
