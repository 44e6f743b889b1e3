"""Class names from text and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgex.errors import ArtefactError, UsageError
from edgex.importers.class_heads import parse_classes


def test_classes_are_listed_or_read_from_a_file(tmp_path: Path) -> None:
    assert parse_classes("cat, dog,traffic light") == ("cat", "dog", "traffic light")
    lines = tmp_path / "names.txt"
    lines.write_text("cat\n\ndog, large\n", encoding="utf-8")
    assert parse_classes(f"@{lines}") == ("cat", "dog, large")
    listed = tmp_path / "names.json"
    listed.write_text('["cat", "dog"]', encoding="utf-8")
    assert parse_classes(f"@{listed}") == ("cat", "dog")


@pytest.mark.parametrize("content", ["{", '{"0": "cat"}', "[1, 2]"])
def test_unusable_json_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="list of class names"):
        parse_classes(f"@{path}")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="cannot read class names"):
        parse_classes(f"@{tmp_path / 'none.txt'}")
