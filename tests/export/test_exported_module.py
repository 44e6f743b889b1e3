import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from edgex.export import gate, graph_builder
from edgex.export.exported_module import ExportedModule, folded_projection
from edgex.models.self_explaining import normalise


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
