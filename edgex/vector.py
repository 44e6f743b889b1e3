"""Explainability vectors: tau = weights trained with explanation supervision minus weights trained without.

Holds the artefact (`VectorCard`), making one from twin weights, and reading one. Adding it to a model is
`edgex.bake`; learning it is `edgex.learn`. Source: arXiv 2507.04380, section 3 (task arithmetic).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgex import artefact
from edgex.artefact import TensorFile
from edgex.backbones import Architecture
from edgex.checkpoint import Base, check_finite, check_kind
from edgex.errors import ArtefactError
from edgex.model import Evidence


@dataclasses.dataclass(frozen=True)
class VectorCard:
    """Everything that a vector artefact says of itself beside its deltas.

    unchanged: backbone tensors that the vector leaves alone; with the deltas' names they are exactly the
    tensors of the architecture's backbone. alpha: the recommended one. evidence: what the heatmap of a baked
    model is made of, with the scale that was learned with the vector.
    """

    name: str
    architecture: Architecture
    base: Base
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
        """Inverse of `to_metadata`; ArtefactError names what is missing."""
        check_kind(data, "vector", path)
        try:
            return cls(
                name=data["name"],
                architecture=Architecture.from_dict(data["architecture"]),
                base=Base(**data["base"]),
                source=data["source"],
                supervision=data["supervision"],
                evidence=Evidence.from_dict(data["evidence"]),
                alpha=float(data["alpha"]),
                unchanged=tuple(data["unchanged"]),
                provenance=tuple(data["provenance"]),
                metrics=data["metrics"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{path}: its vector metadata is incomplete ({error!r}): make the file again"
            ) from error


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


def save_vector(path: Path, deltas: Mapping[str, Tensor], card: VectorCard, *, dtype: torch.dtype) -> str:
    """Writes a vector artefact, deltas stored as `dtype`; returns its sha256."""
    stored = {name: delta.to(dtype) for name, delta in deltas.items()}
    for name, delta in stored.items():
        check_finite(delta, name, source=f"{path}, to be stored as {dtype}")
    return artefact.write_tensors(path, card.to_metadata(), stored)


def load_vector_card(path: Path) -> tuple[VectorCard, str]:
    """The card of a vector artefact and its recorded sha256, without reading the data."""
    with TensorFile(path) as file:
        return VectorCard.from_metadata(file.metadata, path), str(file.metadata["sha256"])


def load_vector(path: Path) -> tuple[dict[str, Tensor], VectorCard]:
    """A vector's deltas in float32, by the library's tensor names, and its card.

    Raises ArtefactError for a damaged file, or one that holds NaN.
    """
    with TensorFile(path) as file:
        card = VectorCard.from_metadata(file.metadata, path)
        file.verify()
        deltas = {name: file.read(name).float() for name in file.tensors}
    for name, delta in deltas.items():
        check_finite(delta, name, source=str(path))
    return deltas, card
