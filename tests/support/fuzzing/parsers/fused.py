"""Fused ONNX files and engine files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from edgex.runtime.calibration import Calibration, CalibrationError, EvidenceScale, Unsure
from edgex.runtime.sketch import Observation, Sketch
from fuzzing import formats
from fuzzing.campaign import picked
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser
from small_model import CLASSES, describe, write

_SIZE = (32, 48)


def onnx_files() -> Parser:
    """`Session` on a mutated ONNX file.

    Wrongly accepted: a file whose digest is not right any more; one whose classes are no names, or whose answer has
    other shapes than it declares.
    """
    return Parser("onnx", _onnx_bases, _mutate(formats.changed_onnx), _run, _wrong_answer)


def engine_files() -> Parser:
    """The metadata of a mutated engine file; without its plan's GPU nothing is run.

    Wrongly accepted: a file whose digest is not right any more, or whose metadata has other types than documented.
    """
    return Parser("engine", _engine_bases, _mutate(formats.changed_engine), _load, _wrong_metadata)


def _onnx_bases(folder: Path) -> Sequence[Case]:
    plain = write(folder / "base.onnx").read_bytes()
    many = write(folder / "base.onnx", alpha=None, provenance=[]).read_bytes()
    calibrated = write(folder / "base.onnx", calibration=_calibration()).read_bytes()
    return [Case(plain, ".onnx"), Case(many, ".onnx"), Case(calibrated, ".onnx")]


def _calibration() -> dict[str, Any]:
    return Calibration(
        "line/val",
        40,
        1.7,
        CalibrationError(0.2, 0.05),
        (0.3, 0.5, 0.7, 0.5),
        ("red thing",),
        Unsure(0.0, 0.8),
        EvidenceScale(0.02, 0.4),
        Sketch.of([Observation(0.7, 1, 0.4, 0.9)] * 40, len(CLASSES)),
    ).to_dict()


def _engine_bases(folder: Path) -> Sequence[Case]:
    target = {"package": "tensorrt", "version": "10.9.0", "compute_capabilities": ["8.6"]}
    text = json.dumps(describe(tensorrt=target)).encode()
    return [Case(formats.resealed(formats.engine(text, bytes(range(256)) * 8), "0" * 64), ".engine")]


def _mutate(sealed: Callable[[Random, bytes], bytes]) -> Callable[[Random, Sequence[Case]], Case]:
    def mutate(random: Random, bases: Sequence[Case]) -> Case:
        base = picked(random, bases)
        if random.random() < 0.6:
            return Case(sealed(random, base.data), base.suffix)
        return Case(damaged(random, base.data, [other.data for other in bases]), base.suffix)

    return mutate


def _run(path: Path) -> Any:
    from edgex.inspection import inspect
    from edgex.runtime import Session
    from edgex.utils.json import dumps

    with Session(path, "cpu", threads=1) as session:
        frame = np.full((*_SIZE, 3), 90, np.uint8)
        result = session(frame)
        result.top(3)
        result.overlay(frame)
        dumps(result.to_dict())
        dumps(inspect(path))
        repr(session)
        return session.metadata, result


def _load(path: Path) -> Any:
    from edgex.inspection import inspect
    from edgex.runtime import metadata
    from edgex.utils.json import dumps

    dumps(inspect(path))
    return metadata.load(path)[0], None


def _wrong_answer(meaning: Any, case: Case) -> str | None:
    metadata, result = meaning
    if not formats.is_sealed(case.data, formats.onnx_digest(case.data)):
        return "the digest is not right"
    if result.heatmap.shape != metadata.grid or not np.isfinite(result.heatmap).all():
        return "the heatmap has another shape or no numbers"
    if result.logits.shape != (len(metadata.classes),):
        return "another number of classes"
    return wrong_types(metadata)


def _wrong_metadata(meaning: Any, case: Case) -> str | None:
    if not formats.is_sealed(case.data, formats.engine_digest(case.data)):
        return "the digest is not right"
    return wrong_types(meaning[0])


def wrong_types(metadata: Any) -> str | None:
    """What has another type or range than `edgex.runtime.metadata` documents."""
    preprocessing = metadata.preprocessing
    numbers = [*preprocessing.mean, *preprocessing.std, *preprocessing.image_size, preprocessing.resize]
    checks = {
        "classes": all(type(name) is str for name in metadata.classes) and len(metadata.classes) > 0,
        "grid": len(metadata.grid) == 2 and all(type(n) is int and n > 0 for n in metadata.grid),
        "alpha": metadata.alpha is None or (type(metadata.alpha) in (int, float) and math.isfinite(metadata.alpha)),
        "max_batch": type(metadata.max_batch) is int and metadata.max_batch > 0,
        "provenance": all(isinstance(step, dict) for step in metadata.provenance),
        "preprocessing": all(math.isfinite(number) for number in numbers) and all(s > 0 for s in preprocessing.std),
        "evidence": isinstance(metadata.evidence, dict),
        "strings": all(type(text) is str for text in (metadata.pooling, metadata.architecture, metadata.precision)),
    }
    wrong = [name for name, right in checks.items() if not right]
    return f"unusable {', '.join(wrong)}" if wrong else None
