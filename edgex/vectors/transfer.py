"""What was measured of a vector on targets: records, their place in a vector's header, warnings made of them.

Reading records and making warnings of them needs no torch. Measuring is in `edgex.evaluation`; adding a vector
to a target is `edgex.vectors.bake`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgex.runtime import schema
from edgex.utils.statistics import Estimate

if TYPE_CHECKING:
    from edgex.files.model_file import ModelCard

METRIC = "transfer"
LARGEST_DROP = 1.0
"""Points of accuracy whose loss makes a transfer a failure."""


@dataclasses.dataclass(frozen=True)
class TransferRecord:
    """One vector measured on one target.

    target: the target's name. gain: mean paired gain in insertion minus deletion over n pictures, with its
    standard_error. accuracy_change: in percentage points. alpha: the factor it was measured with. similarity: how
    alike the target is to the vector's source, in [-1, 1], where that was measured.
    """

    target: str
    gain: float
    standard_error: float
    n: int
    accuracy_change: float
    alpha: float
    similarity: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """The gain's 95% confidence interval by Student's t; not a number for a single picture."""
        return Estimate(self.gain, self.standard_error, self.n).interval

    @property
    def failure(self) -> str | None:
        """What failed, in words; None where the heatmaps did not get significantly worse (95% interval) and accuracy
        was kept."""
        failed = []
        if self.interval[1] < 0:
            failed.append(f"heatmaps got worse (gain {self.gain:+.4f} ± {self.standard_error:.4f}, n = {self.n})")
        if self.accuracy_change < -LARGEST_DROP:
            failed.append(f"accuracy changed by {self.accuracy_change:+.2f} points")
        return " and ".join(failed) or None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; similarity only where it was measured."""
        values = dataclasses.asdict(self)
        return values if self.similarity is not None else {k: v for k, v in values.items() if k != "similarity"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TransferRecord:
        """Inverse of `to_dict`; ArtefactError names a value that is missing or no finite number."""
        return schema.checked(_RECORD, data, "transfer record", advice=_AGAIN)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.target}: gain {self.gain:+.4f} [{low:+.4f}, {high:+.4f}], n {self.n}, accuracy "
            f"{self.accuracy_change:+.2f} points, alpha {self.alpha:g}{' - FAILED' if self.failure else ''}"
        )


_AGAIN = "measure the transfer again"
_RECORD = schema.record(
    TransferRecord,
    target=schema.text,
    gain=schema.number,
    standard_error=schema.number,
    n=schema.whole(1),
    accuracy_change=schema.number,
    alpha=schema.number,
    similarity=schema.Default(schema.optional(schema.number), None),
)


def records_of(metrics: Mapping[str, Any]) -> tuple[TransferRecord, ...]:
    """The records among a vector's metrics; () where nothing was measured."""
    return schema.checked(schema.listed(_RECORD), metrics.get(METRIC, []), "transfer records", advice=_AGAIN)


def warnings_for(records: Iterable[TransferRecord], target: ModelCard) -> list[str]:
    """One line for each failed record whose target is this one by name.

    A target is known by its own name and by the data folders that its provenance says it was trained on; letter
    case does not count. Similarity of weights or pictures plays no part.
    """
    known = {_plain(name) for name in _names(target)}
    return [
        f"the vector was measured to fail on '{record.target}': {record.failure} at alpha {record.alpha:g}; "
        "compare it with the unbaked model before using it (`edgex eval`)"
        for record in records
        if record.failure and _plain(record.target) in known
    ]


def write_records(path: Path, records: Sequence[TransferRecord]) -> str:
    """Puts these records into a vector file in place of earlier ones; returns the new sha256.

    Only the header changes: every tensor is copied byte for byte, and the file is replaced as a whole or not at
    all. Raises ArtefactError for a damaged file and for one that is no vector.
    """
    from edgex.files import tensor_file
    from edgex.files.tensor_file import TensorFile
    from edgex.files.vector_file import VectorCard

    with TensorFile(path) as file:
        card = VectorCard.from_metadata(file.metadata, path)
        metrics = {**card.metrics, METRIC: [record.to_dict() for record in records]}
        specs = {name: (spec.dtype, spec.shape) for name, spec in file.tensors.items()}
        file.verify()
        metadata = dataclasses.replace(card, metrics=metrics).to_metadata()
        return tensor_file.write(path, metadata, specs, (file.read_bytes(name) for name in file.tensors))


def _names(target: ModelCard) -> Iterable[str]:
    yield target.name
    for step in target.provenance:
        data = step.get("data")
        if isinstance(data, Mapping) and isinstance(data.get("name"), str):
            yield data["name"]


def _plain(name: str) -> str:
    return name.strip().casefold()
