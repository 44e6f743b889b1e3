"""open_clip's image towers that are models of timm: SigLIP, EVA-CLIP, the Perception Encoder, MobileCLIP2's ViT.

open_clip puts a projection behind timm's pooling, or uses timm's own head as one. How timm lays out its modules is in
`timm`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from edgex.errors import UnsupportedError
from edgex.models.backbones import timm
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Parts
from edgex.runtime.preprocessing import Preprocessing


def pooling(vision: Mapping[str, Any], name: str) -> str:
    """The pooling of the tower that a "vision_cfg" describes; UnsupportedError where timm's model has none of ours."""
    if stated := vision.get("timm_pool", "avg"):
        return timm.OWN_NAMES.get(stated, stated)
    try:
        return timm.describe(vision["timm_model_name"], {}, None)[1]
    except UnsupportedError as error:
        raise UnsupportedError(f"{name}: {error}") from error


def check(module: Any, architecture: Architecture) -> None:
    """Fits a tower to the image size; UnsupportedError for one that cannot be explained."""
    timm.check_class(module.trunk, architecture.name)
    if hasattr(module.head, "mlp") or hasattr(module.head, "pool"):
        raise UnsupportedError(f"{architecture.name} projects with more than a linear layer, which has no exact shares")
    if getattr(module.trunk, "dynamic_img_size", False):
        raise UnsupportedError(f"{architecture.name} resizes its positions at run time, which edgex does not")
    if tuple(module.trunk.patch_embed.img_size) != architecture.image_size:
        module.trunk.set_input_size(architecture.image_size)
    timm.check(module.trunk, architecture)


def adapt(module: Any, architecture: Architecture) -> Parts:
    """The parts of the tower: those of timm's model, and the projection."""
    parts = timm.adapt(module.trunk, architecture)
    linear = module.trunk.head if isinstance(module.trunk.head, nn.Linear) else getattr(module.head, "proj", None)
    preprocessing = _preprocessing(parts.preprocessing, architecture)
    if linear is None:
        return dataclasses.replace(parts, preprocessing=preprocessing)
    return dataclasses.replace(
        parts,
        projection=lambda: linear.weight.T,
        projection_bias=lambda: linear.bias,
        output_width=linear.out_features,
        preprocessing=preprocessing,
    )


def _preprocessing(of_timm: Preprocessing, architecture: Architecture) -> Preprocessing:
    """That of the first weights that open_clip lists for the model; without any, timm's without its margin."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(architecture.model)
    stated = get_pretrained_cfg(architecture.model, tags[0]) if tags else {}
    squash = stated.get("resize_mode") == "squash"
    return dataclasses.replace(
        of_timm,
        resize=architecture.image_size if squash else min(architecture.image_size),
        fit="squash" if squash else "crop",
        interpolation=stated.get("interpolation", of_timm.interpolation),
        mean=stated.get("mean", of_timm.mean),
        std=stated.get("std", of_timm.std),
    )
