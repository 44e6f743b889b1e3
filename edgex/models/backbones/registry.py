"""Builds a backbone from a name: finds the family that knows it.

A family is a module of this package with an instance of `Family` named FAMILY; a new file in this folder is enough.
"""

from __future__ import annotations

import functools

import torch

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Backbone, Family
from edgex.models.discovery import modules_of
from edgex.runtime.schema import MAX_SIDE


@functools.cache
def families() -> dict[str, Family]:
    """The families by the first part of an architecture's name, in alphabetical order."""
    assert __package__ is not None
    found = [family for module in modules_of(__package__) if (family := getattr(module, "FAMILY", None)) is not None]
    return {family.name: family for family in found}


def build(architecture: Architecture) -> Backbone:
    """An uninitialised backbone on the meta device; its weights come with `module.load_state_dict(..., assign=True)`.

    Raises UsageError for a name that no library knows and for an image size that is no multiple of the patch size,
    UnsupportedError for a model that cannot be explained (with the reason).
    """
    family = _family_of(architecture.name)
    with torch.device("meta"):
        backbone = Backbone(architecture, family.create(architecture), family.adapt)
    patch = backbone.patch_projection.kernel_size
    if any(length % side for length, side in zip(architecture.image_size, patch, strict=True)):
        raise UsageError(
            f"image size {architecture.image_size} is no multiple of {architecture.name}'s patch size {patch}"
        )
    return backbone


def architecture(name: str, *, image_size: int | None = None, pooling: str | None = None) -> Architecture:
    """Completes a name with the library's own image size and pooling where they are not given.

    name: "timm/<model>" or "open_clip/<model>". image_size: pixels of one side, of square pictures.
    Raises UsageError for a name that no library knows, UnsupportedError for a model or pooling that cannot be
    explained.
    """
    family = _family_of(name)
    own_size, own_pooling = family.describe(name.partition("/")[2])
    if image_size is not None and not 1 <= image_size <= MAX_SIDE:
        raise UsageError(
            f"expected an image size from 1 to {MAX_SIDE} pixels, found {image_size}", argument="image_size"
        )
    chosen = pooling or own_pooling
    if chosen not in family.poolings:
        known = " or ".join(f"'{one}'" for one in family.poolings)
        raise UnsupportedError(f"{name} pools with {chosen[:60]!r}: expected a pooling of {known}")
    return Architecture(name, (image_size, image_size) if image_size else own_size, chosen)


def _family_of(name: str) -> Family:
    library, _, model = name.partition("/")
    family = families().get(library)
    if family is None or not model:
        known = " or ".join(f"'{one}/<model>'" for one in families())
        raise UsageError(f"expected an architecture {known}, found '{name}'")
    return family
