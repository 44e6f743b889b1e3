from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from edgex.runtime import ImageError, Session
from edgex.runtime.tiling.cutting import Layout
from edgex.runtime.tiling.tiles import TiledResult

Reference = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]
GRID = (2, 3)


@pytest.fixture
def open_tiled(model_path: Path) -> Callable[..., Any]:
    """Opens sessions whose results are `TiledResult`s, which the type of a call does not tell."""
    return lambda **options: Session(model_path, "cpu", threads=1, **options)


def weights(layout: Layout) -> list[np.ndarray]:
    """Of each tile, its weight at each pixel of the frame, pixel by pixel from the rule in words."""
    height, width = layout.frame_size
    found = []
    for box in layout.boxes:
        weight = np.zeros((height, width))
        for y in range(box[0], box[2]):
            for x in range(box[1], box[3]):
                weight[y, x] = _falling(y, 0, box, layout) * _falling(x, 1, box, layout)
        found.append(weight)
    return found


def _falling(pixel: int, axis: int, box: tuple[int, ...], layout: Layout) -> float:
    spans = sorted({(other[axis], other[axis + 2]) for other in layout.boxes})

    def one(span: tuple[int, int]) -> float:
        place, height = spans.index(span), 1.0
        if not span[0] <= pixel < span[1]:
            return 0.0
        if place and (shared := spans[place - 1][1] - span[0]) > 0:
            height = min(height, (pixel + 0.5 - span[0]) / shared)
        if place + 1 < len(spans) and (shared := span[1] - spans[place + 1][0]) > 0:
            height = min(height, (span[1] - pixel - 0.5) / shared)
        return height

    return one((box[axis], box[axis + 2])) / sum(map(one, spans))


def spread(heatmap: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    """The evidence of each pixel of the tile, whose sides are multiples of the grid's."""
    rows, columns = (box[2] - box[0]) // GRID[0], (box[3] - box[1]) // GRID[1]
    return np.kron(heatmap, np.ones((rows, columns))) / (rows * columns)


def test_tiles_are_what_the_model_says_about_crops(
    open_tiled: Callable[..., Any], frame: np.ndarray, reference: Reference
) -> None:
    """Twelve tiles with max_batch 4: three batches; each tile is squashed to the model's size."""
    result = open_tiled(tiles=(3, 4), overlap=0.2)(frame, explain="blue thing")
    assert isinstance(result, TiledResult)
    assert len(result.tiles) == 12
    for tile in result.tiles:
        top, left, bottom, right = tile.box
        pixels = np.asarray(Image.fromarray(frame[top:bottom, left:right]).resize((48, 32), Image.Resampling.BICUBIC))
        logits, heatmaps, bases = reference(pixels[None], [2])
        np.testing.assert_allclose(tile.result.logits, logits[0], atol=5e-5)
        np.testing.assert_allclose(tile.result.heatmap, heatmaps[0], atol=1e-5)
        assert tile.result.base == pytest.approx(bases[0], abs=1e-5)
        assert tile.label == session_label(logits[0])
        assert tile.result.explained == "blue thing"
        assert tile.result.view.frame_size == (bottom - top, right - left)
        assert tile.explained_score == pytest.approx(tile.result.probabilities[2])


def session_label(logits: np.ndarray) -> str:
    return ["red thing", "green thing", "blue thing", "nothing"][int(logits.argmax())]


@pytest.mark.parametrize(
    ("size", "tiles", "overlap"), [((36, 54), (3, 3), 0.0), ((40, 75), (3, 4), 0.25), ((22, 78), (4, 5), 0.6)]
)
def test_the_stitched_heatmap_holds_the_weighted_evidence_of_every_pixel(
    open_tiled: Callable[..., Any], size: tuple[int, int], tiles: tuple[int, int], overlap: float
) -> None:
    frame = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = open_tiled(tiles=tiles, overlap=overlap)(frame, explain=1)
    boxes = [tile.box for tile in result.tiles]
    if any((b[2] - b[0]) % GRID[0] or (b[3] - b[1]) % GRID[1] for b in boxes):
        pytest.fail("choose sizes that the grid divides")
    wanted = np.zeros(size)
    shares = weights(result.layout)
    np.testing.assert_allclose(np.sum(shares, axis=0), 1)
    for tile, share in zip(result.tiles, shares, strict=True):
        top, left, bottom, right = tile.box
        window = slice(top, bottom), slice(left, right)
        wanted[window] += share[window] * spread(tile.result.heatmap, tile.box)
    assert result.heatmap.sum() == pytest.approx(wanted.sum(), abs=1e-5)
    # Cell by cell: the pixel grid summed up between the cells' edges, a cumulative sum being linear within a pixel.
    total = np.zeros((size[0] + 1, size[1] + 1))
    total[1:, 1:] = wanted.cumsum(axis=0).cumsum(axis=1)
    edges = [np.linspace(0, side, cells + 1) for side, cells in zip(size, result.heatmap.shape, strict=True)]
    columns = np.array([np.interp(edges[1], np.arange(size[1] + 1), row) for row in total])
    both = np.array([np.interp(edges[0], np.arange(size[0] + 1), column) for column in columns.T]).T
    np.testing.assert_allclose(result.heatmap, np.diff(np.diff(both, axis=0), axis=1), atol=1e-5)


def test_without_overlap_the_heatmap_adds_up_to_the_sum_of_the_tiles_scores(
    open_tiled: Callable[..., Any], frame: np.ndarray
) -> None:
    session = open_tiled(tiles=(3, 4), overlap=0)
    for result in session(frame, explain=[None, 0, 1, 2, 3]):
        scores = [tile.result.logits[result.explained_index] - tile.result.logits.mean() for tile in result.tiles]
        assert result.heatmap.sum() + result.base == pytest.approx(sum(scores), abs=1e-4)
        assert result.heatmap.shape == (6, 12)


def test_one_tile_is_the_frame(open_tiled: Callable[..., Any], frame: np.ndarray, reference: Reference) -> None:
    result = open_tiled(tiles=(1, 1))(frame)
    pixels = np.asarray(Image.fromarray(frame).resize((48, 32), Image.Resampling.BICUBIC))
    logits, heatmaps, _ = reference(pixels[None], [-1])
    np.testing.assert_allclose(result.heatmap, heatmaps[0], atol=1e-5)
    np.testing.assert_allclose(result.logits, logits[0], atol=1e-5)
    assert result.heatmap.sum() + result.base == pytest.approx(logits[0].max() - logits[0].mean(), abs=1e-5)


def test_padding_of_tiles_is_neither_seen_nor_counted(open_tiled: Callable[..., Any]) -> None:
    """Tiles of 64 x 48 pixels in an input of 32 x 48: half of it is padding, the middle patch of three and half of the
    others' columns lie in the tile."""
    frame = np.random.default_rng(8).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    result = open_tiled(tiles=(1, 2), overlap=0, fit="pad")(frame, explain=0)
    whole = open_tiled(fit="pad")
    inside = 0.0
    for tile in result.tiles:
        top, left, bottom, right = tile.box
        alone = whole(frame[top:bottom, left:right], explain=0)
        np.testing.assert_allclose(tile.result.heatmap, alone.heatmap, atol=1e-5)
        assert alone.view.seen == (0, 0, 64, 48)
        inside += float((alone.heatmap * [0.25, 1.0, 0.25]).sum())
    assert result.heatmap.sum() == pytest.approx(inside, abs=1e-4)
    assert result.heatmap.shape == (2, 3)
    assert np.isfinite(result.heatmap_on()).all()


@pytest.fixture
def two_things() -> np.ndarray:
    """uint8 [80, 120, 3]: red, with something blue in the tile at the bottom right of 2 x 2."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[..., 0] = 200
    pixels[40:, 60:] = (60, 0, 250)
    return pixels


def test_the_strongest_tile_counts(open_tiled: Callable[..., Any], two_things: np.ndarray) -> None:
    session = open_tiled(tiles=(2, 2), overlap=0)
    result = session(two_things)
    assert [tile.label for tile in result.tiles] == ["red thing"] * 3 + ["blue thing"]
    probabilities = np.array([tile.result.probabilities for tile in result.tiles])
    np.testing.assert_array_equal(result.probabilities, probabilities.max(axis=0))
    assert result.score == probabilities.max()
    assert {label for label, _ in result.top(2)} == {"red thing", "blue thing"}
    assert dict(result.top(4))["blue thing"] == result.tiles[3].score
    blue = session(two_things, explain="blue thing")
    assert blue.strongest is blue.tiles[3]
    assert blue.label == result.label
    assert blue.logits[2] == blue.tiles[3].result.logits[2]
    (box, *_) = blue.boxes(0.6)
    assert (box.top, box.left) >= (35, 53)


def test_every_tile_explains_the_frame_s_class(open_tiled: Callable[..., Any], two_things: np.ndarray) -> None:
    """Only the tile that predicts another class is run again."""
    session = open_tiled(tiles=(2, 2), overlap=0)
    passes: list[list[int]] = []
    run = session._backend.run

    def counted(image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        passes.append(explain_class.tolist())
        return run(image, explain_class)

    session._backend.run = counted
    result = session(two_things)
    others = sum(tile.label != result.label for tile in result.tiles)
    assert passes == [[-1] * 4, [result.index] * others]
    assert {tile.result.explained for tile in result.tiles} == {result.label}
    assert result.explained == result.label
    np.testing.assert_array_equal(result.heatmap, session(two_things, explain=result.label).heatmap)
    passes.clear()
    session(two_things, explain=["red thing", 2])
    assert passes == [[0] * 4, [2] * 4]


def test_frames_of_every_kind_agree(open_tiled: Callable[..., Any], frame: np.ndarray, tmp_path: Path) -> None:
    session = open_tiled(tiles=(2, 3), overlap=0.15, roi=[(10, 10, 150, 60)])
    wanted = session(frame)
    Image.fromarray(frame).save(tmp_path / "frame.png")
    np.save(tmp_path / "frame.npy", frame)
    mapped = np.load(tmp_path / "frame.npy", mmap_mode="r")
    for source in (tmp_path / "frame.png", Image.fromarray(frame), mapped, frame[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(session(source).heatmap, wanted.heatmap)
    turned = session(np.ascontiguousarray(frame[..., ::-1]), color="bgr")
    np.testing.assert_array_equal(turned.heatmap, wanted.heatmap)
    np.testing.assert_array_equal(turned.overlay(frame[..., ::-1])[..., ::-1], wanted.overlay(frame))
    palette = Image.fromarray(frame).quantize(64)
    np.testing.assert_array_equal(session(palette).heatmap, session(np.asarray(palette.convert("RGB"))).heatmap)


def test_pixels_are_read_from_the_frame_itself(open_tiled: Callable[..., Any], frame: np.ndarray) -> None:
    """A tile's frame is a view of the array, or reads regions of the picture: nothing is copied for it."""
    from edgex.runtime.frames import as_frame

    part = as_frame(frame).part(10, 20, 50, 90)
    assert np.shares_memory(part.region(0, 40, 0, 70), frame)
    np.testing.assert_array_equal(part.rgb(), frame[10:50, 20:90])
    picture = Image.fromarray(frame)
    part = as_frame(picture).part(10, 20, 50, 90)
    assert part.source is picture
    np.testing.assert_array_equal(part.part(1, 2, 30, 40).region(3, 7, 4, 8), frame[14:18, 26:30])


def test_a_list_of_frames_of_several_sizes(open_tiled: Callable[..., Any], frame: np.ndarray) -> None:
    session = open_tiled(tiles=(2, 2))
    frames = [frame, frame[:70], frame[:, :51]]
    for found, single in zip(session(frames, explain=[None, 1, 2]), frames, strict=True):
        wanted = session(single, explain=found.explained_index)
        np.testing.assert_allclose(found.heatmap, wanted.heatmap, atol=1e-6)
        assert found.view.frame_size == single.shape[:2]
    assert session([]) == []
    assert session(frame, explain=[]) == []


@pytest.mark.parametrize("box", [(20, 10, 110, 70), (0, 0, 160, 90), (0.125, 0.5, 0.5, 1.0)])
def test_a_region_without_tiles_is_what_the_model_sees(
    open_tiled: Callable[..., Any], frame: np.ndarray, reference: Reference, box: tuple[float, ...]
) -> None:
    result = open_tiled(roi=box)(frame)
    scale = (160, 90, 160, 90) if max(box) <= 1 else (1, 1, 1, 1)
    left, top, right, bottom = (round(side * factor) for side, factor in zip(box, scale, strict=True))
    pixels = np.asarray(Image.fromarray(frame[top:bottom, left:right]).resize((48, 32), Image.Resampling.BICUBIC))
    logits, heatmaps, bases = reference(pixels[None], [-1])
    np.testing.assert_allclose(result.heatmap, heatmaps[0], atol=1e-5)
    assert result.base == pytest.approx(bases[0], abs=1e-5)
    assert result.score == result.tiles[0].score
    assert result.heatmap.sum() + result.base == pytest.approx(logits[0].max() - logits[0].mean(), abs=1e-5)
    heat = result.heatmap_on(frame)
    assert np.isfinite(heat[top:bottom, left:right]).all()
    assert np.isfinite(heat).sum() == (bottom - top) * (right - left)
    for found in result.boxes():
        assert top <= found.top < found.bottom <= bottom
        assert left <= found.left < found.right <= right


@pytest.mark.parametrize("tiles", [None, (3, 4)])
def test_nothing_is_reported_outside_of_the_regions(
    open_tiled: Callable[..., Any], frame: np.ndarray, tiles: tuple[int, int] | None
) -> None:
    from edgex.runtime.tiling.roi import mask

    polygons = [((10, 5), (80, 20), (30, 80)), ((60, 10), (150, 15), (150, 85), (70, 60))]
    result = open_tiled(tiles=tiles, roi=polygons)(frame, explain="red thing")
    inside = mask(polygons, *frame.shape[:2])
    np.testing.assert_array_equal(np.isfinite(result.heatmap_on()), inside)
    drawn = result.overlay(frame)
    np.testing.assert_array_equal(drawn[~inside], frame[~inside])
    assert (drawn[inside] != frame[inside]).any()
    # Evidence of one logit per pixel adds up to the regions' area, whatever parts overlap.
    areas = [np.full(GRID, (t.box[2] - t.box[0]) * (t.box[3] - t.box[1]) / 6) for t in result.tiles]
    assert result.layout.stitching.stitch(areas).sum() == pytest.approx(inside.sum(), rel=0.02)


@pytest.mark.parametrize("colormap", ["plasma", "signed"])
def test_the_floor_of_an_overlay_is_the_median_of_what_was_looked_at(
    open_tiled: Callable[..., Any], frame: np.ndarray, colormap: str
) -> None:
    """Two small regions far apart: most cells between them hold nothing."""
    result = open_tiled(roi=[(0, 0, 60, 45), (100, 45, 160, 90)])(frame, explain="red thing")
    looked_at = result.layout.stitching.keep > 0
    result.heatmap = np.where(looked_at, np.abs(result.heatmap) + 0.1, 0).astype(np.float32)
    floor = float(np.median(result.heatmap[looked_at]))
    assert np.median(result.heatmap) < 0.1 < floor
    drawn = result.overlay(frame, colormap)
    np.testing.assert_array_equal(drawn, result.overlay(frame, colormap, floor=floor))
    assert (drawn != result.overlay(frame, colormap, floor=0.0)).any()


def test_a_frame_of_another_size_is_refused_for_drawing(open_tiled: Callable[..., Any], frame: np.ndarray) -> None:
    result = open_tiled(tiles=(2, 2))(frame)
    with pytest.raises(ImageError, match="expected the frame that was explained, 160x90"):
        result.overlay(frame[:50])


def test_json(open_tiled: Callable[..., Any], two_things: np.ndarray) -> None:
    result = open_tiled(tiles=(2, 2), overlap=0, roi=(0, 0, 120, 80))(two_things, explain="blue thing")
    found = result.to_dict()
    assert found["tiles"][3] == {
        "box": [40, 60, 80, 120],
        "label": "blue thing",
        "index": 2,
        "score": result.tiles[3].score,
        "explained_score": result.tiles[3].score,
    }
    assert found["roi"] == [[[0, 0], [120, 0], [120, 80], [0, 80]]]
    assert found["seen"] == [0, 0, 80, 120]
    assert found["heatmap"]["shape"] == [4, 6]
    assert '"tiles"' in result.to_json()


def test_a_copy_cuts_as_the_session_does(open_tiled: Callable[..., Any], frame: np.ndarray) -> None:
    session = open_tiled(tiles=(2, 3), roi=[(0.1, 0.1, 0.9, 0.9)])
    copied = pickle.loads(pickle.dumps(session))
    np.testing.assert_array_equal(copied(frame).heatmap, session(frame).heatmap)


def test_files_that_share_classes_are_tiled_alike(
    open_tiled: Callable[..., Any],
    make_model: Callable[..., Path],
    make_graph: Callable[..., onnx.ModelProto],
    frame: np.ndarray,
) -> None:
    own: dict[str, Any] = {
        "explain_class": (TensorProto.INT64, ["M"]),
        "heatmap": (TensorProto.FLOAT, ["M", 2, 3]),
        "base": (TensorProto.FLOAT, ["M"]),
    }
    sharing: Any = Session(make_model("m.onnx", make_graph(**own)), "cpu", tiles=(2, 3))
    plain = open_tiled(tiles=(2, 3))
    for asked in ([None, 3], [2, 0, 2]):
        for found, wanted in zip(sharing(frame, explain=asked), plain(frame, explain=asked), strict=True):
            np.testing.assert_allclose(found.heatmap, wanted.heatmap, atol=1e-6)
            assert found.explained == wanted.explained
            assert [tile.box for tile in found.tiles] == [tile.box for tile in wanted.tiles]
    passes: list[int] = []
    run = sharing._backend.run

    def counted(image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        passes.append(len(image))
        return run(image, explain_class)

    sharing._backend.run = counted
    sharing(frame, explain=[0, 1, 2, 3])
    assert passes == [1] * 6


def test_labels_of_a_multi_label_model_are_those_of_any_tile(
    make_model: Callable[..., Path], two_things: np.ndarray
) -> None:
    path = make_model(activation="sigmoid", thresholds=[0.9, 0.9, 0.9, 0.999])
    result: Any = Session(path, "cpu", tiles=(2, 2), overlap=0)(two_things)
    assert result.multi_label
    assert [tile.result.labels()[0][0] for tile in result.tiles] == ["red thing"] * 3 + ["blue thing"]
    assert {label for label, _ in result.labels()} == {"red thing", "blue thing"}
    assert len(result.to_dict()["labels"]) == 2


def test_too_small_a_frame_is_refused_when_it_comes(open_tiled: Callable[..., Any]) -> None:
    with pytest.raises(ImageError, match="expected tiles of at least 3x2 pixels"):
        open_tiled(tiles=(3, 4))(np.zeros((4, 6, 3), np.uint8))
