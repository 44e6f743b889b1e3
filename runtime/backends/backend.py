"""What every backend looks like: the class that runs one opened file, its options, and the names of the contract.

A backend is a module of this folder with a class of `Backend`'s shape, made from a `FusedFile` and `BackendOptions`.
`edgex.runtime.backends.open_backend` chooses among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgex.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from edgex.runtime.metadata import Metadata

INPUTS = ("image", "explain_class")
OUTPUTS = ("logits", "heatmap", "base")


@dataclass(frozen=True)
class FusedFile:
    """A fused model file whose metadata were read and checked."""

    path: Path
    metadata: Metadata
    plan: bytes | None = None
    """The serialised engine of a TensorRT file; None for an ONNX file, which onnxruntime reads from `path`."""


@dataclass(frozen=True)
class BackendOptions:
    """How a file is run, see `Session`. A backend refuses an option that it cannot honour with a UsageError."""

    provider: str = "auto"
    threads: int | None = None
    provider_options: Mapping[str, Any] | None = None
    io_binding: bool | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"expected at least 1 thread, found {self.threads!r}", argument="threads")


class Backend(Protocol):
    """What runs a fused model; `run` may be called from several threads at once."""

    provider: str
    """The name of what runs it, such as "cpu", "cuda" or "tensorrt"."""
    shares_classes: bool
    """Whether one picture may come with several classes: image [1, ...], explain_class [M]."""

    @property
    def captured(self) -> bool:
        """Whether passes are replayed as CUDA graphs."""

    def run(self, image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """image uint8 [N, H, W, 3] and explain_class int64 [M] -> logits, heatmap and base.

        float32 [N, C], [M, rows, columns] and [M]; M is N unless `shares_classes`.
        """

    def close(self) -> None:
        """Releases the model; `run` raises UsageError from then on."""


def output_shapes(metadata: Metadata) -> dict[str, tuple[int, ...]]:
    """Name of an output -> its shape without the batch dimension, in the order of `OUTPUTS`."""
    return {"logits": (len(metadata.classes),), "heatmap": metadata.grid, "base": ()}
