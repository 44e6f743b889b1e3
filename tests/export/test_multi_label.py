"""Multi-label and binary models exported in every precision: each heatmap adds up to its class's own logit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.errors import GateError
from edgex.export.gate import Outputs, compare, reference
from edgex.export.logit_comparison import comparison_of
from edgex.export.onnx import write_onnx
from edgex.runtime import Session
from edgex.runtime.metadata import load

KINDS = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "int8 dynamic": {"precision": "int8"},
    "int8 static": {"precision": "int8", "int8_form": "static"},
}
THRESHOLDS = (0.5, 0.01, 0.9, 0.2)


@pytest.fixture(scope="module")
def exported(
    random_model: Callable[..., Any], small_pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], tuple[Any, Path]]:
    """`exported(kind, classes)` -> the sigmoid model of so many classes, and its file."""
    folder = tmp_path_factory.mktemp("multi_label")
    models: dict[int, Any] = {}
    files: dict[tuple[str, int], Path] = {}

    def export(kind: str, classes: int) -> tuple[Any, Path]:
        thresholds = THRESHOLDS[:classes]
        if classes not in models:
            models[classes] = random_model(
                "timm/test_vit", classes=classes, activation="sigmoid", thresholds=thresholds
            )
        model, card = models[classes]
        if (kind, classes) not in files:
            files[kind, classes] = folder / f"{kind} {classes}.onnx"
            calibration = small_pictures[:4] if kind == "int8 static" else None
            write_onnx(
                model,
                card,
                files[kind, classes],
                pictures=small_pictures,
                model_sha256="ab" * 32,
                calibration=calibration,
                **KINDS[kind],  # type: ignore[arg-type]
            )
        return model, files[kind, classes]

    return export


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_heatmaps_add_up_to_their_own_logits(
    exported: Callable[..., Any], small_pictures: np.ndarray, kind: str, classes: int
) -> None:
    model, path = exported(kind, classes)
    metadata, _ = load(path)
    assert metadata.activation == "sigmoid" and metadata.thresholds == THRESHOLDS[:classes]
    session = Session(path)
    for count in (1, 2, 7):
        explain = np.arange(count) % classes
        logits, heatmap, base = session.run(small_pictures[:count], explain)
        own = np.take_along_axis(logits, explain[:, None], axis=1)[:, 0]
        assert np.abs(heatmap.sum((1, 2)) + base - own).max() < 1e-4
        assert heatmap.reshape(count, -1).std(axis=1).min() > 1e-3
    if kind == "fp32":
        wanted = reference(model, metadata.preprocessing, small_pictures)
        assert np.abs(
            session.run(small_pictures[:7], np.arange(7) % classes)[0] - wanted.predicted.logits[:7]
        ).max() < (1e-3)


def test_labels_of_a_session_follow_the_thresholds_of_the_file(
    exported: Callable[..., Any], small_pictures: np.ndarray
) -> None:
    _, path = exported("fp32", 4)
    session = Session(path)
    for picture in small_pictures:
        result = session(picture)
        odds = 1 / (1 + np.exp(-result.logits.astype(np.float64)))
        np.testing.assert_allclose(result.probabilities, odds, rtol=1e-5)
        wanted = {name for name, p, t in zip(session.classes, odds, THRESHOLDS, strict=True) if p >= t}
        assert {name for name, _ in result.labels()} == wanted
        assert result.multi_label and result.to_dict()["labels"] == [list(pair) for pair in result.labels()]


def test_a_gate_compares_the_labels_that_are_present() -> None:
    comparison = comparison_of("sigmoid", (0.5, 0.9))
    flat = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    expected = Outputs(np.array([[2.0, 2.0], [-1.0, 3.0]], np.float32), flat, np.zeros(2, np.float32))
    found = expected._replace(logits=np.array([[2.0, 2.3], [-1.0, 3.0]], np.float32))
    values = compare(expected, found, comparison)
    # sigmoid(2.3) = 0.909 passes the threshold of 0.9 that sigmoid(2) = 0.881 does not: one of four answers.
    assert values["top1_agreement"] == 0.75
    assert values["logits_max_abs"] == pytest.approx(0.3 / 4)


def test_an_untrained_head_is_refused(random_model: Callable[..., Any], small_pictures: np.ndarray) -> None:
    model, card = random_model("timm/test_vit", classes=3, activation="sigmoid")
    model.head.weight.zero_()
    model.head.bias.zero_()
    with pytest.raises(GateError, match="same score"):
        reference(model.freeze(), card.preprocessing, small_pictures)
