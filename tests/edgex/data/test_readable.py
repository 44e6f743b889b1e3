from __future__ import annotations

from pathlib import Path

import pytest

from edgex.data import image_folders
from edgex.data.crops import gather
from edgex.data.readable import ReadCheck
from edgex.errors import DataError
from pictures import draw, picture_folder


def tear(*paths: Path) -> None:
    """Cuts the files off in the middle of their pixels: their headers are whole."""
    for path in paths:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of three pictures in train and two in val, of which three are torn, in both."""
    root = picture_folder(tmp_path / "set", {"train": 3, "val": 2})
    tear(root / "train" / "red disc" / "1.png", root / "train" / "blue disc" / "0.png", root / "val/red disc/0.png")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_all_bad_pictures_of_all_sets_are_named_at_once(root: Path, workers: int) -> None:
    sets = [image_folders.labelled(root, name) for name in ("train", "val")]
    with pytest.raises(DataError, match="^3 of 15 pictures cannot be read: ") as caught:
        ReadCheck(workers=workers).sets(*sets)
    for name in ("train/blue disc/0.png: cannot be decoded", "train/red disc/1.png: ", "val/red disc/0.png: "):
        assert name in str(caught.value)
    assert caught.value.argument == "skip_bad"


def test_the_list_is_bounded(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"": 6})
    paths = image_folders.list_images([root])
    tear(*paths[:14])
    with pytest.raises(
        DataError, match=r"^14 of 18 pictures cannot be read: .*; and 4 more\. Mend or remove"
    ) as caught:
        ReadCheck().readable(paths)
    assert str(caught.value).count("cannot be decoded") == 10


def test_bad_pictures_are_skipped_where_that_is_asked_for(root: Path) -> None:
    said: list[str] = []
    sets = [image_folders.labelled(root, name) for name in ("train", "val")]
    train, val = ReadCheck(skip_bad=True, report=said.append).sets(*sets)
    assert (len(train), len(val)) == (7, 5)
    assert train.labels == (0, 0, 1, 1, 1, 2, 2) and val.labels == (0, 0, 1, 1, 2)
    assert all(image_folders.open_picture(path) for path in train.paths + val.paths)
    assert len(said) == 1 and said[0].startswith("left out, 3 of 15 pictures cannot be read: ")
    assert ReadCheck(skip_bad=True).lists(sets[1].paths, sets[1].paths) == [val.paths, val.paths]


def test_nothing_is_said_of_good_pictures(tmp_path: Path) -> None:
    paths = image_folders.list_images([picture_folder(tmp_path, {"": 2})])
    said: list[str] = []
    assert ReadCheck(report=said.append).lists(paths, ()) == [paths, ()]
    assert said == []


def test_a_class_without_a_picture_that_can_be_read_is_named(root: Path) -> None:
    tear(*(root / "train" / "green square").iterdir())
    sets = [image_folders.labelled(root, name) for name in ("train", "val")]
    with pytest.raises(DataError, match="^no picture of these classes can be read: 'green square'$"):
        ReadCheck(skip_bad=True).sets(*sets)


def test_a_set_without_a_picture_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    root = picture_folder(tmp_path, {"a": 1, "b": 1})
    tear(*image_folders.list_images([root / "a"]))
    with pytest.raises(DataError, match="^3 of 3 pictures cannot be read: "):
        ReadCheck(skip_bad=True).lists(image_folders.list_images([root / "a"]))
    with pytest.raises(DataError, match="not one of these pictures can be read: .*a/blue disc"):
        gather([root / "a", root / "b"], crops=[1], limit=None, check=ReadCheck(skip_bad=True))


def test_only_the_chosen_pictures_of_a_folder_are_checked(tmp_path: Path) -> None:
    for index in range(10):
        draw("red disc", index).save(tmp_path / f"{index}.png")
    tear(tmp_path / "3.png", tmp_path / "5.png")
    with pytest.raises(DataError, match=r"1 of 2 pictures .*5\.png"):
        gather([tmp_path], crops=[1], limit=2)
    (folder,) = gather([tmp_path], crops=[1], limit=2, check=ReadCheck(skip_bad=True))
    assert [path.name for path in folder.paths] == ["0.png"]
