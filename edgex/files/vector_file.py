"""Explainability vectors: tau = weights trained with explanation supervision minus weights trained without.

Holds the artefact (`VectorCard`), making one from twin weights, and reading one. Adding it to a model is
`edgex.vectors.bake`, learning it `edgex.training.learning`, calculating with several `edgex.vectors.arithmetic`.
Source: arXiv 2507.04380, section 3 (task arithmetic).

Deltas are stored as float32, float16 or int8. An int8 matrix has one scale per row beside it, the tensor
"<name>:scale" (float32): delta = scale * int8, off by at most half a scale, which is the row's largest magnitude / 254.
Tensors of one dimension (norms, biases), a fraction of a percent of a vector, stay float32 then.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgex.errors import ArtefactError
from edgex.files import tensor_file
from edgex.files.model_file import BASE, MAKE_AGAIN, BaseWeights, check_finite, check_kind, converted
from edgex.files.tensor_file import TensorFile
from edgex.models.backbones import Architecture
from edgex.models.backbones.architectures import ARCHITECTURE
from edgex.models.evidence.selection import EVIDENCE
from edgex.models.self_explaining import Evidence
from edgex.runtime import schema
from edgex.runtime.metadata import PROVENANCE

SCALE_SUFFIX = ":scale"
STORAGE = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.int8}
"""Names of the ways to store deltas."""


@dataclasses.dataclass(frozen=True)
class VectorCard:
    """The metadata of a vector artefact: everything in the file beside its deltas.

    unchanged: backbone tensors that the vector leaves alone; with the deltas' names they are exactly the
    tensors of the architecture's backbone. alpha: the recommended one. evidence: what the heatmap of a baked
    model is made of, with the scale that was learned with the vector.
    """

    name: str
    architecture: Architecture
    base: BaseWeights
    source: str
    supervision: str
    evidence: Evidence
    alpha: float
    unchanged: tuple[str, ...]
    provenance: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_metadata(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "kind": "vector",
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "base": dataclasses.asdict(self.base),
            "source": self.source,
            "supervision": self.supervision,
            "evidence": self.evidence.to_dict(),
            "alpha": self.alpha,
            "unchanged": list(self.unchanged),
            "provenance": list(self.provenance),
            "metrics": self.metrics,
        }

    @classmethod
    def from_metadata(cls, data: Mapping[str, Any], path: Path) -> VectorCard:
        """Inverse of `to_metadata`; ArtefactError names what is missing or unusable."""
        check_kind(data, "vector", path)
        return schema.checked(_CARD, data, str(path), advice=MAKE_AGAIN)


_CARD = schema.record(
    VectorCard,
    name=schema.text,
    architecture=ARCHITECTURE,
    base=BASE,
    source=schema.text,
    supervision=schema.text,
    evidence=EVIDENCE,
    alpha=schema.number,
    unchanged=schema.listed(schema.text),
    provenance=PROVENANCE,
    metrics=schema.mapping,
)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedVector:
    """A vector artefact in memory: its deltas in float32, by the library's tensor names, and the file's metadata.

    sha256: the digest that the file records of itself, checked against its content when it was read.
    Iterating yields deltas and card: `deltas, card = load_vector(path)`.
    """

    deltas: dict[str, Tensor]
    card: VectorCard
    path: Path
    sha256: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.deltas, self.card))


def difference(trained: Mapping[str, Tensor], twin: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """tau = trained - twin in float32, and the names of the tensors that did not change."""
    deltas: dict[str, Tensor] = {}
    unchanged: list[str] = []
    for name, tensor in trained.items():
        if torch.equal(tensor, twin[name]):
            unchanged.append(name)
        else:
            deltas[name] = tensor.float() - twin[name].float()
    return deltas, tuple(unchanged)


def save_vector(
    path: str | os.PathLike[str], deltas: Mapping[str, Tensor], card: VectorCard, *, dtype: torch.dtype
) -> str:
    """Writes a vector artefact, deltas stored as `dtype` (a value of STORAGE); returns its sha256."""
    for name, delta in deltas.items():
        check_finite(delta, name, source=str(path))
        # Half precision can overflow; int8 follows the largest magnitude.
        if dtype != torch.int8:
            converted(delta, dtype, name)
    return tensor_file.write_tensors(path, card.to_metadata(), stored_as(deltas, dtype))


def stored_as(deltas: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors that hold these deltas in a file, scales of int8 rows right behind what they scale."""
    if dtype != torch.int8:
        return {name: delta.to(dtype) for name, delta in deltas.items()}
    return {key: tensor for name, delta in deltas.items() for key, tensor in _in_8_bits(name, delta.float()).items()}


def restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `stored_as`, in float32 and up to what storing lost."""
    return {
        name: _unscaled(tensor, stored.get(name + SCALE_SUFFIX))
        for name, tensor in stored.items()
        if not name.endswith(SCALE_SUFFIX)
    }


def _in_8_bits(name: str, delta: Tensor) -> dict[str, Tensor]:
    """A row is everything at one place of the first dimension: what one output of the layer reads."""
    if delta.ndim < 2 or not delta.numel():
        return {name: delta}
    rows = delta.flatten(1)
    scale = rows.abs().amax(dim=1) / 127
    steps = torch.where(scale > 0, scale, 1.0)[:, None]
    return {name: (rows / steps).round().to(torch.int8).view(delta.shape), name + SCALE_SUFFIX: scale}


def _unscaled(stored: Tensor, scale: Tensor | None) -> Tensor:
    delta = stored.float()
    return delta if scale is None else delta.mul_(scale.float().reshape(-1, *[1] * (delta.ndim - 1)))


def delta_shapes(file: TensorFile) -> dict[str, tuple[int, ...]]:
    """Shapes of a vector file's deltas, scales left out; ArtefactError where an int8 delta and its scale disagree."""
    shapes = {name: spec.shape for name, spec in file.tensors.items() if not name.endswith(SCALE_SUFFIX)}
    for name, spec in file.tensors.items():
        owner = name.removesuffix(SCALE_SUFFIX)
        if owner != name:
            if owner not in shapes or file.tensors[owner].dtype != torch.int8:
                raise ArtefactError(
                    f"{file.path}: tensor '{name}' scales no int8 tensor '{owner}': make the file again"
                )
        elif spec.dtype == torch.int8:
            scale = file.tensors.get(name + SCALE_SUFFIX)
            if scale is None or scale.shape != spec.shape[:1]:
                found = "none" if scale is None else f"shape {list(scale.shape)}"
                raise ArtefactError(
                    f"{file.path}: expected a scale for each of the {spec.shape[0] if spec.shape else 0} rows of int8 "
                    f"tensor '{name}', found {found}: make the file again"
                )
    return shapes


def read_delta(file: TensorFile, name: str) -> Tensor:
    """One delta in float32, however it is stored; in file order, so that a reader of all need not hash again.

    Raises ArtefactError for NaN.
    """
    stored = file.read(name)
    scale = file.read(name + SCALE_SUFFIX) if stored.dtype == torch.int8 else None
    delta = _unscaled(stored, scale)
    check_finite(delta, name, source=str(file.path))
    return delta


def load_vector_card(path: str | os.PathLike[str]) -> tuple[VectorCard, str]:
    """The card of a vector artefact and its recorded sha256, without reading the data."""
    with TensorFile(path) as file:
        return VectorCard.from_metadata(file.metadata, file.path), str(file.metadata["sha256"])


def load_vector(path: str | os.PathLike[str]) -> LoadedVector:
    """Loads a vector artefact, its deltas in float32 however they are stored.

    Raises ArtefactError for a damaged file, or one that holds NaN.
    """
    with TensorFile(path) as file:
        card = VectorCard.from_metadata(file.metadata, file.path)
        delta_shapes(file)
        stored = {name: file.read(name) for name in file.tensors}
        file.verify()
    deltas = restored(stored)
    for name, delta in deltas.items():
        check_finite(delta, name, source=str(file.path))
    return LoadedVector(deltas, card, file.path, str(file.metadata["sha256"]))
