"""Classes of image folders: names of folders, names.json and a model's classes agree by one rule."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgex.data import image_folders
from edgex.data.class_names import display_names, places_among
from edgex.errors import DataError
from pictures import draw


def class_folders(root: Path, *names: str | bytes) -> Path:
    """A folder of class folders with a picture each."""
    for name in names:
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        draw("red disc", 0).save(folder / "0.png")
    return root


def test_folders_are_named_as_models_store_names(tmp_path: Path) -> None:
    found = image_folders.labelled(class_folders(tmp_path, b"fissur\xe9", "cafe\u0301", "\ufeffdog ", "a\x1b[2Jb"))
    assert set(found.classes) == {r"fissur\udce9", "caf\u00e9", "dog", r"a\x1b[2Jb"}
    assert len(set(found.labels)) == 4


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("cat", "cat "), "folders 'cat' and 'cat ' in .* have the same name 'cat'"),
        (("caf\u00e9", "cafe\u0301"), r"'cafe\\u0301' and 'caf\\xe9' in .* the same name 'caf\u00e9'"),
        ((r"\udce9", b"\xe9"), r"'\\\\udce9' and '\\udce9' in .* the same name '\\udce9'"),
        (("cat", "\u200b"), r"class folder '.*\\u200b' has no name that can be seen"),
    ],
)
def test_two_folders_of_one_name_are_refused(names: tuple[str | bytes, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        image_folders.labelled(class_folders(tmp_path, *names))


def test_names_json_finds_its_folders_in_every_spelling(tmp_path: Path) -> None:
    root = class_folders(tmp_path, "cafe\u0301", "14")
    names = {"caf\u00e9": "coffee", "14": "Stop\u200b "}
    (root / "names.json").write_text(json.dumps(names), encoding="utf-8-sig")
    assert image_folders.labelled(root).classes == ("Stop", "coffee")


@pytest.mark.parametrize("names", [{"a": "stop", "b": "stop"}, {"a": "b"}, {"a": "stop", "b": "\ufeffstop"}])
def test_names_json_that_makes_one_class_of_two_folders_is_refused(names: dict[str, str], tmp_path: Path) -> None:
    root = class_folders(tmp_path, "a", "b")
    (root / "names.json").write_text(json.dumps(names), encoding="utf-8")
    with pytest.raises(DataError, match="folders 'a' and 'b' in .* have, by names.json, the same name"):
        image_folders.labelled(root)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"caf\u00e9": "x", "cafe\u0301": "y"}', r"names one class folder twice: 'caf\\xe9' and 'cafe\\u0301'"),
        ('{"a": 1}', "map folder names to class names"),
        ('["a"]', "map folder names to class names"),
        ('{"a"', "expected JSON"),
        ('{"a": " "}', "no name that can be seen in names.json: give it one there"),
    ],
)
def test_unusable_names_json_is_refused(content: str, words: str, tmp_path: Path) -> None:
    root = class_folders(tmp_path, "a")
    (root / "names.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        image_folders.labelled(root)
    assert display_names(tmp_path / "a" / "b") == {}


def test_folders_find_the_classes_of_a_model(tmp_path: Path) -> None:
    assert places_among(["dog", "caf\u00e9"], ["\ufeffcafe\u0301", "Dog"], tmp_path) == [1, 0]
    assert places_among(["dog", "Dog"], ["Dog", "dog"], tmp_path) == [1, 0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["blue disc"], "a class 'blue disc' that the model does not know; did you mean blue disk?"),
        (["crane"], r"a class 'crane', and several of the model's classes have that name: \[1, 2\]"),
        (["blue disk", "Blue Disk"], "'blue disk' and 'Blue Disk' are both the class 'blue disk'"),
    ],
)
def test_folders_without_a_class_of_their_own_are_refused(names: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        places_among(names, ["blue disk", "crane", "crane"], tmp_path)
