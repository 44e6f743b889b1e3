"""Finds the family of transformers' models that a config.json or a state dict is of.

A family is a module of this package with a tuple `FAMILIES`; a new file in this folder is enough.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from edgex.errors import UnsupportedError
from edgex.importers.transformers.family import Family
from edgex.models.backbones import Pooling
from edgex.models.backbones.options import checked_options
from edgex.models.discovery import modules_of
from edgex.runtime import schema
from edgex.runtime.printable import printable

ZERO_SHOT = ("CLIPModel", "CLIPVisionModelWithProjection")
"""Classes of CLIP with the projection that a text tower's embeddings are compared with: open_clip's models."""
_REASONS: dict[str, str] = {
    "Siglip2": "takes pictures of any shape as lists of patches (NaFlex); a SigLIP 2 model of a fixed size is a "
    "SiglipForImageClassification",
    "ViTMAE": "is a masked autoencoder in pre-training, without a classifier: fine-tune it as a "
    "ViTForImageClassification",
    **dict.fromkeys(
        (
            "Swin",
            "ConvNext",
            "ResNet",
            "Hiera",
            "MobileViT",
            "EfficientNet",
            "RegNet",
            "PoolFormer",
            "Pvt",
            "Segformer",
        ),
        "has stages of several resolutions and no tokens of one grid that go through all blocks",
    ),
}
"""The beginnings of classes' names -> why they are refused."""


@dataclasses.dataclass(frozen=True)
class Described:
    """What a config.json says of a model.

    arch, options, image_size and pooling as in `edgex.models.backbones.Architecture`; resizes: whether the model takes
    pictures of other sizes as well.
    """

    arch: str
    options: dict[str, Any]
    image_size: tuple[int, int]
    pooling: Pooling
    resizes: bool


@functools.cache
def families() -> dict[str, Family]:
    """The families by the classes that config.json names."""
    assert __package__ is not None
    return {
        name: family
        for module in modules_of(__package__)
        for family in getattr(module, "FAMILIES", ())
        for name in family.classes
    }


def describe(name: str, content: Mapping[str, Any], file: str) -> Described | None:
    """The architecture that a config.json describes, None for the classes of `ZERO_SHOT`.

    name: of the class. file: names the configuration in errors.
    Raises UnsupportedError for a class or a configuration that cannot be built, ArtefactError for a value of another
    type than transformers writes.
    """
    if name in ZERO_SHOT:
        return None
    family = families().get(name)
    if family is None:
        raise UnsupportedError(f"{file}: {_refusal(name)}")
    values, pooling = family.values(content, file), family.classes[name]
    try:
        arch, options = family.nearest(values, pooling)
    except UnsupportedError as error:
        raise UnsupportedError(f"{file}: {name}: {error}") from None
    options = schema.checked(checked_options, options, file)
    return Described(arch, options, values["image_size"], pooling, family.resizes_positions)


def class_of(content: Mapping[str, Any]) -> str | None:
    """The class that a config.json names; None where it names none."""
    named = content.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    return name if isinstance(name, str) else None


def find(tensors: Mapping[str, Tensor]) -> Family | None:
    """The family whose image tower tensors are of, None where they are of none."""
    return next((family for family in families().values() if family.names.fit(tensors)), None)


def _refusal(name: str) -> str:
    known = [*families(), *ZERO_SHOT]
    classifiers = [one for one in known if "ForImageClassification" in one]
    start = next((start for start in _REASONS if name.startswith(start)), None)
    reason = _REASONS[start] if start else f"is not supported: expected {', '.join(classifiers)}"
    near = difflib.get_close_matches(name, classifiers, 1, cutoff=0)[0]
    named = start is not None and any(one in reason.split() for one in classifiers)
    return f"{printable(name[:80])} (transformers) {reason}" + ("" if named else f"; nearest: {near}")
