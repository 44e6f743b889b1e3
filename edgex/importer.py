"""Weights from other libraries become backbones and models of edgex.

Which tensor is what is decided in `edgex.state_dicts`; reading files in `edgex.weights`.
"""

from __future__ import annotations

from pathlib import Path

from edgex import checkpoint
from edgex.artefact import TensorFile
from edgex.backbones import Architecture, Backbone, build
from edgex.checkpoint import Base
from edgex.errors import MismatchError
from edgex.state_dicts import sort_tensors
from edgex.weights import read_state_dict


def load_base(architecture: Architecture, weights: Path) -> tuple[Backbone, Base]:
    """A backbone to start training from, its head dropped, and what it is called.

    weights: a state dict of timm, open_clip or transformers (see `edgex.state_dicts`), or a model artefact of
    edgex. An artefact passes on the base that it started from itself, since a vector fits all its descendants.
    Raises ArtefactError for a damaged file or NaN, MismatchError for tensors that do not fit the architecture.
    """
    if _is_artefact(weights):
        model, card = checkpoint.load_model(weights)
        if card.architecture != architecture:
            raise MismatchError(f"expected weights of {architecture}, found an edgex model of {card.architecture}")
        return model.backbone.requires_grad_(True), card.base
    backbone = build(architecture)
    source = str(weights)
    tensors = sort_tensors(read_state_dict(weights), architecture, source=source)
    checkpoint.load_backbone(backbone, tensors.image, source=source)
    return backbone, Base(weights.stem, checkpoint.fingerprint(backbone.tensors()))


def _is_artefact(weights: Path) -> bool:
    if weights.suffix != ".safetensors":
        return False
    with TensorFile(weights) as file:
        return bool(file.metadata)
