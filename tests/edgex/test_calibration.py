"""`edgex.calibrate`: from a file and pictures to a file that decides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgex
import small_model
from edgex.calibration import calibrate
from edgex.errors import ArtefactError, DataError, UsageError
from edgex.runtime import Session
from edgex.runtime.calibration import Unsure, in_words
from edgex.runtime.drift import DriftMonitor, observation_of
from edgex.runtime.sketch import Sketch
from small_model import CLASSES, GRID, expected

HEIGHT, WIDTH = 2 * small_model.CELL, 3 * small_model.CELL
COUNT = 240


def colours(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [N, H, W, 3] of two colours, and the small model's logits [N, C]."""
    rng = np.random.default_rng(seed)
    pictures = np.zeros((count, HEIGHT, WIDTH, 3), np.uint8)
    pictures[...] = rng.integers(100, 156, (count, 1, 1, 3))
    pictures[:, :16, :16] = rng.integers(0, 256, (count, 1, 1, 3))
    return pictures, expected(pictures, [-1] * count)[0]


def drawn_classes(logits: np.ndarray, seed: int = 1) -> np.ndarray:
    """Classes drawn from a softmax of half the logits: a temperature of 2 makes the model as sure as it is right."""
    odds = np.exp(logits / 2)
    limits = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return (np.random.default_rng(seed).random((len(logits), 1)) > limits).sum(axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in class folders."""
    root = tmp_path_factory.mktemp("data") / "line" / "val"
    pictures, logits = colours(COUNT)
    for number, (pixels, label) in enumerate(zip(pictures, drawn_classes(logits), strict=True)):
        path = root / CLASSES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model.write(tmp_path / "model.onnx")


def test_a_file_learns_to_decide(model: Path, folder: Path, tmp_path: Path) -> None:
    plain = Session(model, "cpu", threads=1)
    out = tmp_path / "calibrated.onnx"
    found = calibrate(model, folder, alarm=["Red Thing"], target_error=0.1, out=out, provider="cpu")
    stored = Session(out, "cpu", threads=1).metadata.calibration
    assert stored == found.calibration
    assert (stored.data, stored.pictures, stored.alarm_classes) == ("line/val", COUNT, ("red thing",))
    assert stored.temperature == pytest.approx(2, rel=0.25)
    assert stored.ece is not None and stored.ece.after < 0.6 * stored.ece.before
    # As the model runs them, on pictures that were not validated with: 1 / 10 of what is ok may be wrong.
    pictures, logits = colours(400, seed=9)
    true = drawn_classes(logits, seed=3)
    session = Session(out, "cpu", threads=1)
    results = session(list(pictures))
    assert np.array_equal(results[0].logits, plain(pictures[0]).logits)
    decisions = np.array([result.decision for result in results])
    wrong = np.array([result.index for result in results]) != true
    assert set(decisions) == {"ok", "review", "alarm"}
    assert wrong[decisions == "ok"].mean() < 0.15 < wrong.mean()
    assert stored.thresholds is not None
    assert all(result.probabilities[0] < stored.thresholds[0] for result in results if result.decision != "alarm")
    assert session.metadata.file_sha256 != plain.metadata.file_sha256


def test_the_scale_is_that_of_the_predicted_classes_heatmaps(model: Path, folder: Path, tmp_path: Path) -> None:
    found = calibrate(model, folder, target_error=0.2, provider="cpu").calibration.evidence
    session = Session(model, "cpu", threads=1)
    maps = np.stack([session(path).heatmap for path in sorted(folder.rglob("*.png"))])
    assert found is not None
    assert found.floor == pytest.approx(max(np.median(maps), 0))
    assert found.full == pytest.approx(np.median(maps.max(axis=(1, 2))))


def test_the_sketch_is_that_of_the_same_pictures_on_the_device(model: Path, folder: Path) -> None:
    found = calibrate(model, folder, target_error=0.2, provider="cpu").calibration.sketch
    session = Session(model, "cpu", threads=1)
    seen = Sketch.of((observation_of(session(path)) for path in sorted(folder.rglob("*.png"))), len(CLASSES))
    assert found == seen and seen.pictures == COUNT


def test_drift_is_looked_for_with_the_fit_that_was_calibrated(model: Path, folder: Path) -> None:
    calibrate(model, folder, target_error=0.2, provider="cpu", fit="pad")
    padded, plain = Session(model, "cpu", fit="pad"), Session(model, "cpu")
    assert plain.metadata.calibration is not None and plain.metadata.calibration.fit == "pad"
    said: list[str] = []
    assert DriftMonitor.of(padded, said.append) is not None and not said
    assert DriftMonitor.of(plain, said.append) is None and "another fit" in said[0]
    assert in_words(plain.metadata.calibration)[0][1].endswith(", with the fit pad")
    calibrate(model, folder, target_error=0.2, provider="cpu")
    assert DriftMonitor.of(Session(model, "cpu")) is not None
    assert DriftMonitor.of(Session(model, "cpu", fit="pad")) is None


def test_calibrating_again_replaces_what_was_there(model: Path, folder: Path) -> None:
    calibrate(model, folder, alarm=["nothing"], target_error=0.2, provider="cpu")
    once = model.read_bytes()
    calibrate(model, folder, target_error=0.1, provider="cpu")
    assert Session(model, "cpu").metadata.calibration.alarm_classes == ()  # type: ignore[union-attr]
    calibrate(model, folder, alarm=["nothing"], target_error=0.2, provider="cpu")
    assert model.read_bytes() == once, "what is stored does not depend on an earlier calibration"


def test_a_multi_label_model_gets_thresholds_of_its_own(tmp_path: Path) -> None:
    pictures, logits = colours(COUNT)
    present = np.random.default_rng(2).random(logits.shape) < 1 / (1 + np.exp(-logits))
    lines = ["file,labels"]
    (tmp_path / "val").mkdir()
    for number, (pixels, labels) in enumerate(zip(pictures, present, strict=True)):
        Image.fromarray(pixels).save(tmp_path / "val" / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(np.array(CLASSES)[labels])}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    model = small_model.write(tmp_path / "m.onnx", activation="sigmoid", thresholds=[0.1, 0.2, 0.3, 1.0])
    found = calibrate(model, tmp_path / "val", labels=table, target_error=0.3, provider="cpu")
    assert found.calibration.temperature == pytest.approx(1, rel=0.25)
    assert found.calibration.thresholds != (0.1, 0.2, 0.3, 1.0)
    result = Session(model, "cpu")(tmp_path / "val" / "0.png")
    assert result.thresholds == found.calibration.thresholds and result.decision in ("ok", "review")
    assert found.calibration.unsure is None or found.calibration.unsure.low == 1 - found.calibration.unsure.high
    with pytest.raises(UsageError, match="several labels"):
        calibrate(model, tmp_path / "val", provider="cpu")


def copied(folder: Path, to: Path, keep: Callable[[str, int], bool]) -> Path:
    for path in folder.rglob("*.png"):
        if keep(path.parent.name, int(path.stem)):
            target = to / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


def test_what_cannot_be_calibrated_is_one_line_and_nothing_is_written(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    content = model.read_bytes()
    few = copied(folder, tmp_path / "few", lambda _, number: number < 20)
    with pytest.raises(DataError, match="at least 30 pictures in .*few, found 20"):
        calibrate(model, few, provider="cpu")
    one = copied(folder, tmp_path / "one", lambda name, _: name == "red thing")
    with pytest.raises(DataError, match="at least two classes in .*one, found 'red thing'"):
        calibrate(model, one, provider="cpu")
    with pytest.raises(UsageError, match="one of the model's 4 classes, found 'rust'") as unknown:
        calibrate(model, folder, alarm=["rust"], provider="cpu")
    assert unknown.value.argument == "alarm"
    with pytest.raises(UsageError, match="above 0 and below 1, found 0") as rate:
        calibrate(model, folder, target_error=0, provider="cpu")
    assert rate.value.argument == "target_error"
    with pytest.raises(ArtefactError, match="found neither"):
        calibrate(next(few.rglob("*.png")), folder, provider="cpu")
    with pytest.raises(UsageError, match="exists already") as there:
        calibrate(model, folder, out=next(few.rglob("*.png")), provider="cpu")
    assert there.value.argument == "out"
    with pytest.raises(UsageError, match=r"ends in \.onnx like the model's, found .*other\.engine") as other:
        calibrate(model, folder, out=tmp_path / "other.engine", provider="cpu")
    assert other.value.argument == "out" and not (tmp_path / "other.engine").exists()
    with pytest.raises(ArtefactError, match="cannot write /dev/null/x.onnx"):
        calibrate(model, folder, out="/dev/null/x.onnx", provider="cpu")
    assert model.read_bytes() == content


def test_classes_with_few_pictures_are_named(model: Path, folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    some = copied(folder, tmp_path / "some", lambda name, number: name != "nothing" and (name[0] != "g" or number < 60))
    assert 0 < len(list((some / "green thing").iterdir())) < 10 or not said
    found = calibrate(model, some, alarm=["nothing"], target_error=0.2, provider="cpu", report=said.append)
    assert "classes have less than 10 pictures and keep the threshold 0.5: nothing" in said[-1]
    assert found.calibration.thresholds[3] == 0.5  # type: ignore[index]


def test_pictures_that_cannot_be_read(model: Path, folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad", lambda *_: True)
    (bad / "red thing" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 241 pictures cannot be read: .*x.png.*go on without them") as error:
        calibrate(model, bad, target_error=0.2, provider="cpu")
    assert error.value.argument == "skip_bad"
    said: list[str] = []
    found = calibrate(model, bad, target_error=0.2, provider="cpu", skip_bad=True, report=said.append)
    assert found.calibration.pictures == COUNT and said[0].startswith("left out, 1 of 241")
    assert found.calibration.temperature == calibrate(model, folder, provider="cpu").calibration.temperature


def test_a_rate_that_no_band_reaches_sends_everything_to_review(model: Path, folder: Path) -> None:
    found = calibrate(model, folder, target_error=1e-6, provider="cpu")
    assert found.calibration.unsure == Unsure(0, 1)
    name, words = found.lines()[-1]
    assert name == "no band is enough" and f"at best {100 * found.least_error:.1f}%" in words
    assert Session(model, "cpu")(np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8)).decision == "review"


def test_it_is_public() -> None:
    assert edgex.calibrate is calibrate and GRID == (2, 3)


def test_it_needs_no_library_of_the_workstation() -> None:
    code = "import sys, edgex.calibration; print({'torch', 'onnx', 'timm', 'safetensors'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
