"""Backbones to start training from: other libraries' weights without their heads, and what the base is called."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgex.errors import ArtefactError, EdgexError, MismatchError
from edgex.files import model_file
from edgex.files.input_size import at_image_size
from edgex.files.model_file import BaseWeights
from edgex.files.tensor_file import TensorFile
from edgex.importers import checkpoint_files, configuration, pretrained
from edgex.importers.settings import preprocess
from edgex.importers.state_dicts import StateDict, sort_tensors
from edgex.importers.transformers import registry
from edgex.importers.weights import read_weights
from edgex.models.backbones import Architecture, Backbone, build
from edgex.models.backbones.positions import fit_positions
from edgex.runtime import schema
from edgex.runtime.json_text import read_json


def load_base(
    architecture: Architecture, weights: str | os.PathLike[str], *, resample: bool = False
) -> tuple[Backbone, BaseWeights]:
    """A backbone to start training from, its head dropped, and what it is called.

    weights: a checkpoint of timm, open_clip or transformers (see `edgex.importers.weights`), or a model artefact,
        which passes on the base that it started from itself: a vector fits all descendants of its base. The
        backbone's preprocessing is the artefact's, or as far as edgex has it the one stated beside the weights.
    resample: interpolate learned positions of another image size than the architecture's. What the base is called
        does not depend on it: a vector that was learned at one size fits models of another.

    Raises ArtefactError for a damaged file or NaN, MismatchError for tensors that do not fit.
    """
    weights = checkpoint_files.find(weights)
    if is_artefact(weights):
        model, card = model_file.load_model(weights)
        if resample and dataclasses.replace(card.architecture, image_size=architecture.image_size) == architecture:
            model, card = at_image_size(model, card, architecture.image_size)
        if card.architecture != architecture:
            raise MismatchError(f"{weights}: expected weights of {architecture}, found a model of {card.architecture}")
        model.backbone.preprocessing = card.preprocessing
        return model.backbone.requires_grad_(True), card.base
    found = read_weights(weights)
    state = sort_tensors(found.tensors, architecture, source=str(weights))
    backbone = build(architecture)
    image = fit_positions(state.image, backbone, source=str(weights)) if resample else state.image
    model_file.load_backbone(backbone, image, source=str(weights))
    check_configuration(weights, state, backbone)
    stated = configuration.beside(weights)
    backbone.preprocessing = preprocess(stated.without(*stated.refusals), {}, backbone.preprocessing)[0]
    return backbone, BaseWeights(found.name(weights), model_file.fingerprint(state.image))


def pretrained_backbone(architecture: Architecture, tag: str | None = None) -> tuple[Backbone, BaseWeights]:
    """As `load_base`, for weights that the architecture's library publishes under `tag`."""
    found = pretrained.find(architecture, tag)
    state = sort_tensors(found.tensors, architecture, source=found.name)
    backbone = build(architecture)
    model_file.load_backbone(backbone, fit_positions(state.image, backbone, source=found.name), source=found.name)
    backbone.preprocessing = preprocess(found.stated, {}, backbone.preprocessing)[0]
    return backbone, BaseWeights(found.name, model_file.fingerprint(state.image))


def is_artefact(weights: Path) -> bool:
    """Whether a file is one of edgex's own."""
    if weights.suffix != ".safetensors":
        return False
    with TensorFile(weights) as file:
        return bool(file.metadata)


def check_configuration(weights: Path, state: StateDict, backbone: Backbone) -> None:
    """Compares what tensors cannot tell with transformers' config.json, if one lies beside the weights.

    Raises MismatchError where the two disagree.
    """
    path = weights.with_name("config.json")
    if state.library != "transformers" or not path.is_file():
        return
    try:
        content = schema.checked(schema.mapping, read_json(path), str(path))
        vision = schema.checked(schema.mapping, content.get("vision_config", content), str(path))
    except ArtefactError:
        return  # some other program's file
    if _describes(content, backbone.architecture):
        return
    own = {
        "hidden_act": "quick_gelu" if _is_quick(backbone.module) else "gelu",
        "num_attention_heads": backbone.blocks[0].heads,
        "layer_norm_eps": backbone.blocks[0].norm1.eps,
    }
    for key, value in own.items():
        if key in vision and not _same(vision[key], value):
            raise MismatchError(
                f"{path} says {key} {vision[key]}, {backbone.architecture.name} has {value}: choose the "
                "architecture that the weights were trained with (quick_gelu: names with 'quickgelu')"
            )


def _describes(content: Mapping[str, Any], architecture: Architecture) -> bool:
    """Whether an architecture is the one that transformers' config.json stands for."""
    try:
        described = registry.describe(registry.class_of(content) or "", content, "")
    except EdgexError:
        return False
    return described is not None and (described.arch, described.options) == (architecture.name, architecture.options)


def _same(stated: Any, value: Any) -> bool:
    """Equal; an epsilon of 1e-12 counts as timm's 1e-6.

    On the ImageNet weights of ViT-tiny and DeiT-tiny the two move logits by 5e-5 of a range of 13 to 22, and
    probabilities by 3e-6.
    """
    numbers = isinstance(stated, float) and isinstance(value, float)
    return abs(stated - value) <= 1e-6 if numbers else bool(stated == value)


def _is_quick(module: nn.Module) -> bool:
    return any(type(part).__name__ == "QuickGELU" for part in module.modules())
