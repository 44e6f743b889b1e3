import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgex.export import gate, graph_builder
from edgex.export.exported_module import ExportedModule, folded_projection
from edgex.export.report import Stages
from edgex.models.self_explaining import normalise
from edgex.training.vector_training import with_evidence


def test_folded_projection_is_the_convolution_over_normalised_pixels(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    # CLIP's patch embedding has no bias; the folded one always has.
    for name, size in (("timm/test_vit", (160, 160)), ("open_clip/ViT-S-32", (224, 224))):
        model, card = random_model(name)
        projection = model.backbone.patch_projection
        image = torch.from_numpy(natural_pictures(2, size))
        expected = projection(normalise(image, card.preprocessing.mean, card.preprocessing.std))
        weight, bias = folded_projection(projection, card.preprocessing)
        step = projection.kernel_size[0]
        patch = image[:, step : 2 * step, :step].flatten(1).float()  # second row, first column
        found = patch @ weight.T + bias
        assert (found - expected[:, :, 1, 0]).abs().max() < 1e-5 * expected.abs().max()


def test_fused_model_equals_the_model_on_normalised_pictures(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    for name, size in (("timm/test_vit", (160, 160)), ("timm/test_vit2", (160, 160))):
        model, card = random_model(name)
        image = torch.from_numpy(natural_pictures(3, size))
        explain = torch.tensor([-1, 0, 2])
        with torch.no_grad():
            found = ExportedModule(model, card.preprocessing)(image, explain)
            expected = model(normalise(image, card.preprocessing.mean, card.preprocessing.std), explain)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == torch.float32
            assert torch.allclose(one, other, atol=1e-5)


def test_exporting_leaves_the_model_as_it_is(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], unchanged: Callable[..., Any]
) -> None:
    model, card = random_model("timm/test_vit")
    training = copy.deepcopy(model).train().requires_grad_(True)
    pictures = natural_pictures(2, (160, 160))
    with unchanged(training):
        traced = ExportedModule(training, card.preprocessing)
        graph_builder.trace(traced, (160, 160))
        found = gate.reference(training, card.preprocessing, pictures)
    assert not traced.model.training and traced.model is not training
    expected = gate.reference(model, card.preprocessing, pictures)
    assert (found.predicted.heatmap == expected.predicted.heatmap).all()


BEYOND = (-2, 7, 8, 10**9, -(2**63), 2**63 - 1)
"""Numbers that are no class of seven, and not -1 either."""


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8 dynamic", "int8 static", "fp32 patches", "fp32 readout"])
def file(request: pytest.FixtureRequest, small: Any, random_model: Callable[..., Any], small_pictures: Any) -> Any:
    """onnxruntime's session of a model of 7 classes, in each precision and with each kind of evidence."""
    import onnx_ir as ir
    import onnxruntime

    precision, _, kind = request.param.partition(" ")
    model, card = random_model("timm/test_vit", classes=7, pooling="avg") if kind == "patches" else small
    if kind == "readout":
        model = with_evidence(model, 3, readout=True)
    recipe = graph_builder.Recipe(precision, int8_form="static" if kind == "static" else "dynamic")
    graph = graph_builder.build_graph(model, card, recipe, small_pictures[:4], Stages(None)).graph
    return onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_class_that_there_is_not_has_a_heatmap_of_nan(file: Any, small_pictures: np.ndarray, count: int) -> None:
    image = small_pictures[:count]

    def run(*classes: int) -> Any:
        return file.run(None, {"image": image, "explain_class": np.array(classes, np.int64)})

    good = [index % 8 - 1 for index in range(count)]
    logits, heatmap, base = run(*good)
    assert all(np.isfinite(output).all() for output in (logits, heatmap, base))
    for number in BEYOND:
        for place in {0, count - 1}:
            found = run(*(number if index == place else wanted for index, wanted in enumerate(good)))
            others = [index for index in range(count) if index != place]
            assert np.array_equal(found[0], logits)
            assert np.isnan(found[1][place]).all() and np.isnan(found[2][place])
            assert np.array_equal(found[1][others], heatmap[others]) and np.array_equal(found[2][others], base[others])
    if count == 1:
        together = run(-1, *BEYOND, 6)
        assert np.isnan(together[1][1:-1]).all() and np.isfinite(together[1][[0, -1]]).all()


def test_the_model_itself_says_the_same(small: Any, small_pictures: np.ndarray) -> None:
    model, card = small
    pixels = normalise(torch.from_numpy(small_pictures[:1]), card.preprocessing.mean, card.preprocessing.std)
    with torch.no_grad():
        expected = model(pixels)
        for number in BEYOND:
            found = model(pixels, torch.tensor([number]))
            assert torch.equal(found.logits, expected.logits)
            assert found.heatmap.isnan().all() and found.base.isnan().all()
