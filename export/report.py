"""What an export did, for the command line's summary and for tests."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgex.export.gate import GateResult, Precision

Progress = Callable[[str], None]
"""Called with the name of each stage as it begins."""


@dataclasses.dataclass(frozen=True)
class QuantizationImpact:
    """What int8 in one product alone does to the outputs.

    product: name of its weights. logits, heatmap: root mean square error, as shares of the logits' range and of the
    heatmap's spread. operations: multiplications per picture that int8 makes cheaper. kept_float: whether the product
    stayed in float.
    """

    product: str
    logits: float
    heatmap: float
    operations: int
    kept_float: bool = False


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The summary of one export.

    kind: "onnx" or "tensorrt". size: bytes on disk. sha256: the file's own digest. nodes: operator type ->
    count, most frequent first. weights: data type -> share of the weights' elements. gate: None where the file
    could not be run here, and then `notes` says why. latency_ms: one picture in the gate's runtime here, or None.
    impacts: what int8 does in each matrix product. seconds: stage -> duration. notes: lines that the user should
    read.
    """

    path: Path
    kind: str
    precision: Precision
    size: int
    sha256: str
    nodes: dict[str, int]
    weights: dict[str, float]
    gate: GateResult | None
    latency_ms: float | None
    seconds: dict[str, float]
    impacts: tuple[QuantizationImpact, ...] = ()
    notes: tuple[str, ...] = ()


class Stages:
    """Times the stages of an export and announces each."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times the body under `name`."""
        if self._progress is not None:
            self._progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
