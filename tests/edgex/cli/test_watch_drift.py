"""The whole path with commands alone: calibrate, watch what has drifted, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import small_model
from streams import LABELS, coloured

Run = Callable[..., str]


def picture(rng: np.random.Generator, number: int, strength: float) -> Image.Image:
    """Of LABELS[number % 3], as strongly coloured as asked, at places that differ."""
    pixels = np.full((64, 96, 3), 100.0)
    rows, columns = rng.integers(0, 33), rng.integers(0, 49)
    pixels[rows : rows + 32, columns : columns + 48] += strength * (coloured(number, (32, 48)) - 100.0)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """val: class folders of strong colours; live: 100 pictures like them, then 240 pale ones."""
    rng = np.random.default_rng(0)
    for number in range(240):
        folder = tmp_path / "val" / LABELS[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(rng, number, 0.6 + 0.4 * rng.random()).save(folder / f"{number:03d}.png")
    (tmp_path / "live").mkdir()
    for number in range(340):
        strength = 0.6 + 0.4 * rng.random() if number < 100 else 0.1
        picture(rng, number, strength).save(tmp_path / "live" / f"{number:03d}.png")
    small_model.write(tmp_path / "model.onnx")
    return tmp_path


def test_calibrate_watch_report(run: Run, folders: Path) -> None:
    run("calibrate", "model.onnx", "--data", "val", "--target-error", "0.3")
    said = run("watch", "model.onnx", "--source", "live", "--jsonl", "run.jsonl").splitlines()
    warned = [line for line in said if line.startswith("edgex: live: drift: ")]
    assert len([line for line in warned if "scores are lower than in validation: median 0." in line]) == 1
    assert said[-1].startswith("edgex: live: 340 frames") and f"{len(warned)} drift warnings" in said[-1]
    lines = [json.loads(line) for line in (folders / "run.jsonl").read_text().splitlines()]
    assert len(lines) == 340 and "drift" not in lines[198]
    (score,) = [warning for warning in lines[-1]["drift"] if warning["quantity"] == "score"]
    assert score["message"].startswith("scores are lower than in validation") and score["distance"] > 0.3

    run("report", "run.jsonl", "--snapshots", "live")
    page = (folders / "run.html").read_text()
    assert "scores are lower than in validation" in page and "to 340</span>" in page
    assert page.count("data:image/jpeg") >= 10 and "not found" not in page


def test_watching_the_validation_pictures_says_nothing(run: Run, folders: Path) -> None:
    run("calibrate", "model.onnx", "--data", "val", "--target-error", "0.3")
    # Sorted by class, 80 pictures in a row are of one class: no more than three scenes.
    assert "drift" not in run("watch", "model.onnx", "--source", "val")
