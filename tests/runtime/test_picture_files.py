from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from edgex.runtime import ImageError, picture_files
from edgex.runtime.frames import read_picture
from edgex.runtime.picture_files import (
    BROKEN,
    HIDDEN,
    LOOPS,
    PICTURE_FORMATS,
    REFUSED,
    describe,
    find_pictures,
    is_picture,
    is_sequence,
    list_pictures,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize(
    "name, picture", [("a.JPG", True), ("b/c.tiff", True), ("a.txt", False), ("jpg", False), ("a.png.part", False)]
)
def test_what_a_picture_is_called(name: str, picture: bool) -> None:
    assert is_picture(name) is is_picture(Path(name)) is picture


@pytest.mark.parametrize("suffix", sorted(PICTURE_FORMATS))
def test_every_suffix_is_found_in_small_and_capital_letters_and_read(tmp_path: Path, suffix: str) -> None:
    kind = PICTURE_FORMATS[suffix]
    if kind == "HEIF" and not picture_files.load_heif_plugin():
        pytest.skip("the package pillow-heif is not installed")
    if not features.check(picture_files._OPTIONAL.get(kind, "zlib")):
        pytest.skip(f"this Pillow was built without {kind}")
    image = Image.fromarray(PIXELS).convert({".pbm": "1", ".pgm": "L", ".gif": "P"}.get(suffix, "RGB"))
    for name in (f"a{suffix}", f"B{suffix.upper()}"):
        image.save(tmp_path / name, format="MPO" if suffix == ".mpo" else kind)
    found = list_pictures(tmp_path)
    assert [path.name for path in found] == [f"B{suffix.upper()}", f"a{suffix}"]
    for path in found:
        assert read_picture(path).shape == PIXELS.shape
    if kind in ("PNG", "BMP", "TIFF") or suffix == ".ppm":
        assert np.array_equal(read_picture(found[0]), PIXELS)


def test_a_folders_pictures_are_listed_by_path_without_masks(tmp_path: Path) -> None:
    names = ("b/2.PNG", "b/10.jpeg", "a.bmp", "c.gif/inside.webp")
    pictures = touch(tmp_path, *names)
    touch(tmp_path, "a.mask.png", "b/2.mask.png", "boxes.json", "names.json")
    found = find_pictures(str(tmp_path))
    assert list(found.pictures) == sorted(pictures) == list_pictures(tmp_path)
    assert found.passed_over == Counter(), "masks and boxes belong to the pictures"


def test_hidden_and_system_files_are_passed_over_at_every_depth(tmp_path: Path) -> None:
    pictures = touch(tmp_path, "a.jpg", "x/y/b.jpg")
    hidden = ("._a.jpg", ".DS_Store", "__MACOSX/._a.jpg", "x/.ipynb_checkpoints/b-checkpoint.jpg", "x/y/Thumbs.db")
    touch(tmp_path, *hidden, "x/y/desktop.ini", "x/@eaDir/b.jpg/thumb.jpg", "x/y/._b.jpg", "x/.hidden/c.jpg")
    found = find_pictures(tmp_path)
    assert list(found.pictures) == pictures
    assert found.passed_over == Counter({HIDDEN: 9})


def test_a_folder_that_is_hidden_itself_can_be_named(tmp_path: Path) -> None:
    (picture,) = touch(tmp_path, ".shots/a.jpg")
    assert list_pictures(tmp_path / ".shots") == [picture]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    stored = touch(tmp_path / "store", "day2/0.jpg", "day2/deep/1.jpg", "single.jpg")
    touch(tmp_path / "set", "day1/0.jpg")
    (tmp_path / "set" / "day2").symlink_to("../store/day2")
    (tmp_path / "set" / "one.jpg").symlink_to(stored[2])
    (tmp_path / "all").symlink_to("set")
    wanted = ["day1/0.jpg", "day2/0.jpg", "day2/deep/1.jpg", "one.jpg"]
    for root in (tmp_path / "set", tmp_path / "all"):
        found = find_pictures(root)
        assert [path.relative_to(root).as_posix() for path in found.pictures] == wanted
        assert not found.passed_over


def test_no_folder_is_listed_twice_and_no_link_leads_in_a_circle(tmp_path: Path) -> None:
    pictures = touch(tmp_path, "a/b/0.jpg", "z/1.jpg")
    touch(tmp_path.parent / f"{tmp_path.name} beside", "no.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    (tmp_path / "a" / "b" / "here").symlink_to(".")
    (tmp_path / "out").symlink_to("..")
    (tmp_path / "a" / "again").symlink_to("../z")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "gone.jpg").symlink_to("nothing")
    found = find_pictures(tmp_path)
    assert list(found.pictures) == pictures, "a picture keeps the path without a link"
    assert found.passed_over == Counter({LOOPS: 4, BROKEN: 2})


def test_two_links_to_one_folder_count_once(tmp_path: Path) -> None:
    touch(tmp_path, "store/0.jpg")
    (tmp_path / "set").mkdir()
    for name in ("first", "second"):
        (tmp_path / "set" / name).symlink_to("../store")
    found = find_pictures(tmp_path / "set")
    assert list(found.pictures) == [tmp_path / "set" / "first" / "0.jpg"]
    assert found.passed_over == Counter({LOOPS: 1})


def test_links_that_lead_round_through_another_folder_end(tmp_path: Path) -> None:
    touch(tmp_path, "one/0.jpg", "two/1.jpg")
    (tmp_path / "one" / "other").symlink_to("../two")
    (tmp_path / "two" / "other").symlink_to("../one")
    found = find_pictures(tmp_path / "one")
    assert [path.relative_to(tmp_path / "one").as_posix() for path in found.pictures] == ["0.jpg", "other/1.jpg"]
    assert found.passed_over == Counter({LOOPS: 1})


def test_other_files_are_counted_by_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.txt", "b/c.TXT", "b/d.csv", "README")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find_pictures(tmp_path)
    assert [path.name for path in found.pictures] == ["a.jpg"]
    assert found.passed_over == Counter({".txt": 2, ".csv": 1, "without a suffix": 1, "no files": 1})
    assert describe(found.passed_over).startswith("5 files or folders passed over (.txt: 2, ")


def test_a_pillow_without_a_format_passes_its_files_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "b.avif", "c.HEIC")
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    monkeypatch.setattr(Image, "OPEN", {name: opener for name, opener in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    found = find_pictures(tmp_path)
    assert [path.name for path in found.pictures] == ["a.jpg"]
    assert describe(found.passed_over) == (
        "2 files or folders passed over (.avif, which this Pillow cannot read: 1, .heic, for which Pillow needs the "
        "package pillow-heif: 1)"
    )
    (tmp_path / "c.HEIC").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="; HEIC pictures need the package pillow-heif"):
        read_picture(tmp_path / "c.HEIC")


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        assert find_pictures(tmp_path).passed_over == Counter({REFUSED: 1})
        with pytest.raises(PermissionError):
            find_pictures(tmp_path / "locked")
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_long_list_of_reasons_is_added_up() -> None:
    passed_over = Counter({f".{letter}": 9 - place for place, letter in enumerate("abcdefg")})
    assert describe(passed_over) == "42 files or folders passed over (.a: 9, .b: 8, .c: 7, .d: 6, .e: 5, others: 7)"
    assert describe(Counter()) == ""


@pytest.mark.parametrize("name, sequence", [("p_%03d.jpg", True), ("%d.png", True), ("50% off.jpg", False)])
def test_patterns_of_image_sequences_are_known(tmp_path: Path, name: str, sequence: bool) -> None:
    assert is_sequence(tmp_path / name) is sequence
    (tmp_path / name).touch()
    assert not is_sequence(tmp_path / name), "a file of that name is a file"
