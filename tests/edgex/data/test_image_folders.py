from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgex.data import image_folders
from edgex.errors import DataError, ImageError
from edgex.runtime.preprocessing import Preprocessing
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
    aligned = image_folders.aligned(found, order, tmp_path)
    assert [order[label] for label in aligned.labels] == [found.classes[label] for label in found.labels]
    with pytest.raises(DataError, match="class 'blue disc' that the model does not know; did you mean blue disk"):
        image_folders.aligned(found, ("red disc", "blue disk", "green square"), tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        image_folders.labelled(tmp_path / "absent")
    with pytest.raises(DataError, match="expected class folders with pictures"):
        image_folders.labelled(tmp_path)
    picture_folder(tmp_path, {"": 1})
    (tmp_path / "empty class").mkdir()
    with pytest.raises(DataError, match="empty class has no pictures"):
        image_folders.labelled(tmp_path)
    with pytest.raises(DataError, match="expected pictures in"):
        image_folders.loose([tmp_path / "empty class"])


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torn.png"
    draw("red disc", 0).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"cannot read picture .*torn\.png"):
        image_folders.open_picture(path)


def test_a_batch_is_what_preprocessing_makes_of_each(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        draw("blue disc", index).save(path)
    batch = image_folders.load_batch(paths, PREPROCESSING)
    assert batch.shape == (2, 32, 48, 3)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch[1], PREPROCESSING.array(image_folders.open_picture(paths[1])))
