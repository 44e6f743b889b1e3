"""What a fused model says about itself: read from the file and checked before anything is run.

An ONNX file carries one metadata entry `edgex` with a JSON object; a TensorRT engine file is a 4-byte
little-endian length, the same JSON object, then the plan. `container` takes the bytes apart.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgex.runtime import schema
from edgex.runtime.activations import ACTIVATION, THRESHOLDS, check_thresholds
from edgex.runtime.calibration import CALIBRATION, Calibration, check_calibration
from edgex.runtime.container import Declared, OnnxContent, read_engine, read_onnx
from edgex.runtime.errors import ArtefactError
from edgex.runtime.json_text import parse_json
from edgex.runtime.preprocessing import PREPROCESSING, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "edgex-fused/1"
_FAMILY, _VERSION = FORMAT.split("/")


@dataclass(frozen=True)
class Metadata:
    """The contract of one fused model file."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    grid: tuple[int, int]
    """(rows, columns) of the heatmap."""
    pooling: str
    """"token" or "avg"."""
    evidence: Mapping[str, Any]
    """kind ("class-attention" or "patch-tokens"), blocks, scale, and more; see `evidence_in_words`."""
    alpha: float | None
    """Strength of the explainability vector in the model; None where none was added."""
    architecture: str
    precision: str
    """"fp32", "fp16" or "int8"."""
    max_batch: int
    edgex_version: str
    model_sha256: str
    """Of the artefact that was exported."""
    file_sha256: str
    """Of this file, see `file_digest`."""
    provenance: tuple[Mapping[str, Any], ...]
    gate: Mapping[str, Any]
    """What the export measured against the source model."""
    tensorrt: Mapping[str, Any] | None = None
    """Engines only: package, version, compute_capabilities."""
    activation: str = "softmax"
    """What turns logits into probabilities: "softmax", or "sigmoid" for a multi-label model."""
    thresholds: tuple[float, ...] | None = None
    """Multi-label models only: the probability from which each class's label is present; None for 0.5 each."""
    calibration: Calibration | None = None
    """What `edgex calibrate` learned from validation pictures."""

    @classmethod
    def from_dict(cls, values: Any, name: str = "metadata") -> Metadata:
        """Checks the JSON object of a fused model; `name` opens the error messages.

        Raises ArtefactError naming what is missing or unusable; unknown keys are ignored.
        """
        _check_format(schema.checked(schema.mapping, values, name).get("format"), name)
        return schema.checked(_METADATA, values, name, advice="export it again")


def evidence_in_words(values: Mapping[str, Any]) -> str:
    """What a heatmap is made of, of a file's `evidence`, in one line for people."""
    blocks = f" of the last {values['blocks']} blocks" if values["blocks"] else ""
    readout = " with a readout" if values.get("readout") else ""
    beside = ""
    if own := values.get("own"):
        blurred = f" blurred by {own['blur']:.3g}" if own["blur"] else ""
        beside = f" and {own['weight']:.3g} of the model's own of the last {own['blocks']}{blurred}"
    rest = ", the rest of the score in the base" if values.get("correction") == "base" else ""
    return f"{values['kind']}{blocks}{readout}{beside}, scale {values['scale']:.4g}{rest}"


def _steps(value: Any) -> tuple[dict[str, Any], ...]:
    return schema.listed(_STEP)(value)


_STEP = schema.object_with(
    step=schema.text,
    inputs=schema.Default(
        schema.listed(
            schema.object_with(
                role=schema.text,
                name=schema.text,
                sha256=schema.Default(schema.optional(schema.text), None),
                fingerprint=schema.Default(schema.optional(schema.text), None),
                provenance=schema.Default(_steps, ()),
            )
        ),
        (),
    ),
)
PROVENANCE: schema.Check[tuple[dict[str, Any], ...]] = _steps
"""The steps that made an artefact, oldest first; each with what it took, which may have steps of its own."""


def _metadata(**values: Any) -> Metadata:
    found = Metadata(**values)
    check_thresholds(found.thresholds, found.activation, len(found.classes))
    check_calibration(found.calibration, found.classes, found.thresholds)
    if found.calibration is not None and found.calibration.thresholds is None:
        # Which labels are present and what is decided of them go by the same thresholds.
        found = replace(found, calibration=replace(found.calibration, thresholds=found.thresholds))
    return found


_METADATA = schema.record(
    _metadata,
    classes=schema.listed(schema.text, least=1),
    preprocessing=PREPROCESSING,
    grid=schema.listed(schema.whole(1, schema.MAX_SIDE), least=2, most=2),
    pooling=schema.text,
    evidence=schema.object_with(
        kind=schema.text,
        blocks=schema.whole(),
        scale=schema.number,
        own=schema.Default(
            schema.optional(schema.object_with(blocks=schema.whole(1), weight=schema.number, blur=schema.number)), None
        ),
    ),
    alpha=schema.optional(schema.number),
    architecture=schema.text,
    precision=schema.text,
    max_batch=schema.whole(1),
    edgex_version=schema.text,
    model_sha256=schema.digest,
    file_sha256=schema.digest,
    provenance=PROVENANCE,
    gate=schema.mapping,
    tensorrt=schema.Default(
        schema.optional(
            schema.object_with(
                package=schema.text, version=schema.text, compute_capabilities=schema.listed(schema.text)
            )
        ),
        None,
    ),
    # Files from before there were multi-label heads mention neither.
    activation=schema.Default(ACTIVATION, "softmax"),
    thresholds=schema.Default(THRESHOLDS, None),
    calibration=schema.Default(schema.optional(CALIBRATION), None),
)


def load(path: str | os.PathLike[str], verify: bool = True) -> tuple[Metadata, bytes | None]:
    """Reads the metadata of a fused model file and checks the file against it.

    verify: also compare the file's sha256 with the recorded one.

    Returns the metadata and, for a TensorRT engine file, the plan; None for an ONNX file.
    Raises ArtefactError for a file that is missing, truncated, changed after export, without the contract's
    metadata, with weights outside of the file, or with a graph whose inputs and outputs are not what the metadata say.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path}: expected a fused model file, found {error.strerror or error}") from None
    plan: bytes | None = None
    content: OnnxContent | None = None
    if data[4:5] == b"{":
        text, plan = read_engine(data, path)
    else:
        content = read_onnx(data, path)
        text = content.text
    metadata = Metadata.from_dict(parse_json(text, f"{path}: metadata"), str(path))
    if plan is not None and metadata.tensorrt is None:
        raise ArtefactError(f"{path}: expected the key tensorrt in the metadata of an engine, found none")
    if verify and file_digest(data, metadata.file_sha256) != metadata.file_sha256:
        raise ArtefactError(
            f"{path}: expected sha256 {metadata.file_sha256[:12]}..., found another: the file was changed or "
            "damaged after export; export or copy it again"
        )
    if content is not None:
        _check_graph(content, metadata, path)
    return metadata, plan


def file_digest(data: bytes, recorded: str) -> str:
    """sha256 of a file that holds its own digest: hexadecimal, over `data` with `recorded` zeroed.

    recorded: the 64 hexadecimal digits in the file; wherever they occur they count as 64 "0" characters.
        With 64 zeros (not sealed yet) it is the plain sha256.
    """
    schema.checked(schema.digest, recorded, "sha256 of a fused model file")
    import hashlib  # loads OpenSSL: a third of the import time of this package

    needle, zeros = recorded.encode(), b"0" * 64
    view, digest, start = memoryview(data), hashlib.sha256(), 0
    if needle != zeros:
        while (found := data.find(needle, start)) >= 0:
            digest.update(view[start:found])
            digest.update(zeros)
            start = found + len(needle)
    digest.update(view[start:])
    return digest.hexdigest()


def _check_graph(content: OnnxContent, metadata: Metadata, path: Path) -> None:
    """Raises ArtefactError unless inputs and outputs are those of the fused model contract."""
    expected_inputs = {
        "image": Declared("tensor(uint8)", ("N", *metadata.preprocessing.image_size, 3)),
        "explain_class": Declared("tensor(int64)", ("M",)),
    }
    expected_outputs = {
        "logits": Declared("tensor(float)", ("N", len(metadata.classes))),
        "heatmap": Declared("tensor(float)", ("M", *metadata.grid)),
        "base": Declared("tensor(float)", ("M",)),
    }
    for kind, found, expected in (
        ("inputs", content.inputs, expected_inputs),
        ("outputs", content.outputs, expected_outputs),
    ):
        if not found.keys() >= expected.keys() or (kind == "inputs" and found.keys() != expected.keys()):
            names = ", ".join(found)[:200] or "none"
            raise ArtefactError(
                f"{path}: expected the {kind} {', '.join(expected)} of a fused model, found {names}; export it again"
            )
        for name, wanted in expected.items():
            if found[name].type != wanted.type or not _fits(found[name].shape, wanted.shape or ()):
                raise ArtefactError(f"{path}: expected {name} as {wanted}, found {found[name]}; export it again")


def _fits(found: tuple[int | str | None, ...] | None, wanted: tuple[int | str | None, ...]) -> bool:
    """An axis with a name or without a size fits any length, and so does a value whose shape is not declared."""
    if found is None:
        return True
    same = (not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in zip(found, wanted, strict=False))
    return len(found) == len(wanted) and all(same)


def _check_format(found: Any, name: str) -> None:
    if found == FORMAT:
        return
    newer = isinstance(found, str) and re.fullmatch(rf"{_FAMILY}/([0-9]{{1,9}})", found)
    if newer and int(newer[1]) > int(_VERSION):
        raise ArtefactError(f"{name}: expected format {FORMAT}, found the newer {found}; update edgex")
    raise ArtefactError(f"{name}: expected a fused model of format {FORMAT}, found {found!r:.80}")
