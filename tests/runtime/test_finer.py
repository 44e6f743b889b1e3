from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex.runtime import ImageError, Session, UsageError

Reference = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture
def squashing(make_model: Callable[..., Path], make_metadata: Callable[..., dict[str, Any]]) -> Session:
    """The small model with every frame squashed to its input of 32 x 48 pixels."""
    changed = {**make_metadata()["preprocessing"], "resize": [32, 48]}
    return Session(make_model("squash.onnx", preprocessing=changed), "cpu", threads=1)


def test_the_finer_heatmap_is_the_mean_of_shifted_views(squashing: Session, reference: Reference) -> None:
    """A frame of 80 x 140 pixels, 2 x 2 views of 64 x 120, whose patches of 32 x 40 pixels are shifted by 16 and 20."""
    frame = np.random.default_rng(2).integers(0, 256, (80, 140, 3), dtype=np.uint8)
    result = squashing.finer(frame, 2, explain="green thing")
    boxes = [(y, x, y + 64, x + 120) for y in (0, 16) for x in (0, 20)]
    assert [tile.box for tile in result.tiles] == boxes
    assert result.heatmap.shape == (5, 7)
    total, count, found = np.zeros((80, 140)), np.zeros((80, 140)), []
    for top, left, bottom, right in boxes:
        view = Image.fromarray(frame[top:bottom, left:right]).resize((48, 32), Image.Resampling.BICUBIC)
        logits, heatmaps, bases = reference(np.asarray(view)[None], [1])
        total[top:bottom, left:right] += np.kron(heatmaps[0], np.ones((32, 40))) / (32 * 40)
        count[top:bottom, left:right] += 1
        found.append((logits[0], bases[0]))
    mean = (total / count).reshape(5, 16, 7, 20).sum(axis=(1, 3))
    np.testing.assert_allclose(result.heatmap, mean, atol=1e-5)
    np.testing.assert_allclose(result.logits, np.mean([logits for logits, _ in found], axis=0), atol=5e-5)
    assert result.base == pytest.approx(np.mean([base for _, base in found]), abs=1e-5)
    assert result.score == pytest.approx(
        float(np.mean([tile.result.probabilities[result.index] for tile in result.tiles]))
    )
    assert np.isfinite(result.heatmap_on(frame)).all()


def test_a_small_thing_is_located_more_exactly(squashing: Session) -> None:
    """A blue dot of 6 x 6 pixels on grey, in patches of 64 x 64: how far off is the strongest cell's centre?"""
    rng = np.random.default_rng(0)
    errors: dict[int, list[float]] = {1: [], 4: []}
    for _ in range(12):
        y, x = int(rng.integers(10, 112)), int(rng.integers(10, 176))
        frame = np.full((128, 192, 3), 90, np.uint8)
        frame[y : y + 6, x : x + 6] = (0, 0, 255)
        for shifts, found in errors.items():
            result = squashing.finer(frame, shifts, "blue thing") if shifts > 1 else squashing(frame, "blue thing")
            row, column = np.unravel_index(result.heatmap.argmax(), result.heatmap.shape)
            cell = 128 / result.heatmap.shape[0], 192 / result.heatmap.shape[1]
            found.append(float(np.hypot((row + 0.5) * cell[0] - y - 3, (column + 0.5) * cell[1] - x - 3)))
    assert np.mean(errors[4]) < 0.75 * np.mean(errors[1])


def test_what_a_crop_leaves_out_stays_unseen(session: Session, frame: np.ndarray) -> None:
    """The views lie in what a plain call sees."""
    seen, finer = session(frame).view.seen, session.finer(frame, 3).view.seen
    np.testing.assert_allclose(finer, seen, atol=0.5)
    assert np.isnan(session.finer(frame, 3).heatmap_on()).any()
    assert session(frame).remark is not None
    assert session.finer(frame, 3).remark is not None


def test_a_padded_frame_is_seen_whole(model_path: Path) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    session = Session(model_path, "cpu", threads=1, fit="pad")
    result = session.finer(frame, 3, "red thing")
    assert result.view.seen == (0, 0, 120, 200)
    assert np.isfinite(result.heatmap_on()).all()
    assert {tile.result.view.frame_size for tile in result.tiles} == {(88, 164)}
    assert result.score == pytest.approx(session(frame).score, abs=0.2)


def test_the_predicted_class_is_that_of_the_mean(session: Session, frame: np.ndarray) -> None:
    result = session.finer(frame[..., ::-1], color="bgr")
    assert result.label == result.explained == "red thing"
    np.testing.assert_array_equal(result.heatmap, session.finer(frame, 2, "red thing").heatmap)


@pytest.mark.parametrize("shifts", [1, 0, -2, 17, 2.0, True, "2", None])
def test_other_numbers_of_shifts_are_refused(session: Session, frame: np.ndarray, shifts: Any) -> None:
    with pytest.raises(UsageError, match="expected a number from 2 to 16") as caught:
        session.finer(frame, shifts)
    assert caught.value.argument == "shifts"


def test_shifts_of_less_than_a_pixel_are_refused(session: Session) -> None:
    with pytest.raises(ImageError, match="patches of at least 8 pixels of the frame, .*, found rows of 5.6 pixels"):
        session.finer(np.zeros((14, 30, 3), np.uint8), 8)


def test_a_session_with_tiles_has_no_finer_map(model_path: Path, frame: np.ndarray) -> None:
    with pytest.raises(UsageError, match="expected a session without tiles and roi"):
        Session(model_path, "cpu", tiles=(2, 2)).finer(frame)
