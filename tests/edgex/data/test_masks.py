"""Masks on the patch grid: boxes and PNG masks against coverage that is computed from geometry alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from wrong_values import with_wrong_values

from edgex.data.crops import Folder
from edgex.data.image_folders import list_images
from edgex.data.masks import Masks, annotations_of, masked_crops
from edgex.errors import DataError, ImageError
from edgex.runtime.preprocessing import Preprocessing
from pictures import draw

PREPROCESSING = Preprocessing((64, 64), 72, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
GRID = (4, 4)
BOX = (30, 20, 90, 85)
ORIENTATION = 0x0112
"""EXIF tag."""


def picture(path: Path, size: tuple[int, int] = (140, 120)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw("red disc", 0, size=size[1]).resize(size).save(path)
    return path


def masked(root: Path, *, crops: int = 1, parallel: Path | None = None, seed: int = 0) -> Masks:
    folder = Folder(root, list_images([root]), crops)
    return masked_crops([folder], [parallel], PREPROCESSING, GRID, crop_scale=0.5, seed=seed)


def covered(box: tuple[float, float, float, float]) -> np.ndarray:
    """Share of each 16-pixel patch inside a box of the model's own coordinates."""
    shares = []
    for low, high in ((box[1], box[3]), (box[0], box[2])):
        edges = np.arange(5) * 16
        shares.append(np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, 16) / 16)
    return np.outer(*shares).ravel()


def in_the_centre_crop(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    crop = PREPROCESSING.view(size[1], size[0])
    (top, left), (bottom, right) = crop.to_model(box[1], box[0]), crop.to_model(box[3], box[2])
    return covered((left, top, right, bottom))


def test_boxes_follow_resize_and_crop(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a" / "1.png")
    picture(tmp_path / "train" / "b" / "2.png", (100, 170))
    picture(tmp_path / "train" / "b" / "unmarked.png")
    boxes = {"train/a/1.png": [list(BOX)], "train/b/2.png": [[5, 40, 70, 60], [5, 60, 70, 130]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    found = masked(tmp_path / "train")
    assert found.crops.picture.tolist() == [0, 1]
    assert np.allclose(found.coverage[0], in_the_centre_crop(BOX, (140, 120)), atol=0.02)
    assert np.allclose(found.coverage[1], in_the_centre_crop((5, 40, 70, 130), (100, 170)), atol=0.02)


def test_borders_of_padded_pictures_are_no_object(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", (160, 80))
    (tmp_path / "boxes.json").write_text(json.dumps({"1.png": [[0, 0, 80, 80]]}))
    folder = Folder(tmp_path, list_images([tmp_path]), 1)
    (found,) = masked_crops([folder], [None], PREPROCESSING.fitted("pad"), GRID, crop_scale=0.5, seed=0).coverage
    assert np.allclose(found.reshape(GRID), [[0] * 4, [1, 1, 0, 0], [1, 1, 0, 0], [0] * 4], atol=0.02)


def test_pictures_may_be_links_to_elsewhere(tmp_path: Path) -> None:
    kept, folder = picture(tmp_path / "kept" / "1.png"), tmp_path / "chosen"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.png").symlink_to(kept)
    (folder / "boxes.json").write_text(json.dumps({"train/a.png": [list(BOX)]}))
    assert np.allclose(masked(folder / "train").coverage[0], in_the_centre_crop(BOX, (140, 120)), atol=0.02)
    (tmp_path / "linked").symlink_to(folder / "train", target_is_directory=True)
    assert torch.equal(masked(tmp_path / "linked").coverage, masked(folder / "train").coverage)


def test_random_crops_and_mirrors_move_the_box_with_the_picture(tmp_path: Path) -> None:
    """A picture that is white inside its box: its own crops show where the box went."""
    pixels = np.zeros((120, 140, 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"1.png": [list(BOX)]}))
    found = masked(tmp_path, crops=12)
    assert len(found) == 12
    seen = torch.cat(list(found.crops.batches(5)))[..., 0].float() / 255
    patches = seen.reshape(12, 4, 16, 4, 16).mean(dim=(2, 4)).flatten(1)
    assert torch.allclose(found.coverage, patches, atol=0.03)
    assert len({tuple(row.tolist()) for row in found.coverage}) == 12


def test_png_masks_beside_or_in_a_parallel_folder(tmp_path: Path) -> None:
    mask = Image.new("L", (140, 120))
    mask.paste(1, BOX)  # anything but black belongs to the object
    first, second = picture(tmp_path / "data" / "a" / "cat.png"), picture(tmp_path / "data" / "b" / "dog.jpg")
    mask.save(first.with_name("cat.mask.png"))
    expected = in_the_centre_crop(BOX, (140, 120))
    assert list_images([tmp_path / "data"]) == (first, second), "a mask is no picture"
    found = masked(tmp_path / "data")
    assert found.crops.picture.tolist() == [0]
    assert np.allclose(found.coverage[0], expected, atol=0.02)
    (tmp_path / "masks" / "b").mkdir(parents=True)
    mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "masks" / "b" / "dog.png")
    found = masked(tmp_path / "data", parallel=tmp_path / "masks")
    assert found.crops.picture.tolist() == [0, 1]
    assert np.allclose(found.coverage[1].reshape(4, 4), expected.reshape(4, 4)[:, ::-1], atol=0.02)


def test_a_rotation_by_exif_turns_the_mask_as_well(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown a quarter turn clockwise
    pixels = np.zeros((120, 140, 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "1.jpg", exif=exif, quality=95)
    (tmp_path / "boxes.json").write_text(json.dumps({"1.jpg": [list(BOX)]}))
    found = masked(tmp_path)
    seen = PREPROCESSING.array(Image.open(tmp_path / "1.jpg"))[..., 0] / 255
    assert np.allclose(found.coverage[0], seen.reshape(4, 16, 4, 16).mean(axis=(1, 3)).ravel(), atol=0.04)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_by_the_pictures_orientation_or_by_its_own(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.zeros((12, 14), np.uint8)
    stored[2:5, 3:11] = 255
    Image.fromarray(stored).save(tmp_path / "1.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "1.png")))
    for own in (False, True):
        Image.fromarray(stored).save(tmp_path / "1.mask.png", exif=exif if own else None)
        mask = annotations_of(tmp_path).mask(tmp_path / "1.png")
        assert mask is not None
        assert np.array_equal(np.asarray(mask), upright), f"orientation of the mask's own: {own}"
    Image.fromarray(upright).save(tmp_path / "1.png")
    mask = annotations_of(tmp_path).mask(tmp_path / "1.png")
    assert mask is not None
    assert np.array_equal(np.asarray(mask), upright), "the mask alone has an orientation"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "I"])
def test_whatever_is_not_black_is_the_object_in_every_mode(tmp_path: Path, mode: str) -> None:
    picture(tmp_path / "1.png")
    object_at = np.zeros((120, 140), np.uint8)
    object_at[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    if mode.startswith("I"):
        mask = Image.fromarray(object_at.astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode == "P":
        mask = Image.fromarray(object_at)
        mask.putpalette([0, 0, 0, 128, 0, 0])
    else:
        mask = Image.fromarray(object_at * np.uint8(255 if mode == "1" else 1)).convert(mode)
    mask.save(tmp_path / "1.mask.png", format="TIFF" if mode == "I" else "PNG")
    found = annotations_of(tmp_path).mask(tmp_path / "1.png")
    assert found is not None
    assert np.array_equal(np.asarray(found), object_at * 255)


def test_crops_without_a_shape_are_left_out(tmp_path: Path) -> None:
    for name in ("whole", "none", "some"):
        picture(tmp_path / f"{name}.png")
    boxes = {"whole.png": [[0, 0, 140, 120]], "none.png": [], "some.png": [list(BOX)]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    found = masked(tmp_path)
    assert [found.crops.paths[i].name for i in found.crops.picture.tolist()] == ["some.png"]


def test_every_wrong_value_in_boxes_json_is_refused_or_drawn(tmp_path: Path) -> None:
    path = picture(tmp_path / "1.png")
    for what, changed in with_wrong_values({"1.png": [[-30, 20, 1000, 100.5], [1, 2, 3, 4]]}):
        try:
            (tmp_path / "boxes.json").write_text(json.dumps(changed))
            mask = annotations_of(tmp_path).mask(path)
        except DataError as error:
            assert str(tmp_path / "boxes.json") in str(error) and str(error).isprintable(), what
            continue
        assert mask is None or mask.size == (140, 120), what
        assert (mask is None) == ("1.png" not in changed), what
    (tmp_path / "boxes.json").write_text('{"1.png": [[-1e300, 20, 1e300, 100], [0.1, 0.1, 0.2, 0.2]]}')
    mask = annotations_of(tmp_path).mask(path)
    assert mask is not None
    expected = np.zeros((120, 140), np.uint8)
    expected[20:100] = 255
    assert np.array_equal(np.asarray(mask), expected)


def test_bad_annotations_are_refused(tmp_path: Path) -> None:
    first = picture(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"masks or boxes of the pictures in .*add <picture>.mask.png or boxes"):
        masked(tmp_path)
    with pytest.raises(DataError, match="folder of masks at .*absent, found nothing"):
        annotations_of(tmp_path, tmp_path / "absent")
    for text, message in (
        ("{", r"boxes.json: expected JSON, found something else in line 1"),
        ("[]", "expected an object, found a list of 0; map each picture's path to"),
        (
            '{"1.png": [[1, 2, 3]]}',
            r"\['1.png'\]\[0\]: expected a list of 4, found a list of 3; .* \[\[left, top, right, bottom\], ...\]",
        ),
        ('{"1.png": 7}', r"\['1.png'\]: expected a list, found 7"),
    ):
        (tmp_path / "boxes.json").write_text(text)
        with pytest.raises(DataError, match=message):
            masked(tmp_path)
    (tmp_path / "boxes.json").unlink()
    Image.new("L", (14, 12)).save(first.with_name("1.mask.png"))
    with pytest.raises(DataError, match=r"1.mask.png is 14x12 px, its picture 1.png 140x120"):
        masked(tmp_path)
    first.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="expected a picture .JPEG, PNG"):
        masked(tmp_path)
