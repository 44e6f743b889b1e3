"""Recognises the state dicts of other libraries and renames their tensors for a backbone.

Every tensor of a file is accounted for: it belongs to the image tower, to the class head, to the text tower, or is a
named leftover of its library. Whatever remains is passed on under its own name, so that strict matching reports it as
extra. Reading files is `edgex.importers.weights`; making models of them is `edgex.importers.assembly`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from edgex.errors import MismatchError
from edgex.importers import transformers_vit
from edgex.importers.values import check_weights
from edgex.models.backbones import Architecture

Library = Literal["timm", "open_clip", "transformers"]

# Buffers and scalars that a library saves beside its weights and that carry nothing an image tower needs.
_LEFTOVERS = re.compile(
    r"(attn_mask"  # open_clip's and OpenAI's causal mask
    r"|((vision|text)_model\.)?embeddings\.position_ids)"  # transformers' index buffers, 0, 1, 2, ...
)
_OPEN_CLIP_TEXT = re.compile(
    r"(logit_scale|logit_bias)$"
    r"|(text\.|transformer\.|token_embedding\.weight|positional_embedding|ln_final\.|text_projection)"
)
_TIMM_HEAD = ("head.weight", "head.bias")

# A tensor that every image tower of a library has, under its usual name first.
_MARKS: dict[Library, tuple[str, ...]] = {
    "timm": ("patch_embed.proj.weight",),
    "open_clip": ("visual.conv1.weight", "class_embedding"),  # ResNets, too, have a conv1
    "transformers": (
        "vision_model.embeddings.patch_embedding.weight",
        "embeddings.patch_embedding.weight",
        transformers_vit.MARK,
    ),
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

    timm names go to timm architectures, open_clip names to open_clip ones, transformers' CLIP names to either: to
    open_clip with their projection, to timm without it; its ViTForImageClassification to timm. Raises MismatchError
    where the names are of another library than the architecture, or of none.
    """
    tensors = {
        name: tensor for name, tensor in tensors.items() if not _LEFTOVERS.fullmatch(name) and not _is_count(tensor)
    }
    check_weights(tensors, source)
    library = _recognise(tensors, architecture, source)
    if library == "timm":
        return _sort_timm(tensors, source)
    if library == "open_clip":
        return _sort_open_clip(tensors)
    return _sort_transformers(tensors, architecture, source)


def _is_count(tensor: Tensor) -> bool:
    """Whether a tensor is a single integer: steps done, models averaged, a width; no weight is."""
    return tensor.numel() == 1 and not tensor.is_floating_point()


def _recognise(tensors: Mapping[str, Tensor], architecture: Architecture, source: str) -> Library:
    found = [library for library, names in _MARKS.items() if any(name in tensors for name in names)]
    wanted: tuple[Library, ...] = (
        ("timm", "transformers") if architecture.family == "timm" else ("open_clip", "transformers")
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


def _sort_timm(tensors: Mapping[str, Tensor], source: str) -> StateDict:
    if any(name.startswith("head_dist.") for name in tensors):
        raise MismatchError(
            f"{source}: a distilled DeiT, whose second class head ('head_dist.weight') edgex does not support: "
            "import a model that was trained without a distillation token"
        )
    head = {name.removeprefix("head."): tensors[name] for name in _TIMM_HEAD if name in tensors}
    image = {name: tensor for name, tensor in tensors.items() if name not in _TIMM_HEAD}
    return StateDict("timm", image, head, {})


def _sort_open_clip(tensors: Mapping[str, Tensor]) -> StateDict:
    if "visual.conv1.weight" not in tensors:
        # The image tower alone, saved without the name of its place in CLIP.
        return StateDict("open_clip", dict(tensors), {}, {})
    image: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _OPEN_CLIP_TEXT.match(name):
            text[name.removeprefix("text.")] = tensor
        else:
            image[name.removeprefix("visual.")] = tensor
    return StateDict("open_clip", image, {}, text)


def _sort_transformers(tensors: Mapping[str, Tensor], architecture: Architecture, source: str) -> StateDict:
    if transformers_vit.MARK in tensors:
        return dataclasses.replace(_sort_timm(transformers_vit.timm_tensors(tensors), source), library="transformers")
    # A bare CLIPVisionModel may be saved with or without the prefix of its only part.
    if not any(name.startswith("vision_model.") for name in tensors):
        tensors = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    parts: dict[str, dict[str, Tensor]] = {"vision_model.": {}, "text_model.": {}, "": {}}
    for name, tensor in tensors.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = tensor
    others = parts[""]
    visual_projection = others.pop("visual_projection.weight", None)
    text_projection = others.pop("text_projection.weight", None)
    logit_scale = others.pop("logit_scale", None)

    if architecture.family == "timm":
        image = _renamed(parts["vision_model."], _timm_name, pack="qkv.{}")
        for name in ("cls_token", "pos_embed"):
            if name in image:
                image[name] = image[name].reshape(1, -1, image[name].shape[-1])
    else:
        image = _renamed(parts["vision_model."], _open_clip_vision_name, pack="in_proj_{}")
        if visual_projection is None:
            raise MismatchError(
                f"{source}: missing tensor 'visual_projection.weight' that {architecture.name} needs: "
                "weights without projection go to timm's vit_base_patch32_clip_quickgelu_224 or the like"
            )
        image["proj"] = visual_projection.T.contiguous()
    text: dict[str, Tensor] = {}
    if parts["text_model."]:
        text = _renamed(parts["text_model."], _open_clip_text_name, pack="in_proj_{}")
        if text_projection is not None:
            text["text_projection"] = text_projection.T.contiguous()
    if logit_scale is not None:
        text["logit_scale"] = logit_scale
    return StateDict("transformers", image | others, {}, text)


def _renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str], *, pack: str) -> dict[str, Tensor]:
    """Renames transformers' CLIP tensors; packs query, key and value projections, in that order, into one."""
    result: dict[str, Tensor] = {}
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(encoder\.layers\.\d+\.self_attn\.)([qkv])_proj\.(weight|bias)", name)
        if match:
            packed = rename(match[1] + pack.format(match[3]))
            waiting.setdefault(packed, {})[match[2]] = tensor
        else:
            result[rename(name)] = tensor
    for packed, parts in waiting.items():
        # An incomplete triple stays incomplete and is then reported as misshapen.
        result[packed] = torch.cat([parts[part] for part in "qkv" if part in parts])
    return result


def _replaced(name: str, replacements: Iterable[tuple[str, str]]) -> str:
    for old, new in replacements:
        name = re.sub(old, new, name)
    return name


def _timm_name(name: str) -> str:
    return _replaced(
        name,
        (
            (r"^embeddings\.class_embedding$", "cls_token"),
            (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
            (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
            (r"^pre_layrnorm\.", "norm_pre."),
            (r"^post_layernorm\.", "norm."),
            (r"^encoder\.layers\.", "blocks."),
            (r"\.layer_norm([12])\.", r".norm\1."),
            (r"\.self_attn\.out_proj\.", ".attn.proj."),
            (r"\.self_attn\.", ".attn."),
        ),
    )


_OPEN_CLIP_BLOCKS = (
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.", ".attn."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def _open_clip_vision_name(name: str) -> str:
    return _replaced(
        name,
        (
            (r"^embeddings\.class_embedding$", "class_embedding"),
            (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
            (r"^embeddings\.patch_embedding\.", "conv1."),
            (r"^pre_layrnorm\.", "ln_pre."),
            (r"^post_layernorm\.", "ln_post."),
            *_OPEN_CLIP_BLOCKS,
        ),
    )


def _open_clip_text_name(name: str) -> str:
    return _replaced(
        name,
        (
            (r"^embeddings\.token_embedding\.", "token_embedding."),
            (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
            (r"^final_layer_norm\.", "ln_final."),
            *_OPEN_CLIP_BLOCKS,
        ),
    )
