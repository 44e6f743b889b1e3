"""open_clip's CLIP VisionTransformer image towers: which can be explained, and their parts under common names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Block, Family, Parts, final_layer_norm
from edgex.models.backbones.options import shown
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.text import nearest

_POOLINGS = {"tok": "token"}
"""open_clip's names of poolings -> ours, where they differ."""


def describe(model: str, options: Mapping[str, Any], pooling: str | None) -> tuple[tuple[int, int], str]:
    """The tower's own image size (height, width), and the pooling given or its own."""
    _check_no_options(model, options)
    vision = _config(model)["vision_cfg"]
    if vision.get("attentional_pool"):
        return (0, 0), "attention"
    size = vision["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    own = vision.get("pool_type", "tok")
    return (int(height), int(width)), pooling or _POOLINGS.get(own, own)


def create(architecture: Architecture) -> nn.Module:
    """open_clip's image tower."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    _check_no_options(architecture.model, architecture.options)
    config = _config(architecture.model)
    vision = dict(config["vision_cfg"])
    if vision.get("attentional_pool"):
        raise UnsupportedError(
            f"{architecture.name} pools with attention: edgex explains class-token and average pooling"
        )
    vision["image_size"] = architecture.image_size
    vision["pool_type"] = {own: theirs for theirs, own in _POOLINGS.items()}.get(
        architecture.pooling, architecture.pooling
    )
    return _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision), quick_gelu=config.get("quick_gelu", False))


def adapt(module: Any, architecture: Architecture) -> Parts:
    """The parts of open_clip's image tower."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    def assemble(patches: Tensor) -> Tensor:
        token = module.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([token, patches], dim=1) + module.positional_embedding.to(patches.dtype)
        return module.ln_pre(tokens)

    return Parts(
        patch_projection=module.conv1,
        assemble=assemble,
        blocks=[_block(block, architecture.name) for block in module.transformer.resblocks],
        norm=final_layer_norm(module.ln_post, architecture),
        norm_after_pool=architecture.pooling == "avg" and module.final_ln_after_pool,
        projection=lambda: module.proj,
        prefix_tokens=1,
        width=module.conv1.out_channels,
        output_width=module.output_dim,
        preprocessing=Preprocessing(
            image_size=architecture.image_size,
            resize=min(architecture.image_size),
            interpolation="bicubic",
            mean=OPENAI_DATASET_MEAN,
            std=OPENAI_DATASET_STD,
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
    if "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        raise UnsupportedError(f"open_clip/{model} has no CLIP VisionTransformer image tower: edgex explains those")
    return config


FAMILY = Family("open_clip", ("token", "avg"), describe, create, adapt)
