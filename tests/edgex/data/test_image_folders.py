from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex import prediction
from edgex.data import image_folders
from edgex.data.augmentation import augment
from edgex.errors import DataError, ImageError
from edgex.runtime.frames import as_frame
from edgex.runtime.preprocessing import Preprocessing
from edgex.runtime.watch.sources.folder import FolderSource
from pictures import COLOURS, draw, picture_folder

PREPROCESSING = Preprocessing((32, 48), 40, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_classes_are_the_folders_in_order_of_their_names(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"train": 2, "test": 1})
    found = image_folders.labelled(root, "train")
    assert found.classes == tuple(sorted(COLOURS))
    assert found.labels == (0, 0, 1, 1, 2, 2)
    assert all(path.parent.name == found.classes[label] for path, label in zip(found.paths, found.labels, strict=True))


def test_names_json_gives_display_names_to_every_split(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"train": 1})
    (root / "names.json").write_text(json.dumps({"red disc": "Stop"}))
    assert "Stop" in image_folders.labelled(root, "train").classes
    assert "Stop" in image_folders.labelled(root / "train").classes


def test_split_holds_some_of_every_class_out_and_loses_nothing(tmp_path: Path) -> None:
    found = image_folders.labelled(picture_folder(tmp_path, {"": 5}))
    rest, held = found.split(0.4, seed=3)
    assert sorted(rest.paths + held.paths) == sorted(found.paths)
    assert [held.labels.count(label) for label in range(3)] == [2, 2, 2]
    assert found.split(0.4, seed=3)[1].paths == held.paths


def test_aligned_maps_labels_by_name(tmp_path: Path) -> None:
    found = image_folders.labelled(picture_folder(tmp_path, {"": 1}))
    order = ("red disc", "other", "blue disc", "green square")
    aligned = image_folders.remap_labels(found, order, tmp_path)
    assert [order[label] for label in aligned.labels] == [found.classes[label] for label in found.labels]
    with pytest.raises(DataError, match="class 'blue disc' that the model does not know; did you mean blue disk"):
        image_folders.remap_labels(found, ("red disc", "blue disk", "green square"), tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        image_folders.labelled(tmp_path / "absent")
    with pytest.raises(DataError, match="expected class folders with pictures"):
        image_folders.labelled(tmp_path)
    picture_folder(tmp_path, {"": 1})
    (tmp_path / "empty class").mkdir()
    with pytest.raises(DataError, match="empty class: expected pictures .* in every class folder, found none"):
        image_folders.labelled(tmp_path)
    with pytest.raises(DataError, match=r"expected pictures \(.avif, .*\) in .*, found none"):
        image_folders.list_images([tmp_path / "empty class"])


def test_training_predicting_and_watching_find_the_same_pictures(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"": 2})
    draw("red disc", 9).save(root / "red disc" / "0.mask.png")
    (root / "notes.txt").touch()
    found = image_folders.list_images([root])
    assert len(found) == 6
    assert found == image_folders.labelled(root).paths == tuple(prediction._files([root]))
    source = FolderSource(root)
    source.open()
    names = []
    while (frame := source.read()) is not None:
        names.append(frame.name)
    assert names == [str(path) for path in found]


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torn.png"
    draw("red disc", 0).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"torn\.png: cannot be decoded"):
        image_folders.open_picture(path)


def written(folder: Path, mode: str) -> Path:
    """A picture file that Pillow opens in the given mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 4), dtype=np.uint8)
    deep = pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1]
    if mode == "RGB;16":
        # Pillow reads 16-bit colour in 8 bits: a file made of chunks, since it writes none.
        return png16(folder / "a.png", pixels[..., :3].astype(np.uint16) * 257)
    if mode.startswith("I;16"):
        image, name = Image.fromarray(deep.astype(">u2" if mode == "I;16B" else "<u2")), "a.tif"
    elif mode in ("I", "F"):
        image, name = Image.fromarray(deep.astype(np.int32 if mode == "I" else np.float32)), "a.tif"
    elif mode == "P with transparency":
        image, name = Image.fromarray(pixels[..., :3]).convert("P"), "a.png"
        image.info["transparency"] = 3
    elif mode in ("RGBA", "LA"):
        image, name = Image.fromarray(pixels).convert(mode), "a.png"
    elif mode == "CMYK":
        image, name = Image.fromarray(pixels, mode), "a.tif"
    else:
        image, name = Image.fromarray(pixels[..., :3]).convert(mode), "a.png"
    image.save(folder / name)
    return folder / name


def png16(path: Path, pixels: np.ndarray) -> Path:
    """Writes uint16 [H, W, 3] as a PNG file of 16 bits per channel (ISO/IEC 15948)."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)
    return path


MODES = ("1", "L", "LA", "P", "P with transparency", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I", "RGB;16")


@pytest.mark.parametrize("mode", MODES)
def test_training_and_the_device_read_the_same_pixels(tmp_path: Path, mode: str) -> None:
    path = written(tmp_path, mode)
    with Image.open(path) as image:
        assert image.mode == {"P with transparency": "P", "RGB;16": "RGB"}.get(mode, mode)
    read = image_folders.open_picture(path)
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), as_frame(path).rgb())
    whole = Preprocessing((11, 13), 11, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert np.array_equal(image_folders.load_batch([path], whole)[0], as_frame(path).rgb())


def test_a_palette_with_alpha_is_read_as_the_device_reads_it() -> None:
    """No format stores mode PA: it comes from a program that hands a picture over."""
    image = Image.fromarray(np.arange(90, dtype=np.uint8).reshape(9, 10)).convert("P").convert("PA")
    assert np.array_equal(PREPROCESSING.array(image), PREPROCESSING.array(image.convert("RGB")))


def test_floats_are_refused_by_both_readers(tmp_path: Path) -> None:
    path = written(tmp_path, "F")
    for read in (image_folders.open_picture, as_frame):
        with pytest.raises(ImageError, match=r"a\.tif: expected 8-bit or 16-bit pixels, found 32-bit floats"):
            read(path)


def test_sixteen_bits_are_the_same_greys_as_eight(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    for name in ("8.png", "16.png"):
        assert np.asarray(image_folders.open_picture(tmp_path / name)).mean() == 126
    eight, sixteen = image_folders.load_batch([tmp_path / "8.png", tmp_path / "16.png"], PREPROCESSING)
    assert np.array_equal(eight, sixteen)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_crops_are_upright_as_the_device_sees_them(tmp_path: Path, orientation: int) -> None:
    upright = np.random.default_rng(1).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    # What a camera stores so that the orientation's turn gives the upright picture (EXIF 2.32, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    turned, plain = (image_folders.open_picture(tmp_path / name) for name in ("turned.png", "upright.png"))
    assert np.array_equal(np.asarray(turned), upright)
    assert np.array_equal(as_frame(tmp_path / "turned.png").rgb(), upright)
    for seed in range(3):
        first, second = (
            augment(image, PREPROCESSING, (seed, 0), crop_scale=0.5, mirror=True) for image in (turned, plain)
        )
        assert np.array_equal(first, second)
    centre = image_folders.load_batch([tmp_path / "turned.png", tmp_path / "upright.png"], PREPROCESSING)
    assert np.array_equal(*centre)


def test_a_batch_is_what_preprocessing_makes_of_each(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        draw("blue disc", index).save(path)
    batch = image_folders.load_batch(paths, PREPROCESSING)
    assert batch.shape == (2, 32, 48, 3)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch[1], PREPROCESSING.array(image_folders.open_picture(paths[1])))


def test_what_is_passed_over_is_said_once(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"train": 2})
    for name in ("train/red disc/._0.png", "train/red disc/notes.txt", "train/__MACOSX/x.png", "train/list.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    said: list[str] = []
    assert len(image_folders.labelled(root, "train", report=said.append)) == 6
    assert said == [
        f"{root / 'train'}: 4 files or folders passed over (hidden or of the system: 2, beside the class "
        "folders: 1, .txt: 1)"
    ]
    said.clear()
    assert len(image_folders.list_images([root], report=said.append)) == 6
    assert len(said) == 1 and "4 files or folders passed over" in said[0]
    said.clear()
    prediction._files([root], said.append)
    assert len(said) == 1 and "4 files or folders passed over" in said[0]
    source = FolderSource(root)
    source.open()
    assert source.remark in said[0]


def test_class_folders_and_what_is_in_them_may_be_links(tmp_path: Path) -> None:
    stored = picture_folder(tmp_path / "store", {"": 3})
    root = tmp_path / "set"
    (root / "green square" / "day1").mkdir(parents=True)
    draw("green square", 9).save(root / "green square" / "day1" / "9.png")
    (root / "green square" / "day2").symlink_to(stored / "green square")
    (root / "red disc").symlink_to(stored / "red disc")
    (root / "green square" / "up").symlink_to("../..")
    (root / "all").symlink_to(".")
    said: list[str] = []
    found = image_folders.labelled(root, report=said.append)
    assert found.classes == ("green square", "red disc") and found.labels == (0, 0, 0, 0, 1, 1, 1)
    assert len(said) == 1 and "links to folders that are listed already: 2" in said[0]


def test_two_class_folders_that_are_one_are_refused(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"": 1})
    (root / "dark red disc").symlink_to("red disc")
    with pytest.raises(DataError, match="dark red disc and .*red disc are one folder: remove the link"):
        image_folders.labelled(root)


def test_the_true_cause_where_a_folder_is_expected(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    draw("red disc", 0).save(picture)
    for read in (image_folders.labelled, lambda path: image_folders.list_images([path])):
        with pytest.raises(DataError, match=r"a\.jpg, found a file: name a folder"):
            read(picture)
        with pytest.raises(DataError, match="the pattern of an image sequence: name the folder that it lies in"):
            read(tmp_path / "p_%03d.jpg")
