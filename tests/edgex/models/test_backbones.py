"""Adapters against the libraries' own modules: tokens, blocks, pooling, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones import Architecture, Backbone, architecture, build

pytestmark = pytest.mark.usefixtures("tiny_clips")


MODELS = [
    ("timm/test_vit", None),
    ("timm/test_vit3", None),  # attention pooling
    ("timm/deit_tiny_distilled_patch16_224", 64),  # class and distillation token
    ("timm/test_vit2", None),  # average pooling, layer scale, a register token and no class token
    ("timm/deit3_small_patch16_224", 64),  # layer scale, class token without a position
    ("timm/vit_small_patch14_reg4_dinov2", 56),  # class token and four registers
    ("timm/vit_xsmall_patch16_clip_224", 64),  # a norm before the first block
    ("open_clip/tiny-token", None),
    ("open_clip/tiny-quickgelu", None),
    ("open_clip/tiny-layerscale", None),
    ("open_clip/tiny-avg", None),
    ("open_clip/tiny-coca", None),
    ("open_clip/tiny-map", None),
    ("open_clip/tiny-avg-norm-first", None),
]


@pytest.fixture(scope="module", params=MODELS, ids=[name for name, _ in MODELS])
def backbone(request: pytest.FixtureRequest, random_model: Callable[..., Any]) -> Backbone:
    """A backbone with random weights."""
    name, size = request.param
    return random_model(name, image_size=size)[0].backbone


def images_for(backbone: Backbone, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *backbone.architecture.image_size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_embedding_equals_the_librarys(backbone: Backbone) -> None:
    module: Any = getattr(backbone.module, "trunk", backbone.module)
    images = images_for(backbone)
    if hasattr(module, "_pos_embed"):  # timm's
        expected = module.norm_pre(module._pos_embed(module.patch_embed(images)))
    else:
        expected = _open_clip_tokens(module, images)
    found = backbone.embed(images)
    assert found.shape == (2, backbone.prefix_tokens + backbone.patches, backbone.width)
    assert torch.allclose(found, expected, atol=1e-5)


def _open_clip_tokens(module: Any, images: torch.Tensor) -> torch.Tensor:
    """The input of open_clip's first block, caught on its way."""
    caught = []
    hook = module.transformer.resblocks[0].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    module(images)
    hook.remove()
    return caught[0]


def test_tensor_names_are_the_librarys(backbone: Backbone) -> None:
    import open_clip
    import timm

    arch = backbone.architecture
    if arch.family == "timm":
        own = timm.create_model(arch.model, num_classes=0, img_size=arch.image_size).state_dict()
    else:
        own = open_clip.create_model(arch.model).visual.state_dict()
    assert {n: t.shape for n, t in backbone.tensors().items()} == {n: t.shape for n, t in own.items()}


def test_grid_and_width(backbone: Backbone) -> None:
    import open_clip

    rows, columns = backbone.grid
    assert rows * columns == backbone.patches
    assert rows * backbone.patch_projection.kernel_size[0] == backbone.architecture.image_size[0]
    if backbone.architecture.family == "open_clip":
        expected = open_clip.get_model_config(backbone.architecture.model)["embed_dim"]
    else:
        expected = backbone.width * len(backbone.pooling.split("+"))
    assert backbone.output_width == expected
    assert backbone.preprocessing.image_size == backbone.architecture.image_size


def test_a_copy_is_a_backbone_of_its_own(backbone: Backbone) -> None:
    backbone = copy.deepcopy(backbone).requires_grad_(True).train()
    next(backbone.parameters()).requires_grad_(False)
    copied = copy.deepcopy(backbone)
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in backbone.parameters()]
    assert copied.training
    assert all(part.training for part in copied.modules())
    images = images_for(backbone)
    copied.eval(), backbone.eval()
    with torch.no_grad():
        before = backbone.module(images)
        assert torch.equal(copied.module(images), before)
        for tensor in copied.tensors().values():
            tensor.zero_()
        # Every part that the copy shows belongs to the copy: its blocks write nothing any more.
        assert copied.embed(images).abs().max() == 0
        for block in copied.blocks:
            weight, _ = block.packed_projection()
            assert weight.abs().max() == 0
            assert block.project.weight.abs().max() == 0
            assert block.feed_forward(torch.ones(1, 1, copied.width)).abs().max() == 0
        assert torch.equal(backbone.module(images), before)


def test_conversion_reaches_every_part(backbone: Backbone) -> None:
    converted = copy.deepcopy(backbone).double()
    assert converted.embed(images_for(backbone).double()).dtype == torch.float64
    for block in converted.blocks:
        assert block.packed_projection()[0].dtype == torch.float64
    projection = converted.projection
    assert projection is None or projection.dtype == torch.float64


@pytest.mark.parametrize("name", ["timm/test_vit", "open_clip/tiny-token"])
def test_build_holds_no_weights(name: str) -> None:
    assert all(tensor.is_meta for tensor in build(architecture(name)).tensors().values())


def test_architecture_defaults_come_from_the_library() -> None:
    assert architecture("timm/deit_tiny_patch16_224") == Architecture("timm/deit_tiny_patch16_224", (224, 224), "token")
    assert architecture("open_clip/ViT-L-14-CLIPA-336").image_size == (336, 336)
    assert architecture("open_clip/ViT-L-14-CLIPA-336").pooling == "avg"
    assert architecture("timm/test_vit", image_size=96, pooling="avg") == Architecture("timm/test_vit", (96, 96), "avg")
    arch = architecture("timm/test_vit")
    assert Architecture.from_dict(arch.to_dict()) == arch
    assert (arch.family, arch.model) == ("timm", "test_vit")
    assert str(arch) == "timm/test_vit (160x160 px, token pooling)"


def test_preprocessing_is_the_librarys() -> None:
    deit = build(architecture("timm/deit_tiny_patch16_224")).preprocessing
    assert (deit.resize, deit.interpolation, deit.mean) == (248, "bicubic", (0.485, 0.456, 0.406))
    clip = build(architecture("open_clip/ViT-B-32")).preprocessing
    assert (clip.resize, clip.interpolation) == (224, "bicubic")
    assert clip.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    siglip = build(architecture("open_clip/ViT-B-16-SigLIP")).preprocessing
    assert (siglip.fit, siglip.resize, siglip.mean, siglip.std) == ("squash", (224, 224), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/test_vit4", "ends in RmsNorm: edgex linearises a final LayerNorm"),
        (
            "timm/swin_tiny_patch4_window7_224",
            "is a SwinTransformer: expected timm's VisionTransformer, .* nearest: timm/vit_tiny_patch16_224",
        ),
        ("timm/vit_relpos_base_patch16_224", "is a VisionTransformerRelPos"),
        ("timm/resnet18", "is a ResNet"),
        (
            "timm/vit_pwee_patch16_reg1_gap_256",
            "has ParallelScalingBlock blocks: expected pre-norm attention",
        ),
        ("open_clip/RN50", "has a ModifiedResNet image tower: expected a VisionTransformer, as open_clip/ViT-B-32"),
        ("open_clip/convnext_base", "is a ConvNeXt: expected timm's VisionTransformer"),
        ("open_clip/MobileCLIP-B", "makes its patch tokens with a HybridEmbed"),
        ("open_clip/ViTamin-S", "makes its patch tokens with a HybridEmbed"),
    ],
)
def test_models_that_cannot_be_explained_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        build(architecture(name))
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize("image_size", [0, -1, 99999999999999999999])
def test_image_sizes_that_are_none_are_refused(image_size: int) -> None:
    with pytest.raises(UsageError, match=f"image size from 1 to 16384 pixels, found {image_size}") as caught:
        architecture("timm/test_vit", image_size=image_size)
    assert caught.value.argument == "image_size"


def test_poolings_that_cannot_be_explained_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="pools with 'max'"):
        architecture("timm/test_vit", pooling="max")
    with pytest.raises(UnsupportedError, match="test_vit2 has no token pooling"):
        build(architecture("timm/test_vit2", pooling="token"))
    with pytest.raises(UnsupportedError, match="coca_ViT-B-32 has no token pooling, but attention"):
        build(Architecture("open_clip/coca_ViT-B-32", (224, 224), "token"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/deit_tiny_patch16_22", "did you mean .*deit_tiny_patch16_224"),
        ("open_clip/ViT-B-31", "did you mean .*ViT-B-32"),
        ("keras/vit", r"expected an architecture 'open_clip/<model>' or 'timm/<model>', found 'keras/vit'"),
        ("timm/", "expected an architecture"),
        ("deit_tiny", "expected an architecture"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        architecture(name)
    with pytest.raises(UsageError, match=message):
        build(Architecture(name, (224, 224), "token"))


def test_image_sizes_between_patches_are_refused() -> None:
    with pytest.raises(
        UsageError,
        match=r"image size 100x100 is no multiple of timm/test_vit's patch size 16x16: the nearest is 96x96 or 112x112",
    ):
        build(architecture("timm/test_vit", image_size=100))
    with pytest.raises(UsageError, match="no multiple"):
        build(architecture("open_clip/tiny-token", image_size=72))


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm/test_vit", "open_clip/tiny-token"])
def test_pictures_need_not_be_square(name: str) -> None:
    backbone = build(Architecture(name, (64, 96), "token"))
    backbone.module.load_state_dict({n: torch.randn(t.shape) for n, t in backbone.tensors().items()}, assign=True)
    assert backbone.grid == (4, 6)
    assert backbone.embed(images_for(backbone)).shape == (2, 25, backbone.width)
