"""open_clip's image towers: which can be explained, and their parts under common names.

Its own VisionTransformer is here, towers that are models of timm in `open_clip_timm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones import open_clip_timm
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Block, Family, Parts, final_layer_norm
from edgex.models.backbones.open_clip_attention_pool import attention_pool
from edgex.models.backbones.options import shown
from edgex.runtime.preprocessing import Preprocessing, enlarged
from edgex.utils.text import nearest

_OPEN_CLIP_NAMES = {"token": "tok"}
"""Our names of poolings -> open_clip's, where they differ."""


def describe(model: str, options: Mapping[str, Any], pooling: str | None) -> tuple[tuple[int, int], str]:
    """The tower's own image size (height, width), and the pooling given or its own."""
    _check_no_options(model, options)
    vision = _config(model)["vision_cfg"]
    size = vision["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    own = _pooling(vision, f"open_clip/{model}")
    return (int(height), int(width)), pooling if pooling and _is_free(vision) else own


def create(architecture: Architecture) -> nn.Module:
    """open_clip's image tower."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    _check_no_options(architecture.model, architecture.options)
    config = _config(architecture.model)
    vision = {**config["vision_cfg"], "image_size": architecture.image_size, "output_tokens": False}
    if _is_free(vision):
        vision["pool_type"] = _OPEN_CLIP_NAMES.get(architecture.pooling, architecture.pooling)
    elif architecture.pooling != (own := _pooling(vision, architecture.name)):
        raise UnsupportedError(f"{architecture.name} has no {architecture.pooling} pooling, but {own}")
    quick_gelu = config.get("quick_gelu", False)
    module = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision), quick_gelu=quick_gelu)
    if _is_timm(vision):
        open_clip_timm.check(module, architecture)
    return module


def _pooling(vision: Mapping[str, Any], name: str) -> str:
    """The pooling that a "vision_cfg" states."""
    if _is_timm(vision):
        return open_clip_timm.pooling(vision, name)
    own = "attention" if vision.get("attentional_pool") else vision.get("pool_type", "tok")
    return {theirs: name for name, theirs in _OPEN_CLIP_NAMES.items()}.get(own, own)


def _is_timm(vision: Mapping[str, Any]) -> bool:
    return "timm_model_name" in vision


def _is_free(vision: Mapping[str, Any]) -> bool:
    """Whether a tower may be built with another pooling than its own."""
    return not _is_timm(vision) and not vision.get("attentional_pool")


def adapt(module: Any, architecture: Architecture) -> Parts:
    """The parts of open_clip's image tower."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.timm_model import TimmModel

    if isinstance(module, TimmModel):
        return open_clip_timm.adapt(module, architecture)
    attends = architecture.pooling == "attention"

    def assemble(patches: Tensor) -> Tensor:
        token = module.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([token, patches], dim=1) + module.positional_embedding.to(patches.dtype)
        return module.ln_pre(tokens)

    return Parts(
        patch_projection=module.conv1,
        assemble=assemble,
        blocks=[_block(block, architecture.name) for block in module.transformer.resblocks],
        norm=final_layer_norm(module.ln_post, architecture),
        norm_after_pool=attends or (architecture.pooling == "avg" and module.final_ln_after_pool),
        projection=lambda: module.proj,
        prefix_tokens=1,
        width=module.conv1.out_channels,
        output_width=module.output_dim,
        attention_pool=attention_pool(module, architecture.name) if attends else None,
        preprocessing=Preprocessing(
            image_size=architecture.image_size,
            resize=enlarged(architecture.image_size, 1.0),
            interpolation="bicubic",
            mean=OPENAI_DATASET_MEAN,
            std=OPENAI_DATASET_STD,
            fit="crop",
        ),
    )


def _block(source: Any, name: str) -> Block:
    from open_clip.transformer import ResidualAttentionBlock

    if type(source) is not ResidualAttentionBlock:
        raise UnsupportedError(f"{name} has {type(source).__name__} blocks: expected pre-norm attention")
    attention = source.attn
    return Block(
        module=source,
        norm1=source.ln_1,
        projections=lambda: ((attention.in_proj_weight,), (attention.in_proj_bias,)),
        project=attention.out_proj,
        gamma1=lambda: getattr(source.ls_1, "gamma", None),
        feed_forward=lambda x: source.ls_2(source.mlp(source.ln_2(x))),
        heads=attention.num_heads,
        head_dim=attention.head_dim,
    )


def _check_no_options(model: str, options: Mapping[str, Any]) -> None:
    if options:
        raise UnsupportedError(
            f"open_clip/{model} is built by its name alone, found {shown(options)}: give the changed shape a name of "
            "its own with open_clip.add_model_config"
        )


def _config(model: str) -> dict[str, Any]:
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise UsageError(f"open_clip has no model '{model}'{nearest(model, open_clip.list_models())}")
    vision = config["vision_cfg"]
    if not _is_timm(vision) and not isinstance(vision.get("layers"), int):
        raise UnsupportedError(
            f"open_clip/{model} has a ModifiedResNet image tower: expected a VisionTransformer, as open_clip/ViT-B-32 "
            "has"
        )
    return config


FAMILY = Family("open_clip", ("token", "avg", "attention"), describe, create, adapt)
