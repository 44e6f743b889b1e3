from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgex.errors import UsageError
from edgex.evaluation import faithfulness
from edgex.models.self_explaining import normalise

PIXELS = 16


def normalised(card: Any, pictures: np.ndarray) -> torch.Tensor:
    return normalise(torch.from_numpy(pictures), card.preprocessing.mean, card.preprocessing.std)


@pytest.mark.parametrize("fill", faithfulness.FILLS)
@pytest.mark.parametrize("name", ["timm/test_vit", "open_clip/tiny-token", "open_clip/tiny-avg"])
def test_hiding_tokens_is_filling_pixels(
    random_model: Callable[..., Any],
    natural_pictures: Callable[..., np.ndarray],
    tiny_clips: None,
    fill: faithfulness.Fill,
    name: str,
) -> None:
    model, card = random_model(name)
    images = normalised(card, natural_pictures(2, card.architecture.image_size))
    rows, columns = model.backbone.grid
    visible = torch.rand(2, rows * columns, generator=torch.Generator().manual_seed(0)) < 0.5
    tokens, blank = faithfulness.embed_filled(model, images, fill)
    mask = visible.reshape(2, 1, rows, columns).repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)
    expected = model.backbone.embed(torch.where(mask, images, faithfulness.filled(images, fill, PIXELS)))
    assert torch.allclose(faithfulness.hide(tokens, blank, visible), expected, atol=1e-5)
    assert not torch.allclose(tokens, expected, atol=1e-2)


def test_blur_is_torchvisions_and_mean_is_the_mean_colour(natural_pictures: Callable[..., np.ndarray]) -> None:
    from torchvision.transforms.functional import gaussian_blur

    pictures = torch.from_numpy(natural_pictures(1, (160, 160)))
    images = normalise(pictures, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    blurred = faithfulness.filled(images, "blur", PIXELS)
    expected = gaussian_blur(images, [4 * PIXELS + 1] * 2, [float(PIXELS)] * 2)
    inner = slice(2 * PIXELS, -2 * PIXELS)
    assert torch.allclose(blurred[..., inner, inner], expected[..., inner, inner], atol=1e-4)
    colour = torch.tensor([0.4, 0.5, 0.6]).mul(255).expand(1, 2, 2, 3)
    assert normalise(colour, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)).abs().max() < 1e-5
    assert not faithfulness.filled(images, "mean", PIXELS).any()
    with pytest.raises(UsageError, match="fill of mean or blur, found 'noise'"):
        faithfulness.filled(images, "noise", PIXELS)  # type: ignore[arg-type]


def test_insertion_and_deletion_equal_curves_computed_one_by_one(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    images = normalised(card, natural_pictures(2, (160, 160)))
    explained = model(images)
    classes = explained.logits.argmax(dim=1)
    found = faithfulness.faithfulness(model, images, classes, explained.heatmap, steps=4)
    for picture in range(2):
        order = np.argsort(-explained.heatmap[picture].flatten().numpy(), kind="stable")
        for name, inserting in (("insertion", True), ("deletion", False)):
            probabilities = []
            for step in range(5):
                chosen = set(order[: round(step * 100 / 4)].tolist())
                pixels = torch.zeros_like(images[picture])
                for patch in range(100):
                    if (patch in chosen) == inserting:
                        row, column = divmod(patch, 10)
                        area = (slice(None), slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
                        pixels[area] = images[picture][area]
                probabilities.append(model(pixels[None]).logits.softmax(dim=1)[0, classes[picture]].item())
            area = np.trapezoid(probabilities, dx=0.25)
            assert math.isclose(getattr(found, name)[picture], area, abs_tol=1e-4)


def test_every_patch_may_be_a_step_and_more_are_refused(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    images = normalised(card, natural_pictures(1, (160, 160)))
    classes, heatmap = torch.tensor([1]), torch.arange(100.0).reshape(1, 10, 10)
    fine = faithfulness.faithfulness(model, images, classes, heatmap, steps=100)
    coarse = faithfulness.faithfulness(model, images, classes, heatmap, steps=20)
    assert math.isclose(fine.insertion[0], coarse.insertion[0], abs_tol=0.05)
    with pytest.raises(UsageError, match="1 to 100 steps for 100 patches, found 101"):
        faithfulness.faithfulness(model, images, classes, heatmap, steps=101)


def test_a_heatmap_of_the_model_beats_its_negative(
    deit_tiny: Callable[[], Any], real_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = deit_tiny()
    images = normalised(card, real_pictures(4))
    explained = model(images)
    classes = explained.logits.argmax(dim=1)
    for fill in faithfulness.FILLS:
        good = faithfulness.faithfulness(model, images, classes, explained.heatmap, steps=4, fill=fill)
        bad = faithfulness.faithfulness(model, images, classes, -explained.heatmap, steps=4, fill=fill)
        assert good.difference.mean() > bad.difference.mean() + (0.2 if fill == "mean" else 0.1)


def test_a_multi_label_model_is_followed_by_its_sigmoid(random_model: Callable[..., Any]) -> None:
    """With one step, a curve is the mean of two probabilities: of the whole picture and of the filled one."""
    model, _ = random_model("timm/test_vit", activation="sigmoid")
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([1, 4])
    found = faithfulness.faithfulness(model, images, classes, torch.randn(2, *model.backbone.grid), steps=1)
    with torch.no_grad():
        odds = [model(shown).logits.gather(1, classes[:, None])[:, 0].sigmoid() for shown in (images, 0 * images)]
    np.testing.assert_allclose(found.insertion, torch.stack(odds).mean(dim=0).numpy(), atol=1e-5)
