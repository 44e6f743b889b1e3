from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgex.errors import DataError
from edgex.evaluation import localisation
from edgex.evaluation.faithfulness import faithfulness
from edgex.models.self_explaining import normalise
from edgex.runtime.preprocessing import Preprocessing

GRID = (10, 10)
PREPROCESSING = Preprocessing((160, 160), 160, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def quantus() -> Iterator[Any]:
    """The library that the metrics are checked against; it warns about its own parameters as it goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("quantus", exc_type=ImportError)


@pytest.fixture
def heatmaps() -> np.ndarray:
    """Six random heatmaps [6, 100] with positive and negative values."""
    return np.random.default_rng(0).normal(size=(6, 100))


@pytest.fixture
def coverage() -> np.ndarray:
    """Objects [6, 100] of whole patches: what a library's masks can say."""
    objects = np.zeros((6, 10, 10))
    for picture, (top, left, height, width) in enumerate(np.random.default_rng(1).integers(1, 5, (6, 4))):
        objects[picture, top : top + height, left : left + width] = 1
    return objects.reshape(6, 100)


def asked(metric: Any, heatmaps: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """A Quantus metric of heatmaps on masks, with nothing done to either."""
    shape = (len(heatmaps), 1, *GRID)
    images = np.zeros(shape, np.float32)
    found = metric(
        model=None,
        x_batch=images,
        y_batch=np.zeros(len(heatmaps), int),
        a_batch=heatmaps.reshape(shape),
        s_batch=coverage.reshape(shape),
    )
    return np.array(found, dtype=float)


def test_metrics_equal_quantus(quantus: Any, heatmaps: np.ndarray, coverage: np.ndarray) -> None:
    plain = {"abs": False, "normalise": False, "disable_warnings": True}
    found = localisation.localise(heatmaps.reshape(6, *GRID), coverage)
    mass = quantus.RelevanceMassAccuracy(**plain)
    assert np.allclose(found["relevance_mass"], asked(mass, np.maximum(heatmaps, 0), coverage))
    centred = heatmaps - heatmaps.mean(axis=1, keepdims=True)
    assert np.allclose(found["centred_mass"], asked(mass, np.maximum(centred, 0), coverage))
    pointing = asked(quantus.PointingGame(**plain), heatmaps, coverage)
    assert found["pointing_game"].tolist() == pointing.tolist()
    rank = asked(quantus.RelevanceRankAccuracy(**plain), heatmaps, coverage)
    # Of two sets of equal size, the share in common and intersection over union say the same thing.
    assert np.allclose(found["iou"], rank / (2 - rank))
    assert tuple(found) == localisation.METRICS


def test_deletion_equals_quantus_pixel_flipping(quantus: Any, random_model: Any, natural_pictures: Any) -> None:
    """On grey pictures: the library flips single values, and a patch of three channels has no whole number of steps."""
    model, card = random_model("timm/test_vit", classes=3)
    pixels = torch.from_numpy(natural_pictures(2, (160, 160)))
    grey = normalise(pixels, card.preprocessing.mean, card.preprocessing.std)[:, :1]
    images = grey.expand(-1, 3, -1, -1)
    outputs = model(images)
    classes = outputs.logits.argmax(dim=1)

    class Logits(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            features = model.backbone.module(image.expand(-1, 3, -1, -1))
            return torch.nn.functional.linear(features, model.head.weight, model.head.bias)

    flipping = quantus.PixelFlipping(
        features_in_step=20 * 256, abs=False, normalise=False, perturb_baseline=0.0, disable_warnings=True
    )
    curve = flipping(
        model=Logits().eval(),
        x_batch=grey.numpy(),
        y_batch=classes.numpy(),
        a_batch=outputs.heatmap.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].numpy(),
        softmax=True,
        channel_first=True,
        device="cpu",
    )
    whole = outputs.logits.softmax(dim=1).gather(1, classes[:, None])
    expected = np.trapezoid(np.concatenate([whole.numpy(), np.array(curve)], axis=1), dx=1 / 5, axis=1)
    found = faithfulness(model, images, classes, outputs.heatmap, steps=5)
    assert np.allclose(found.deletion, expected, atol=1e-4)


def test_a_flat_heatmap_gets_the_objects_share_and_the_object_itself_gets_everything(coverage: np.ndarray) -> None:
    share = coverage.mean(axis=1)
    assert np.allclose(localisation.relevance_mass(np.ones((6, 100)), coverage), share)
    perfect = localisation.localise(coverage.reshape(6, *GRID), coverage)
    assert all((values == 1).all() for name, values in perfect.items() if name != "border")
    opposite = localisation.localise(-coverage.reshape(6, *GRID), coverage)
    assert (opposite["relevance_mass"] == 0).all()
    assert (opposite["pointing_game"] == 0).all()
    assert (opposite["iou"] < 0.2).all()


def test_the_border_is_the_outermost_ring_of_patches() -> None:
    places = [(0, 4), (9, 4), (4, 0), (4, 9), (0, 0), (1, 1), (8, 5), (5, 5)]
    heatmaps = np.zeros((len(places), *GRID))
    for heatmap, place in zip(heatmaps, places, strict=True):
        heatmap[place] = 1
    assert localisation.strongest_at_border(heatmaps).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert localisation.strongest_at_border(heatmaps[:, :1]).all(), "every patch of a single row"


def test_the_same_amount_on_every_patch_does_not_count_in_the_centred_mass(
    heatmaps: np.ndarray, coverage: np.ndarray
) -> None:
    moved = localisation.centred_mass(heatmaps + 3, coverage)
    assert np.allclose(moved, localisation.centred_mass(heatmaps, coverage))
    assert not np.allclose(localisation.relevance_mass(heatmaps + 3, coverage), moved)


def test_patches_that_an_object_covers_in_part_count_in_part() -> None:
    coverage = np.zeros((1, 100))
    coverage[0, :2] = (0.4, 0.6)
    heatmap = np.zeros((1, 100))
    heatmap[0, :2] = (3, 1)
    found = localisation.localise(heatmap.reshape(1, *GRID), coverage)
    assert np.isclose(found["relevance_mass"][0], (3 * 0.4 + 0.6) / 4)
    assert found["pointing_game"][0] == 0
    assert np.isclose(found["iou"][0], 0.4 / (1 + 1 - 0.4))


def test_boxes_go_through_resize_and_crop(tmp_path: Path) -> None:
    """A picture twice as wide as high: 320x160 after the resize, of which the middle 160 columns are seen."""
    root = tmp_path / "set" / "test"
    paths = [root / "a" / f"{name}.png" for name in ("0", "1", "2")]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        Image.new("RGB", (80, 40)).save(path)
    # In frame pixels; the model sees columns 20 to 60, each frame pixel is 4 model pixels and a quarter of a patch.
    boxes = {"test/a/0.png": [[24, 8, 32, 16]], "test/a/1.png": [[0, 0, 18, 40]]}
    (root.parent / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    found = localisation.objects(root, paths, PREPROCESSING, GRID)
    assert found is not None
    positions, coverage = found
    # The second object lies outside of what the model sees, the third picture has no box.
    assert positions.tolist() == [0]
    expected = np.zeros(GRID)
    expected[2:4, 1:3] = 1
    assert np.allclose(coverage[0].reshape(GRID), expected, atol=0.15)
    assert np.isclose(coverage[0].sum(), 4, atol=0.1)
    assert localisation.objects(root, paths[2:], PREPROCESSING, GRID) is None
    assert localisation.objects(root, paths[1:2], PREPROCESSING, GRID) is None


def test_a_mask_that_does_not_fit_its_picture_is_an_error(tmp_path: Path) -> None:
    """Whatever other masks there are: leaving the metrics out in silence would look like a set without objects."""
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, size in zip(paths, ((160, 160), (80, 80)), strict=True):
        Image.new("RGB", (160, 160)).save(path)
        mask = Image.new("L", size)
        mask.putpixel((5, 5), 255)
        mask.save(path.with_suffix(".mask.png"))
    with pytest.raises(DataError, match=r"1\.mask\.png is 80x80 px"):
        localisation.objects(tmp_path, paths, PREPROCESSING, GRID)


def test_boxes_of_real_pictures_lie_on_what_the_model_sees(shared: Path) -> None:
    for name in ("neu", "tinyimagenet"):
        root = shared / "data" / name / "test"
        paths = sorted(root.rglob("*.jpg"))[::40]
        found = localisation.objects(root, paths, PREPROCESSING, GRID)
        assert found is not None
        positions, coverage = found
        assert len(positions) > 0.8 * len(paths)
        boxes = json.loads((root.parent / "boxes.json").read_text(encoding="utf-8"))
        for position, covered in zip(positions, coverage, strict=True):
            path = paths[position]
            with Image.open(path) as picture:
                width, height = picture.size
            drawn = np.zeros((height, width), dtype=bool)
            for left, top, right, bottom in boxes[path.relative_to(root.parent).as_posix()]:
                drawn[top:bottom, left:right] = True
            # Square pictures, whole in view: the object's share of the picture is its share of the patches.
            assert abs(drawn.mean() - covered.mean()) < 0.02
