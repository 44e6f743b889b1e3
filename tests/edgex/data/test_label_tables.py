"""Tables of labels: every layout, and what is no table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgex.data.label_tables import read_labels
from edgex.errors import DataError

WANTED = {"a.jpg": ("car", "person"), "sub/b.jpg": ("person",), "c.jpg": ()}


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "file,labels\na.jpg,car;person\nsub/b.jpg,person\nc.jpg,\n"),
        ("excel.CSV", '\ufeffFilename,Tags\r\n"a.jpg","person; car"\r\n./sub/b.jpg,person;\r\n\r\nc.jpg\r\n'),
        ("bare.csv", "a.jpg,car;person;car\nsub/b.jpg,person\nc.jpg,\n"),
        ("columns.csv", "file,car,person\na.jpg,1,1\nsub/b.jpg,0,1\nc.jpg,0,0\n"),
        ("words.csv", "image, car , person\na.jpg,True,1.0\nsub//b.jpg,false,true\nc.jpg,0,0\n"),
        ("labels.json", json.dumps(WANTED)),
    ],
)
def test_every_layout_says_the_same(tmp_path: Path, name: str, content: str) -> None:
    table = read_labels(written(tmp_path, name, content))
    assert table.classes == ("car", "person")
    named = {file: tuple(table.classes[label] for label in labels) for file, labels in table.labels.items()}
    assert named == WANTED


def test_columns_keep_their_order_and_classes_that_no_picture_has(tmp_path: Path) -> None:
    table = read_labels(written(tmp_path, "t.csv", "file,zebra,ant\na.jpg,0,1\n"))
    assert table.classes == ("zebra", "ant") and table.labels == {"a.jpg": (1,)}
    single = read_labels(written(tmp_path, "one.csv", "file,defect\na.jpg,0\nb.jpg,1\n"))
    assert single.classes == ("defect",) and single.labels == {"a.jpg": (), "b.jpg": (0,)}


def test_spellings_of_one_class_are_one(tmp_path: Path) -> None:
    table = read_labels(written(tmp_path, "t.csv", "a.jpg,caf\u00e9\nb.jpg,cafe\u0301\nc.jpg, caf\u00e9\u200b \n"))
    assert table.classes == ("caf\u00e9",) and set(table.labels.values()) == {(0,)}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", "a.jpg,car\n", "expected labels in a .csv or .json file, found"),
        ("t.csv", "", "is empty: expected 'file,labels'"),
        ("t.csv", "file,labels\na.jpg,\n", "gives no picture a label: expected"),
        ("t.csv", "a.jpg,car,person\n", "line 1: expected a file and its labels, found 3 columns: use"),
        ("t.csv", "file,car,person\na.jpg,1\n", "line 2: expected 3 columns as in the header, found 2"),
        ("t.csv", "file,car,person\na.jpg,1,yes\n", "line 2: expected 0 or 1 for 'person', found 'yes'"),
        ("t.csv", "file,car\na.jpg,1\nb.jpg,car;person\n", "line 3: expected 0 or 1 for 'car', found 'car;person'"),
        ("t.csv", "file,car,\na.jpg,1,1\n", "expected the name of a class over every column"),
        ("t.csv", "file,car,car\na.jpg,1,1\n", "expected a class in one column, found one in two"),
        ("t.csv", "file,labels\n,car\n", "line 2: expected the name of a file first, found none"),
        ("t.csv", "a.jpg,car\n./a.jpg,person\n", r"has labels for './a.jpg' twice (lines 1 and 2): leave one out"),
        ("t.json", '{"a.jpg": ["car"], "x/../a.jpg": []}', "has labels for 'x/../a.jpg' twice: leave one out"),
        ("t.json", '{"a.jpg": ["car"], "a.jpg": []}', "expected each key of an object once, found 'a.jpg' twice"),
        ("t.json", '{"a.jpg": "car"}', "expected a list, found 'car'; map each file to the list of its labels"),
        ("t.json", '{"a.jpg": ["car", 3]}', "expected text, found 3; map each file"),
        ("t.json", '{"a.jpg": ["car", " "]}', "'a.jpg' has a label without a name"),
        ("t.json", '["a.jpg"]', "expected an object, found"),
        ("t.json", "{", "expected JSON, found something else"),
        ("t.csv", "a.jpg,caf\udce9", "expected text in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as raised:
        read_labels(path)
    assert raised.value.argument == "labels"
    assert said in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a file that can be read") as raised:
        read_labels(tmp_path / "absent.csv")
    assert raised.value.argument == "labels"
