from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgex.errors import UsageError
from edgex.evaluation import baselines
from edgex.evaluation.baselines import Method
from edgex.files.model_file import load_model, save_model
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.utils import devices
from pictures import draw

Model = tuple[SelfExplainingViT, Tensor]


@pytest.fixture
def model_and_images(random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]) -> Model:
    """timm's smallest ViT, 10x10 patches, and two normalised pictures."""
    model, card = random_model("timm/test_vit", classes=4)
    pictures = torch.from_numpy(natural_pictures(2, (160, 160)))
    return model, normalise(pictures, card.preprocessing.mean, card.preprocessing.std)


def quarters(visible: tuple[int, ...]) -> Tensor:
    """A pixel mask [160, 160] of a picture of which some of the 2x2 superpixels are visible."""
    mask = torch.zeros(160, 160, dtype=torch.bool)
    for quarter in visible:
        row, column = divmod(quarter, 2)
        mask[80 * row : 80 * row + 80, 80 * column : 80 * column + 80] = True
    return mask


def library_logits(model: SelfExplainingViT, pixels: Tensor) -> Tensor:
    """Centred logits by the library's own forward pass: nothing of edgex's."""
    logits = nn.functional.linear(model.backbone.module(pixels), model.head.weight, model.head.bias)
    return logits - logits.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "text",
    [
        "kernel-shap:150",
        "kernel-shap:1000@patches",
        "kernel-shap:150@5+drop",
        "kernel-shap:9+blur",
        "grad-cam",
        "rollout",
    ],
)
def test_methods_are_read_and_written(text: str) -> None:
    assert str(Method.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shap", "expected a method kernel-shap:PASSES"),
        ("kernel-shap", "expected a method kernel-shap:PASSES"),
        ("kernel-shap:-5", "expected a method kernel-shap:PASSES"),
        ("kernel-shap:150@many", "expected a method kernel-shap:PASSES"),
        ("kernel-shap:3", "at least 4 passes"),
        ("kernel-shap:150@1", "at least 2 superpixels per side"),
        ("kernel-shap:150@0", "at least 2 superpixels per side"),
    ],
)
def test_bad_methods_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Method.parse(text)


def test_players_fit_the_grid() -> None:
    method = Method.parse("kernel-shap:150")
    assert [int(method.players((side, side)).max()) + 1 for side in (14, 10, 7, 16, 24)] == [49, 25, 49, 16, 36]
    assert int(Method.parse("kernel-shap:150@patches").players((3, 5)).max()) + 1 == 15
    with pytest.raises(UsageError, match="13x13 patch grid has no superpixels: use kernel-shap:150@patches"):
        method.players((13, 13))


def test_kernel_shap_of_four_superpixels_is_exact(model_and_images: Model) -> None:
    """The Shapley values by their definition, from masked pixels and the library's own forward pass."""
    model, images = model_and_images
    classes = torch.tensor([2, 0])
    found = baselines.explain(model, images, classes, Method("kernel-shap", 16, 2), np.random.default_rng(0))
    for image, explained, heatmap in zip(images, classes, found, strict=True):
        value = {
            members: library_logits(model, (image * quarters(members))[None])[0, explained].item()
            for size in range(5)
            for members in itertools.combinations(range(4), size)
        }
        for player in range(4):
            exact = 0.0
            for members in value:
                if player not in members:
                    weight = math.factorial(len(members)) * math.factorial(3 - len(members)) / 24
                    exact += weight * (value[tuple(sorted((*members, player)))] - value[members])
            row, column = divmod(player, 2)
            area = heatmap[5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
            assert torch.allclose(area, torch.full((5, 5), exact / 25), atol=1e-5)


def test_dropped_tokens_are_those_that_the_library_never_sees(model_and_images: Model) -> None:
    model, images = model_and_images
    visible = torch.rand(5, 100, generator=torch.Generator().manual_seed(0)) < 0.6
    visible[3] = False
    visible[4] = visible[0].flip(0)
    found = baselines.coalition_values(model, images[:1], torch.tensor([1]), visible, "drop")
    tokens = model.backbone.embed(images[:1])
    module: Any = model.backbone.module
    for row, value in zip(visible, found, strict=True):
        kept = torch.cat([tokens[:, :1], tokens[:, 1:][:, row]], dim=1)
        features = module.norm(module.blocks(kept))[:, 0]
        logits = nn.functional.linear(features, model.head.weight, model.head.bias)[0]
        assert math.isclose(value, logits[1] - logits.mean(), abs_tol=1e-4)


def test_kernel_shap_agrees_with_captum_as_its_users_call_it(model_and_images: Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import KernelShap
    model, images = model_and_images
    explained = torch.tensor([2])
    ours = baselines.explain(model, images[:1], explained, Method("kernel-shap", 400, 5), np.random.default_rng(0))[0]
    mask = torch.arange(25).reshape(5, 5).repeat_interleave(32, 0).repeat_interleave(32, 1)
    torch.manual_seed(0)
    with torch.inference_mode():
        captums = KernelShap(lambda pixels: library_logits(model, pixels)[:, 2]).attribute(
            images[:1], feature_mask=mask[None, None], n_samples=400, perturbations_per_eval=50
        )[0, 0, ::16, ::16]
    assert np.corrcoef(ours.flatten(), captums.flatten())[0, 1] > 0.9
    assert math.isclose(4 * ours.std(), captums.std(), rel_tol=0.2)


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_grad_cam_is_captums(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], pooling: str
) -> None:
    """captum's LayerGradCam on the same layer, laid out as the picture [N, D, rows, columns] that it expects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import LayerGradCam
    model, card = random_model("timm/test_vit", classes=4, pooling=pooling)
    pictures = torch.from_numpy(natural_pictures(2, (160, 160)))
    images = normalise(pictures, card.preprocessing.mean, card.preprocessing.std)
    module, classes = model.backbone.module, torch.tensor([2, 1])

    class AsPicture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Identity()

        def forward(self, tokens: Tensor) -> Tensor:
            last = module.blocks[-1]
            tokens = module.blocks[:-1](tokens)
            normed = last.norm1(tokens)
            patches = self.place(normed[:, 1:].mT.unflatten(2, (10, 10))).flatten(2).mT
            tokens = tokens + last.ls1(last.attn(torch.cat([normed[:, :1], patches], dim=1)))
            tokens = tokens + last.ls2(last.mlp(last.norm2(tokens)))
            return nn.functional.linear(module.forward_head(module.norm(tokens)), model.head.weight, model.head.bias)

    whole = AsPicture()
    tokens = model.backbone.embed(images).requires_grad_()
    expected = LayerGradCam(whole, whole.place).attribute(tokens, target=classes)[:, 0].detach()
    with torch.inference_mode():
        found = baselines.grad_cam(model, images, classes)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_rollout_is_the_product_of_the_librarys_attentions(model_and_images: Model) -> None:
    model, images = model_and_images
    module: Any = model.backbone.module
    attentions: list[Tensor] = []
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: attentions.append(output))
    module.forward_features(images)
    product = torch.eye(101).expand(2, -1, -1)
    for attention in attentions:
        product = (0.5 * attention.mean(dim=1) + 0.5 * torch.eye(101)) @ product
    found = baselines.attention_rollout(model, images)
    assert torch.allclose(found, product[:, 0, 1:].reshape(2, 10, 10), atol=1e-6)


def test_rollout_of_average_pooling_starts_from_all_patches(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", pooling="avg")
    pictures = torch.from_numpy(natural_pictures(1, (160, 160)))
    found = baselines.attention_rollout(model, normalise(pictures, card.preprocessing.mean, card.preprocessing.std))
    assert found.min() > 0
    assert 0.5 < float(found.sum()) < 1


def test_cached_heatmaps_resume_and_belong_to_their_picture(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    path = tmp_path / "model.safetensors"
    save_model(path, model, card)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, picture in enumerate(paths):
        draw("red disc", index, size=200).save(picture)
    made: list[str] = []
    original = baselines._explain
    monkeypatch.setattr(baselines, "_explain", lambda *a: made.append(a[4]) or original(*a))
    method = Method.parse("kernel-shap:20@5")

    def run(which: list[Path], **change: Any) -> baselines.Explanations:
        return baselines.cached_heatmaps(
            load_model(path), which, change.pop("method", method), tmp_path / "cache", **change
        )

    first = run(paths, precision="fp32")
    assert first.heatmaps.shape == (3, 10, 10)
    assert len(made) == 3
    again = run(paths[::-1], precision="fp32")
    assert len(made) == 3
    assert torch.equal(again.heatmaps, first.heatmaps.flip(0))
    assert torch.equal(again.classes, first.classes.flip(0))
    sorted(p for p in (tmp_path / "cache").rglob("*.pt"))[0].unlink()
    assert torch.equal(run(paths, precision="fp32").heatmaps, first.heatmaps)
    assert len(made) == 4
    for change in ({"method": Method("kernel-shap", 20, 5, seed=1)}, {"method": Method("kernel-shap", 20, 5, "drop")}):
        other = run(paths[:1], precision="fp32", **change)
        assert not torch.equal(other.heatmaps[0], first.heatmaps[0])
    rough = run(paths[:1], precision="bf16")
    assert devices.device_of("auto").type != "cpu" or not torch.equal(rough.heatmaps[0], first.heatmaps[0])
    assert np.corrcoef(rough.heatmaps[0].flatten(), first.heatmaps[0].flatten())[0, 1] > 0.95
    with torch.inference_mode():
        image = torch.from_numpy(card.preprocessing.array(draw("red disc", 0, size=200)))[None]
        outputs = model(normalise(image, card.preprocessing.mean, card.preprocessing.std))
    assert first.classes[0] == outputs.logits.argmax()


def test_cached_heatmaps_leave_the_model_as_it_is(
    random_model: Callable[..., Any], unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    save_model(tmp_path / "model.safetensors", model, card)
    draw("red disc", 0, size=200).save(tmp_path / "0.png")
    loaded = load_model(tmp_path / "model.safetensors")
    training = dataclasses.replace(loaded, network=loaded.network.train().requires_grad_(True))
    for kind in ("grad-cam", "rollout", "kernel-shap:20@5"):
        with unchanged(training.network):
            baselines.cached_heatmaps(training, [tmp_path / "0.png"], Method.parse(kind), tmp_path / "cache")
