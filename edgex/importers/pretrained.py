"""Weights that timm and open_clip know by name: fetched from the hub, loaded by the library's own rules.

Models are made of them in `edgex.importers.assembly`, backbones in `edgex.importers.base_weights`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from edgex.errors import MismatchError, UsageError
from edgex.files.hub import fetch
from edgex.importers.configuration import Stated, read_open_clip, read_timm
from edgex.importers.weights import read_state_dict
from edgex.models import backbones
from edgex.models.backbones import Architecture
from edgex.models.backbones.timm import arguments
from edgex.utils.text import nearest

_OF_THE_ARCHITECTURE = ("arch", "image_size", "pooling", "classes")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Published weights: name, tensors, file, and what their library states of their preprocessing.

    Pooling and classes are those of the architecture that the weights were loaded for; the image size is its own.
    """

    name: str
    tensors: dict[str, Tensor]
    path: Path
    stated: Stated


def find(architecture: Architecture, tag: str | None = None) -> Pretrained:
    """Gets the weights that an architecture's library publishes under `tag`.

    tag: needed for open_clip ("laion2b_s34b_b79k"); defaults to timm's own choice ("fb_in1k").
    Raises UsageError for an unknown tag, ArtefactError in one line where the hub cannot be reached.
    """
    return _timm(architecture, tag) if architecture.family == "timm" else _open_clip(architecture, tag)


def _timm(architecture: Architecture, tag: str | None) -> Pretrained:
    import timm

    model = architecture.model if tag is None else f"{architecture.model.partition('.')[0]}.{tag}"
    family = model.partition(".")[0]
    known = timm.list_pretrained(f"{family}.*")
    config = timm.get_pretrained_cfg(model) if "." not in model or model in known else None
    if config is None or not config.hf_hub_id:
        hint = f"known tags: {', '.join(name.partition('.')[2] for name in known)}" if known else "it has no weights"
        raise UsageError(f"timm publishes no weights on the hub for '{model}' ({hint}): give a weights file instead")
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    path = fetch(config.hf_hub_id, files)
    # timm itself renames old checkpoints. Positions are resampled to another image size later, see `fit_positions`.
    own = backbones.architecture(architecture.name, pooling=architecture.pooling, options=architecture.options)
    try:
        built = timm.create_model(
            model,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(path), "custom_load": False},
            **arguments(own),
        )
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise MismatchError(f"{path} does not fit {architecture} ({first}): give a weights file instead") from error
    name = f"timm/{family}.{config.tag}"
    stated = Stated()
    read_timm(name, config.to_dict(), stated)
    return Pretrained(name, dict(built.state_dict()), path, stated.without(*_OF_THE_ARCHITECTURE))


def _open_clip(architecture: Architecture, tag: str | None) -> Pretrained:
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    model = architecture.model
    known = list_pretrained_tags_by_model(model)
    config: dict[str, Any] = get_pretrained_cfg(model, tag) if tag else {}
    if not config:
        hint = nearest(tag, known) if tag else ""
        tags = hint or f"; known tags: {', '.join(known) or 'none'}"
        asked = (
            f"no pretrained weights '{tag}' for {model}" if tag else f"{model} needs the tag of its pretrained weights"
        )
        raise UsageError(f"open_clip: {asked}{tags}")
    quick = bool((open_clip.get_model_config(model) or {}).get("quick_gelu"))
    if bool(config.get("quick_gelu")) != quick:
        other = model.removesuffix("-quickgelu") if quick else f"{model}-quickgelu"
        trained = "without" if quick else "with"
        raise UsageError(f"the weights '{tag}' were trained {trained} quick GELU: use open_clip/{other}")
    repository, _, file = str(config["hf_hub"]).rpartition("/")
    path = fetch(repository, [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME])
    name = f"{architecture.name}:{tag}"
    stated = Stated()
    read_open_clip(name, {"preprocess_cfg": config}, stated)
    return Pretrained(name, read_state_dict(path), path, stated.without(*_OF_THE_ARCHITECTURE))
