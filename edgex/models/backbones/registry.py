"""Builds a backbone from a name: finds the family that knows it.

A family is a module of this package with an instance of `Family` named FAMILY; a new file in this folder is enough.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Backbone, Family
from edgex.models.discovery import modules_of
from edgex.runtime.schema import MAX_SIDE

_MOST_PATCHES = 1 << 16
"""More than any model attends to: a file of a few bytes must not ask for the memory of millions of patches."""


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
        raise UsageError(_indivisible(architecture, (patch[0], patch[1])), argument="image_size")
    if backbone.patches > _MOST_PATCHES:
        raise UsageError(
            f"{architecture} has {backbone.patches} patches: expected at most {_MOST_PATCHES}", argument="image_size"
        )
    return backbone


def _indivisible(architecture: Architecture, patch: tuple[int, int]) -> str:
    """What an image size of parts of patches is refused with; sizes in the message are height x width."""
    size = architecture.image_size
    below = [max(side // step, 1) * step for side, step in zip(size, patch, strict=True)]
    above = [-(-side // step) * step for side, step in zip(size, patch, strict=True)]
    fitting = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in (below, above)))
    return (
        f"image size {size[0]}x{size[1]} is no multiple of {architecture.name}'s patch size {patch[0]}x{patch[1]}: "
        f"the nearest is {fitting} (height x width)"
    )


def architecture(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    pooling: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Architecture:
    """Completes a name with the library's own image size and pooling where they are not given.

    name: "timm/<model>" or "open_clip/<model>". image_size: pixels of both sides, or (height, width). options: what
    differs from the named model, see `edgex.models.backbones.options`.
    Raises UsageError for a name that no library knows and for an unknown option, UnsupportedError for a model, pooling
    or option that cannot be explained.
    """
    family = _family_of(name)
    size = None if image_size is None else input_size(image_size)
    given = Architecture(name, size or (1, 1), pooling or "", options or {})
    if pooling is not None:
        _check_pooling(name, pooling, family)
    own_size, own_pooling = family.describe(given.model, given.options, pooling)
    _check_pooling(name, own_pooling, family)
    return Architecture(name, size or own_size, own_pooling, given.options)


def _check_pooling(name: str, pooling: str, family: Family) -> None:
    if pooling not in family.poolings:
        known = " or ".join(f"'{one}'" for one in family.poolings)
        raise UnsupportedError(f"{name} pools with {pooling[:60]!r}: expected a pooling of {known}")


def input_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of one number for both or of a pair; UsageError for others and for sides out of range."""
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise UsageError(
            f"expected an image size of one whole number or of (height, width), found {image_size!r:.60}",
            argument="image_size",
        )
    height, width = sides
    for side in (height, width):
        if not 1 <= side <= MAX_SIDE:
            raise UsageError(f"expected an image size from 1 to {MAX_SIDE} pixels, found {side}", argument="image_size")
    return height, width


def _family_of(name: str) -> Family:
    library, _, model = name.partition("/")
    family = families().get(library)
    if family is None or not model:
        known = " or ".join(f"'{one}/<model>'" for one in families())
        raise UsageError(f"expected an architecture {known}, found '{name}'")
    return family
