"""Recognises the state dicts of other libraries and renames their tensors for a backbone.

Every tensor of a file is accounted for: it belongs to the image tower, to the class head, to the text tower, or is a
named leftover of its library. Whatever remains is passed on under its own name, so that strict matching reports it as
extra. Reading files is `edgex.importers.weights`; making models of them is `edgex.importers.assembly`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from edgex.errors import MismatchError
from edgex.importers import torchvision_vit
from edgex.importers.transformers import registry, zero_shot_clip
from edgex.importers.values import check_weights
from edgex.models.backbones import Architecture

Library = Literal["timm", "open_clip", "transformers", "torchvision"]

# Buffers and scalars that a library saves beside its weights and that carry nothing an image tower needs.
_LEFTOVERS = re.compile(
    r"(attn_mask"  # open_clip's and OpenAI's causal mask
    r"|((vision|text)_model\.)?embeddings\.position_ids)"  # transformers' index buffers, 0, 1, 2, ...
)
_OPEN_CLIP_TEXT = re.compile(
    r"(logit_scale|logit_bias)$"
    r"|(text\.|transformer\.|token_embedding\.weight|positional_embedding|ln_final\.|text_projection)"
)
_OPEN_CLIP_UNREAD = "text_decoder."
"""CoCa's writer of captions."""
_TRUNKS = ("visual.trunk.", "trunk.")
"""What open_clip puts before the names of a model of timm."""
_TIMM_HEAD = ("head.weight", "head.bias")

# A tensor that every image tower of a library has, under its usual name first.
_MARKS: dict[Library, tuple[str, ...]] = {
    "timm": ("patch_embed.proj.weight",),
    "open_clip": (
        *("visual.conv1.weight", "class_embedding"),  # ResNets, too, have a conv1
        *(f"{prefix}patch_embed.proj.weight" for prefix in _TRUNKS),
    ),
    "transformers": tuple(
        f"{base}{mark}"
        for family in registry.families().values()
        for base in ("", *family.names.bases)
        for mark in family.names.marks
    ),
    "torchvision": torchvision_vit.NAMES.marks,
}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """The tensors of one file, sorted by what they are for.

    library: where the names came from.
    image: the image tower under the names of the architecture's library.
    head: "weight" [C, D] and "bias" [C] of a linear classifier, or empty.
    text: the text tower under open_clip's names, with "logit_scale", or empty.
    """

    library: Library
    image: dict[str, Tensor]
    head: dict[str, Tensor]
    text: dict[str, Tensor]


def sort_tensors(tensors: Mapping[str, Tensor], architecture: Architecture, *, source: str) -> StateDict:
    """Recognises a state dict and renames its tensors for an architecture.

    timm names go to timm architectures, open_clip names to open_clip ones, torchvision's and transformers' to timm;
    transformers' CLIP names with their projection to open_clip as well. Raises MismatchError where the names are of
    another library than the architecture, or of none.
    """
    tensors = {
        name: tensor for name, tensor in tensors.items() if not _LEFTOVERS.fullmatch(name) and not _is_count(tensor)
    }
    check_weights(tensors, source)
    if architecture.family == "timm":
        tensors = _without_clip(tensors)
    library = _recognise(tensors, architecture, source)
    if library == "timm":
        return _sort_timm(tensors)
    if library == "open_clip":
        return _sort_open_clip(tensors)
    if library == "torchvision":
        renamed = torchvision_vit.NAMES.renamed(tensors, architecture)
        return dataclasses.replace(_sort_timm(renamed), library=library)
    return _sort_transformers(tensors, architecture, source)


def _is_count(tensor: Tensor) -> bool:
    """Whether a tensor is a single integer: steps done, models averaged, a width; no weight is."""
    return tensor.numel() == 1 and not tensor.is_floating_point()


def _recognise(tensors: Mapping[str, Tensor], architecture: Architecture, source: str) -> Library:
    found = [library for library, names in _MARKS.items() if any(name in tensors for name in names)]
    wanted: tuple[Library, ...] = (
        ("timm", "transformers", "torchvision") if architecture.family == "timm" else ("open_clip", "transformers")
    )
    for library in found:
        if library in wanted:
            return library
    named = f"tensors of {found[0]}" if found else f"tensors like '{next(iter(tensors), 'none at all')}'"
    marked = " or ".join(f"{library} ('{_MARKS[library][0]}', ...)" for library in wanted)
    raise MismatchError(
        f"{source}: expected the weights of {marked} for {architecture.name}, found {named}: "
        "check the file and the architecture"
    )


def _sort_timm(tensors: Mapping[str, Tensor]) -> StateDict:
    tensors = _one_head(tensors)
    head = {name.removeprefix("head."): tensors[name] for name in _TIMM_HEAD if name in tensors}
    image = {name: tensor for name, tensor in tensors.items() if name not in _TIMM_HEAD}
    return StateDict("timm", image, head, {})


def _one_head(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A distilled model's heads of class token and distillation token as one of both tokens side by side.

    Its logits are the mean of the two heads': half the weights of each. Heads of different shapes are left as they are.
    """
    pairs = [(name, name.replace("head.", "head_dist.")) for name in _TIMM_HEAD]
    if not all(other in tensors and name in tensors for name, other in pairs):
        return tensors
    (weight, bias) = ((tensors[name], tensors[other]) for name, other in pairs)
    if weight[0].shape != weight[1].shape or bias[0].shape != bias[1].shape:
        return tensors
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith("head_dist.")}
    return others | {"head.weight": torch.cat(weight, dim=1) / 2, "head.bias": (bias[0] + bias[1]) / 2}


def _without_clip(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """timm's own part of a CLIP model whose image tower is one of timm's."""
    for prefix in _TRUNKS:
        if f"{prefix}patch_embed.proj.weight" in tensors:
            return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
    return tensors


def _sort_open_clip(tensors: Mapping[str, Tensor]) -> StateDict:
    if not any(name.startswith("visual.") for name in tensors):
        # The image tower alone, saved without the name of its place in CLIP.
        return StateDict("open_clip", dict(tensors), {}, {})
    image: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPEN_CLIP_UNREAD):
            continue
        if _OPEN_CLIP_TEXT.match(name):
            text[name.removeprefix("text.")] = tensor
        else:
            image[name.removeprefix("visual.")] = tensor
    return StateDict("open_clip", image, {}, text)


def _sort_transformers(tensors: Mapping[str, Tensor], architecture: Architecture, source: str) -> StateDict:
    if architecture.family == "open_clip":
        image, text = zero_shot_clip.open_clip_tensors(tensors, architecture, source=source)
        return StateDict("transformers", image, {}, text)
    family = registry.find(tensors)
    assert family is not None, "recognised by its tensors"
    renamed = family.names.renamed(tensors, architecture)
    return dataclasses.replace(_sort_timm(renamed), library="transformers")
