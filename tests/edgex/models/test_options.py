"""Options of an architecture: which are taken, what is refused, and that cards carry them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgex.errors import ArtefactError, UnsupportedError, UsageError
from edgex.models.backbones import Architecture, architecture, build

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8}


def test_options_change_the_named_model() -> None:
    arch = architecture("timm/vit_tiny_patch16_224", image_size=(32, 64), options=SMALL)
    backbone = build(arch)
    assert (backbone.grid, backbone.width, len(backbone.blocks)) == ((4, 8), 48, 2)
    assert backbone.blocks[0].heads == 3
    assert str(arch).endswith("(32x64 px, token pooling, depth=2, embed_dim=48, num_heads=3, patch_size=8)")


def test_options_go_through_a_card_and_tell_models_apart() -> None:
    arch = architecture("timm/vit_tiny_patch16_224", options={**SMALL, "patch_size": [8, 16], "mlp_ratio": 2})
    assert Architecture.from_dict(arch.to_dict()) == arch
    assert arch.options["patch_size"] == (8, 16)
    plain = architecture("timm/vit_tiny_patch16_224")
    assert plain != arch and "options" not in plain.to_dict()
    assert hash(plain) == hash(Architecture.from_dict(plain.to_dict()))


def test_pooling_follows_from_options() -> None:
    arch = architecture("timm/vit_tiny_patch16_224", pooling="avg", options={**SMALL, "class_token": False})
    assert build(arch).prefix_tokens == 0
    with pytest.raises(UnsupportedError, match="vit_tiny_patch16_224 has no token pooling"):
        architecture("timm/vit_tiny_patch16_224", options={"class_token": False})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dept": 3}, r"options: 'dept' is no option: did you mean 'depth'\?"),
        ({"pretrained_cfg": "x"}, "'pretrained_cfg' is no option of "),
        ({"depth": "3"}, "options: depth: expected a whole number from 1 to 256, found '3'"),
        ({"embed_dim": 10**9}, "embed_dim: expected a whole number from 1 to 16384, found 1000000000"),
        ({"mlp_ratio": 1e9}, "mlp_ratio: expected a number of at most 64"),
        ({"patch_size": [16, 0]}, r"patch_size\[1\]: expected a whole number"),
        ({"mlp_layer": "os.system"}, "mlp_layer: expected 'mlp' or 'swiglu'"),
    ],
)
def test_what_is_no_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        architecture("timm/vit_tiny_patch16_224", options=options)
    card = {"name": "timm/vit_tiny_patch16_224", "image_size": [64, 64], "pooling": "token", "options": options}
    with pytest.raises(ArtefactError, match=message):
        Architecture.from_dict(card)


def test_options_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot be built with num_heads=7: dim should be divisible"):
        architecture("timm/vit_tiny_patch16_224", options={"num_heads": 7})
    with pytest.raises(UnsupportedError, match="cannot be built with swiglu_mlp=True: .*unexpected keyword"):
        architecture("timm/vit_tiny_patch16_224", options={"swiglu_mlp": True})
    with pytest.raises(UnsupportedError, match="is built by its name alone, found depth=2"):
        architecture("open_clip/ViT-B-32", options={"depth": 2})
    with pytest.raises(UnsupportedError, match="timm/resnet18 cannot be built: .*unexpected keyword"):
        build(Architecture("timm/resnet18", (64, 64), "avg"))


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        (
            "beit_base_patch16_224",
            2048,
            {},
            "at this image size needs 24 GB for positions alone: expected at most 4 GB",
        ),
        ("eva02_tiny_patch14_224", 4096, {"patch_size": 1}, "needs 8 GB for positions alone"),
        (
            "vit_tiny_patch16_224",
            4096,
            {"patch_size": 1, "pos_embed": "none"},
            "has 16777216 patches: expected at most",
        ),
    ],
)
def test_a_few_numbers_of_a_card_cannot_take_all_memory(
    name: str, size: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((UnsupportedError, UsageError), match=message):
        build(architecture(f"timm/{name}", image_size=size, options=options))


@pytest.mark.parametrize("size", [(32,), (32, 0), (32, 64, 3)])
def test_two_sides_are_expected(size: Any) -> None:
    with pytest.raises(
        UsageError,
        match="expected an image size (from 1 to 16384 pixels|of one whole number or of .height, width.), found",
    ):
        architecture("timm/test_vit", image_size=size)


def test_models_that_differ_in_their_norms_epsilon_alone_are_alike() -> None:
    own = Architecture("timm/vit_tiny_patch16_224", (224, 224), "token", {"depth": 3})
    assert own.is_like(dataclasses.replace(own, options={"depth": 3, "norm_eps": 1e-12}))
    changes: tuple[dict[str, Any], ...] = (
        {"options": {"depth": 4}},
        {"options": {"norm_eps": 1e-6}},
        {"pooling": "avg"},
        {"name": "timm/x"},
    )
    for change in changes:
        assert not own.is_like(dataclasses.replace(own, **change))
