from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.calibration import Activations
from edgex.export.passes.level_channels import level_channels
from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.token_products import token_products, weight_of
from export_checks import assert_same_outputs, outputs_of


def test_outliers_move_and_the_outputs_stay(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    split_packed_products(model)
    products = token_products(model)
    width = {node.inputs[0].name or "": weight_of(node).shape[0] for node in products if node.inputs[0] is not None}
    rng = np.random.default_rng(0)
    uneven = {name: np.exp(rng.normal(size=size)).astype(np.float32) for name, size in width.items()}
    stats = {name: Activations(-reach, reach, reach[None]) for name, reach in uneven.items()}
    assert level_channels(model, products, stats) == 11
    changed = [name for name, reach in uneven.items() if not np.array_equal(stats[name].high, reach)]
    assert len(changed) == 11
    for name in changed:
        assert np.std(np.log(stats[name].high)) < 0.8 * np.std(np.log(uneven[name]))
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained), 2e-5)
