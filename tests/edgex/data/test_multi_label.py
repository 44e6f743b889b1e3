"""Pictures with several labels: how a table is laid over a folder, and how a share is held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgex.data.image_folders import Pictures
from edgex.data.label_tables import read_labels
from edgex.data.multi_label import MultiLabelPictures, for_model, labelled_by
from edgex.data.readable import ReadCheck
from edgex.errors import DataError, UsageError
from pictures import labelled_pictures, picture_folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """8 pictures in train and 4 in test with labels beside them."""
    return labelled_pictures(tmp_path / "data", {"train": 8, "test": 4})


def test_a_table_over_a_folder(table: Path) -> None:
    pictures = labelled_by(read_labels(table), table.parent, "train")
    assert [path.name for path in pictures.paths] == [f"{n}.png" for n in range(8)]
    assert pictures.classes == ("blue disc", "green square", "red disc")
    # Bits of the number: red disc, green square, blue disc.
    expected = np.array([[n >> 2 & 1, n >> 1 & 1, n & 1] for n in range(8)], np.float32)
    np.testing.assert_array_equal(pictures.targets, expected)
    assert pictures.shown == {0, 1, 2} and len(pictures.subset([1, 3])) == 2
    assert len(labelled_by(read_labels(table), table.parent)) == 12


def test_pictures_that_no_line_names_are_told(table: Path) -> None:
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(lines[:-2]), encoding="utf-8")
    said: list[str] = []
    assert len(labelled_by(read_labels(table), table.parent, "test", report=said.append)) == 2
    assert said == [f"{table.parent / 'test'}: 2 pictures are not in labels.csv and are left out"]


def test_pictures_that_are_not_there_are_named(table: Path) -> None:
    for number in range(2, 8):
        (table.parent / "train" / f"{number}.png").unlink()
    with pytest.raises(
        DataError, match=r"names 8 pictures of .*train, of which 6 are not there: .*2\.png.* and 3 more"
    ):
        labelled_by(read_labels(table), table.parent, "train")
    (table.parent / "empty").mkdir()
    with pytest.raises(DataError, match=r"names no picture of .*empty, its first is 'train/0\.png': name files"):
        labelled_by(read_labels(table), table.parent, "empty")
    with pytest.raises(DataError, match=r"expected a folder of pictures at .*elsewhere, found nothing"):
        labelled_by(read_labels(table), table.parent / "elsewhere")


def test_a_share_of_every_class_is_held_out() -> None:
    rng = np.random.default_rng(0)
    rows = [
        tuple(int(c) for c in np.flatnonzero(row)) for row in rng.random((200, 6)) < [0.5, 0.3, 0.1, 0.02, 0.2, 0.01]
    ]
    rows[0], rows[1] = (5,), (5, 0)
    pictures = MultiLabelPictures(tuple(Path(f"{i}.png") for i in range(200)), tuple(rows), tuple("abcdef"))
    rest, held = pictures.split(0.2, 3)
    assert {*rest.paths, *held.paths} == {*pictures.paths} and len(rest) + len(held) == 200
    assert rest.shown == held.shown == set(range(6))
    assert 30 <= len(held) <= 55
    assert pictures.split(0.2, 3) == (rest, held) and pictures.split(0.2, 4) != (rest, held)


def test_for_a_model(table: Path, tmp_path: Path) -> None:
    classes = ("green square", "blue disc", "red disc", "white dog")
    pictures = for_model(table.parent, classes, table, multi_label=True)
    assert isinstance(pictures, MultiLabelPictures) and pictures.classes == classes
    assert pictures.labels[3] == (0, 2)
    part = for_model(table.parent / "train", classes, table, multi_label=True)
    assert part == pictures.subset([i for i, path in enumerate(pictures.paths) if path.parent.name == "train"])
    with pytest.raises(DataError, match=r"labels\.csv has a class 'blue disc' that the model does not know; did you"):
        for_model(table.parent, ("blue disk", "green square", "red disc"), table, multi_label=True)
    with pytest.raises(UsageError, match="several labels: expected a .csv or .json file of the pictures' labels"):
        for_model(table.parent, classes, None, multi_label=True)
    folders = picture_folder(tmp_path / "folders", {"": 1})
    with pytest.raises(UsageError, match="one label: expected pictures in class folders, found"):
        for_model(folders, classes, table, multi_label=False)
    assert isinstance(for_model(folders, classes, None, multi_label=False), Pictures)


def test_bad_pictures_are_found_and_may_be_left_out(table: Path) -> None:
    (table.parent / "train" / "3.png").write_bytes(b"no picture")
    pictures = labelled_by(read_labels(table), table.parent, "train")
    with pytest.raises(DataError, match="1 of 8 pictures cannot be read"):
        ReadCheck().sets(pictures)
    (kept,) = ReadCheck(skip_bad=True).sets(pictures)
    assert len(kept) == 7 and kept.labels == pictures.labels[:3] + pictures.labels[4:]
