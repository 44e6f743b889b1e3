from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex.errors import DataError
from edgex.report.pictures import LONGEST, Pictures, Shown
from edgex.report.reading import Frame
from edgex.runtime.drawing.overlay import overlay
from edgex.runtime.result import encode_heatmap
from edgex.runtime.view import View

SIZE = (60, 100)
HEAT = np.zeros((4, 4), np.float32)
HEAT[1, 2] = 1


def frame(**more: Any) -> Frame:
    """A frame of 60 x 100 whose middle square was seen."""
    known: dict[str, Any] = {
        "name": "pictures/0.png",
        "source": "door",
        "heatmap": encode_heatmap(HEAT),
        "frame_size": SIZE,
        "input_area": (0.0, 20.0, 60.0, 80.0),
    }
    return Frame(0, 7, "a", 0.9, **{**known, **more})


def pixels(shown: Shown | None) -> np.ndarray:
    assert shown is not None
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))))
    assert found.shape[:2] == (shown.height, shown.width)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(place / "0.png")
    return place


def test_the_sources_own_picture_with_its_heatmap(folder: Path) -> None:
    shown = Pictures([folder]).show(frame())
    assert shown is not None and shown.is_picture
    view = View(SIZE, (64, 107), (0, 21), (64, 64))
    wanted = overlay(np.full((*SIZE, 3), 90, np.uint8), HEAT, view)
    assert np.abs(pixels(shown).astype(int) - wanted).mean() < 3
    # The evidence is where the frame had it: row 1 and column 2 of 4, in the square that was seen.
    changed = np.abs(pixels(shown).astype(int) - 90).sum(axis=2)
    assert changed[22, 57] > 60 and changed[50, 30] < 20


@pytest.mark.parametrize("name", ["/somewhere/else/pictures/0.png", "0.png", "pictures/../0.png", "./0.png"])
def test_a_picture_is_found_by_the_end_of_its_path(folder: Path, name: str) -> None:
    shown = Pictures([folder]).show(frame(name=name))
    assert shown is not None and shown.is_picture


def test_nothing_outside_of_the_folders_is_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.fromarray(np.full((*SIZE, 3), 200, np.uint8)).save(secret)
    (folder / "link.png").symlink_to(secret)
    for name in ("../secret.png", str(secret), "link.png", "pictures/../../secret.png", "\0.png", "x" * 5000 + ".png"):
        shown = Pictures([folder]).show(frame(name=name))
        assert shown is not None and not shown.is_picture


def test_another_picture_of_that_name(folder: Path) -> None:
    shown = Pictures([folder]).show(frame(frame_size=(30, 30), input_area=(0.0, 0.0, 30.0, 30.0)))
    assert shown is not None and not shown.is_picture
    (folder / "0.png").write_bytes(b"no picture")
    shown = Pictures([folder]).show(frame())
    assert shown is not None and not shown.is_picture


def test_pictures_that_watch_drew(tmp_path: Path) -> None:
    drawn = np.full((*SIZE, 3), 150, np.uint8)
    Image.fromarray(drawn).save(tmp_path / "000007.red-fox.jpg", quality=95)
    shown = Pictures([tmp_path]).show(frame(name="camera"))
    assert shown is not None and shown.is_picture
    assert np.abs(pixels(shown).astype(int) - drawn).max() <= 4
    assert not Pictures([tmp_path]).show(dataclasses.replace(frame(), frame=8)).is_picture  # type: ignore[union-attr]


def test_snapshots_of_alarms(tmp_path: Path) -> None:
    stem = "20261127T210424Z.000007.crack.1a2b3c4d"
    Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(tmp_path / f"{stem}.jpg")
    card = tmp_path / f"{stem}.json"
    card.write_text(json.dumps({"name": "picture 7", "source": "door", "frame": 7}))
    seen = frame(name="picture 7")
    shown = Pictures([tmp_path]).show(seen)
    assert shown is not None and shown.is_picture
    # Another run's alarm with this number is another picture.
    for text in (json.dumps({"name": "picture 7", "source": "yard"}), "[]", "{", ""):
        card.write_text(text)
        shown = Pictures([tmp_path]).show(seen)
        assert shown is not None and not shown.is_picture


def test_large_pictures_are_made_smaller(folder: Path) -> None:
    Image.new("RGB", (1920, 1080)).save(folder / "0.png")
    shown = Pictures([folder]).show(frame(frame_size=(1080, 1920), input_area=(0.0, 420.0, 1080.0, 1500.0)))
    assert pixels(shown).shape == (LONGEST * 9 // 16, LONGEST, 3)


@pytest.mark.parametrize(
    "more",
    [
        {"heatmap": None},
        {"heatmap": {"shape": [4, 4], "float16": "!"}},
        {"heatmap": {"shape": [0, 0], "float16": ""}},
        {"heatmap": encode_heatmap(np.full((2, 2), np.nan, np.float32))},
        {"heatmap": encode_heatmap(np.zeros((1, 600), np.float32))},
    ],
)
def test_heatmaps_that_cannot_be_drawn(folder: Path, more: dict[str, Any]) -> None:
    assert Pictures([]).show(frame(**more)) is None
    shown = Pictures([folder]).show(frame(**more))
    assert shown is not None and np.abs(pixels(shown).astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    "area", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1e300, 1e300), (900.0, 0.0, 999.0, 9.0), (-1e18, 0.0, 5.0, 5.0)]
)
def test_places_that_there_are_not(folder: Path, area: tuple[float, ...]) -> None:
    assert pixels(Pictures([folder]).show(frame(input_area=area))).shape == (*SIZE, 3)


@pytest.mark.parametrize("size", [(10**9, 10**9), (1, 10**9)])
def test_sizes_that_no_picture_has(size: tuple[int, int]) -> None:
    shown = Pictures([]).show(frame(frame_size=size))
    assert shown is None or max(pixels(shown).shape) <= LONGEST


def test_the_calibrated_scale_of_the_line() -> None:
    weak = pixels(Pictures([]).show(frame(evidence_scale={"floor": 0.5, "full": 50.0})))
    strong = pixels(Pictures([]).show(frame()))
    assert int(weak.max()) < int(strong.max()) - 50 or np.abs(weak.astype(int) - strong).max() > 50
    assert pixels(Pictures([]).show(frame(evidence_scale={"floor": 5.0, "full": -1.0}))).shape == strong.shape


def test_regions_of_interest_are_drawn_as_the_result_draws_them(folder: Path) -> None:
    area, frames = (0.0, 0.0, 60.0, 100.0), (((10.0, 5.0), (60.0, 5.0), (60.0, 50.0), (10.0, 50.0)),)
    heat = np.full((4, 4), 0.4, np.float32)
    plain = pixels(Pictures([folder]).show(frame(input_area=area, heatmap=encode_heatmap(heat + 0.1 * HEAT))))
    cut = pixels(Pictures([folder]).show(frame(input_area=area, heatmap=encode_heatmap(heat + 0.1 * HEAT), roi=frames)))
    outside = np.ones(SIZE, bool)
    outside[:55, :65] = False
    assert np.abs(cut[outside].astype(int) - 90).max() <= 3 and np.abs(plain[outside].astype(int) - 90).max() > 3


@pytest.mark.parametrize("corner", [(-1e300, 1e300), (1e18, 5.0), (0.0, 0.0)])
def test_regions_that_there_are_not(folder: Path, corner: tuple[float, float]) -> None:
    assert pixels(Pictures([folder]).show(frame(roi=((corner, (3.0, 3.0), corner),)))).shape == (*SIZE, 3)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder, found") as error:
        Pictures([tmp_path / "none"])
    assert error.value.argument == "snapshots"
    with pytest.raises(DataError):
        Pictures([os.fspath(tmp_path / "none")])
