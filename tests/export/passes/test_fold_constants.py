from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgex.export.passes.fold_constants import fold_constants
from edgex.models.self_explaining import normalise
from export_checks import assert_same_outputs, outputs_of


def test_weights_are_stored_as_they_are_read(
    raw_trace: Callable[[], ir.Model], small: Any, small_pictures: np.ndarray, explained: np.ndarray
) -> None:
    model = raw_trace()
    before = len(list(model.graph.all_nodes()))
    removed = fold_constants(model)
    assert removed == before - len(list(model.graph.all_nodes())) > 50
    for node in model.graph:
        assert not all(value is None or value.const_value is not None for value in node.inputs), node
    network, card = small
    image = normalise(torch.from_numpy(small_pictures), card.preprocessing.mean, card.preprocessing.std)
    with torch.no_grad():
        expected = [output.numpy() for output in network(image, torch.from_numpy(explained))]
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))


def test_no_tensor_grows_with_patches_times_classes(traced: Callable[[], ir.Model]) -> None:
    """One class per picture is folded backwards: nothing of size [N, patches, classes] is ever made."""
    for node in traced().graph:
        for value in node.outputs:
            sizes = list(value.shape or [])
            assert not (100 in sizes and 7 in sizes), node
