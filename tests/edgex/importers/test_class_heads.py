"""Class names from text and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgex.errors import ArtefactError, UsageError
from edgex.importers.class_heads import class_names, parse_classes
from edgex.importers.configuration import Stated
from edgex.importers.settings import settle


def test_classes_are_listed_or_read_from_a_file(tmp_path: Path) -> None:
    assert parse_classes("cat, dog,traffic light") == ("cat", "dog", "traffic light")
    lines = tmp_path / "names.txt"
    lines.write_text("cat\n\ndog, large\n", encoding="utf-8")
    assert parse_classes(f"@{lines}") == ("cat", "dog, large")
    listed = tmp_path / "names.json"
    listed.write_text('["cat", "dog"]', encoding="utf-8")
    assert parse_classes(f"@{listed}") == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notepad.txt", "\ufeffcat\r\ndog, large\r\n\u200b\r\n"),
        ("old-mac.txt", "cat\rdog, large\r"),
        ("excel.CSV", '\ufeffcat\r\n"dog, large"\r\n'),
        ("powershell.json", '\ufeff["cat", "dog, large"]\r\n'),
    ],
)
def test_files_of_other_programs(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert parse_classes(f"@{path}") == ("cat", "dog, large")


def test_a_table_of_several_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("0,cat\n1,dog\n", encoding="utf-8")
    with pytest.raises(UsageError, match="expected one column of class names .* found 2: 0,cat"):
        parse_classes(f"@{path}")


def test_utf16_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\ndog\n", encoding="utf-16")
    with pytest.raises(ArtefactError, match=r"names\.txt: expected text in UTF-8, .*: save it as UTF-8"):
        parse_classes(f"@{path}")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("cat,dog,cat", "classes 0 and 2, counted from 0, have the same name: 'cat' and 'cat'"),
        ("cat,dog,\u200bcat", r"'cat' and '\\u200bcat'"),
        ("caf\u00e9,cafe\u0301", r"'caf\\xe9' and 'cafe\\u0301'"),
        ("cat,\ufeff", "every one with a name"),
        ("", "every one with a name"),
    ],
)
def test_classes_without_a_name_of_their_own_are_refused(classes: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        parse_classes(classes)
    assert raised.value.argument == "classes"


def test_two_classes_of_one_name_pass_where_the_model_has_them() -> None:
    assert class_names(["crane", "dog", "crane"], twins=True) == ("crane", "dog", "crane")
    stated = Stated(
        {"arch": "timm/test_vit", "classes": ("crane", "dog", "\ufeffcrane ")}, sources={"classes": "config.json"}
    )
    settled = settle(stated, {}, source="model.safetensors")
    assert settled.classes == ("crane", "dog", "crane")
    assert "classes 0 and 2 are both 'crane': ask for them by number" in settled.remarks
    given = {"classes": ("crane", "cafe\u0301")}
    stated = Stated({"arch": "timm/test_vit", "classes": ("crane", "caf\u00e9")}, sources={"classes": "config.json"})
    assert settle(stated, given, source="model.safetensors").classes == ("crane", "caf\u00e9")


@pytest.mark.parametrize("content", ['{"0": "cat"}', "[1, 2]"])
def test_unusable_json_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"names.json: (expected a list|\[0\]: expected text), found"):
        parse_classes(f"@{path}")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"none\.txt: expected a file that can be read"):
        parse_classes(f"@{tmp_path / 'none.txt'}")
    (tmp_path / "names.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"names\.json: expected JSON"):
        parse_classes(f"@{tmp_path / 'names.json'}")
