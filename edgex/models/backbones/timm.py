"""timm's VisionTransformer models: which of them can be explained, and their parts under common names."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Block, Family, Parts, final_layer_norm
from edgex.models.backbones.options import shown
from edgex.runtime.errors import first_line
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.text import nearest


def describe(model: str, options: Mapping[str, Any], pooling: str | None) -> tuple[tuple[int, int], str]:
    """The model's own image size (height, width), and the pooling given or its own."""
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        module = _create(model, options, **({"global_pool": pooling} if pooling else {}))
    if type(module) is not VisionTransformer:
        raise UnsupportedError(
            f"timm/{model} is a {type(module).__name__}: edgex explains timm's VisionTransformer models"
        )
    size = module.patch_embed.img_size
    return (int(size[0]), int(size[1])), module.global_pool or "none"


def create(architecture: Architecture) -> nn.Module:
    """timm's module without a head."""
    from timm.models.vision_transformer import VisionTransformer

    name = architecture.name
    module = _create(
        architecture.model,
        architecture.options,
        img_size=architecture.image_size,
        global_pool=architecture.pooling,
        dynamic_img_size=False,
    )
    if type(module) is not VisionTransformer:
        raise UnsupportedError(f"{name} is a {type(module).__name__}: edgex explains VisionTransformer models")
    if module.pool_include_prefix and architecture.pooling == "avg":
        raise UnsupportedError(f"{name} averages its class token in with the patches, which has no heatmap")
    if module.dynamic_img_size:
        raise UnsupportedError(f"{name} resizes its positions at run time: build it with a fixed image size")
    return module


def arguments(architecture: Architecture) -> dict[str, Any]:
    """The arguments of `timm.create_model` that an architecture stands for, without those of its weights."""
    return {
        **_arguments(architecture.options),
        "img_size": architecture.image_size,
        "global_pool": architecture.pooling,
    }


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    from timm.layers import LayerNorm, Mlp, SwiGLU, SwiGLUPacked

    given = dict(options)
    if "norm_eps" in given:
        given["norm_layer"] = functools.partial(LayerNorm, eps=given.pop("norm_eps"))
    if "mlp_layer" in given:
        given["mlp_layer"] = {"mlp": Mlp, "swiglu": SwiGLU, "swiglu_packed": SwiGLUPacked}[given["mlp_layer"]]
    return given


def _create(model: str, options: Mapping[str, Any], **more: Any) -> Any:
    """timm's module without a head; UnsupportedError, with timm's reason, where it cannot be built in this way."""
    import timm

    if not timm.is_model(model):
        like = nearest(model, timm.list_models(["*vit*", "deit*"])) or "; timm.list_models('*vit*') names them"
        raise UsageError(f"timm has no model '{model}'{like}")
    try:
        return timm.create_model(model, num_classes=0, **_arguments(options), **more)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if "Token pooling needs" in str(error):  # timm's way of saying that there is no class token to pool
            raise UnsupportedError(f"timm/{model} has no token pooling ({error})") from error
        changed = f" with {shown(options)}" if options else ""
        raise UnsupportedError(f"timm/{model} cannot be built{changed}: {first_line(error)}") from error


def adapt(module: Any, architecture: Architecture) -> Parts:
    """The parts of timm's module."""

    def assemble(patches: Tensor) -> Tensor:
        return module.norm_pre(module._pos_embed(module.patch_embed.norm(patches)))

    norm_after_pool = not isinstance(module.fc_norm, nn.Identity)
    return Parts(
        patch_projection=module.patch_embed.proj,
        assemble=assemble,
        blocks=[_block(block, architecture.name) for block in module.blocks],
        norm=final_layer_norm(module.fc_norm if norm_after_pool else module.norm, architecture),
        norm_after_pool=norm_after_pool,
        projection=lambda: None,
        prefix_tokens=module.num_prefix_tokens,
        width=module.embed_dim,
        output_width=module.embed_dim,
        preprocessing=_preprocessing(module, architecture.image_size),
    )


def _block(source: Any, name: str) -> Block:
    from timm.models.vision_transformer import Attention
    from timm.models.vision_transformer import Block as TimmBlock

    if type(source) is not TimmBlock or type(source.attn) is not Attention:
        raise UnsupportedError(f"{name} has {type(source).__name__} blocks: expected pre-norm attention")
    attention = source.attn
    if attention.gate is not None or not isinstance(attention.norm, nn.Identity):
        raise UnsupportedError(f"{name} gates or normalises its attention output, which cannot be split")
    plain = isinstance(attention.q_norm, nn.Identity) and isinstance(attention.k_norm, nn.Identity)
    return Block(
        module=source,
        norm1=source.norm1,
        packed_projection=lambda: (attention.qkv.weight, attention.qkv.bias),
        prepare=None if plain else lambda query, key, _: (attention.q_norm(query), attention.k_norm(key)),
        project=attention.proj,
        gamma1=lambda: getattr(source.ls1, "gamma", None),
        feed_forward=lambda x: source.ls2(source.mlp(source.norm2(x))),
        heads=attention.num_heads,
        head_dim=attention.head_dim,
    )


def _preprocessing(module: nn.Module, size: tuple[int, int]) -> Preprocessing:
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    return Preprocessing(
        image_size=size,
        resize=math.floor(min(size) / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


FAMILY = Family("timm", ("token", "avg"), describe, create, adapt)
