"""Tables of labels beside pictures: which labels each picture has, from a CSV or JSON file.

| file | content |
|---|---|
| .csv | `file,labels`: the labels of a picture with ";" between them, none where it has none |
| .csv | `file,<class>,<class>,...`: a column for each class, 0 or 1; a header that names the classes comes first |
| .json | `{"<file>": ["<label>", ...], ...}` |

Files are named relative to the folder of pictures. What is made of a table is in `edgex.data.multi_label`.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgex.errors import DataError
from edgex.runtime import schema
from edgex.runtime.classes import class_key, class_name
from edgex.runtime.json_text import read_json, read_text

_FILE_HEADINGS = ("file", "filename", "file_name", "image", "path", "picture")
_LABEL_HEADINGS = ("label", "labels", "class", "classes", "tags")
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}
_SEPARATOR = ";"
_SHAPES = f"'file,labels' with '{_SEPARATOR}' between labels, or 'file,<class>,<class>,...' with 0 and 1 below"


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """What a file says of pictures.

    path: of the file. classes: the names, as columns have them or in alphabetical order. labels: file, as it is named
    there -> positions among the classes, in rising order.
    """

    path: Path
    classes: tuple[str, ...]
    labels: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class _Row:
    """One picture's labels. place: where the file says it, for messages, or ""."""

    file: str
    names: tuple[str, ...]
    place: str = ""


def read_labels(path: str | os.PathLike[str]) -> LabelTable:
    """The labels in a CSV or JSON file, see the module.

    Raises DataError for a file that cannot be read or is laid out otherwise, with the line, and for one that names a
    picture twice or has no labels.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".json"):
        raise DataError(f"expected labels in a .csv or .json file, found {path}", argument="labels")
    try:
        rows, columns = _csv_rows(path) if kind == ".csv" else (_json_rows(path), None)
    except DataError as error:
        error.argument = "labels"
        raise
    seen: dict[str, _Row] = {}
    for row in rows:
        first = seen.setdefault(os.path.normpath(row.file), row)
        if first is not row:
            places = f" (lines {first.place} and {row.place})" if row.place else ""
            raise DataError(f"{path} has labels for '{row.file}' twice{places}: leave one out", argument="labels")
    spelt: dict[str, str] = {}
    for name in columns if columns is not None else [name for row in rows for name in row.names]:
        spelt.setdefault(class_key(name), class_name(name))
    keys = list(spelt) if columns is not None else sorted(spelt, key=spelt.__getitem__)
    if not keys:
        raise DataError(f"{path} gives no picture a label: expected {_SHAPES}", argument="labels")
    places_of = {key: place for place, key in enumerate(keys)}
    labels = {file: tuple(sorted({places_of[class_key(n)] for n in row.names})) for file, row in seen.items()}
    return LabelTable(path, tuple(spelt[key] for key in keys), labels)


def _json_rows(path: Path) -> list[_Row]:
    advice = "map each file to the list of its labels"
    check = schema.keyed(schema.listed(schema.text))
    found = schema.checked(check, read_json(path, error=DataError), str(path), advice=advice, error=DataError)
    for file, names in found.items():
        if not all(map(class_key, names)):
            raise DataError(f"{path}: '{file}' has a label without a name")
    return [_Row(file, names) for file, names in found.items()]


def _csv_rows(path: Path) -> tuple[list[_Row], list[str] | None]:
    """The rows, and the classes where each has a column."""
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path} is empty: expected {_SHAPES}")
    _, heading = lines[0]
    headed = heading[0].strip().casefold() in _FILE_HEADINGS
    listed = not headed or (len(heading) == 2 and heading[1].strip().casefold() in _LABEL_HEADINGS)
    body = lines[1:] if headed else lines
    if listed:
        return [_listed(path, number, cells) for number, cells in body], None
    columns = [name.strip() for name in heading[1:]]
    if not columns or not all(map(class_key, columns)):
        raise DataError(f"{path}: expected the name of a class over every column, found {heading}")
    if len(set(map(class_key, columns))) < len(columns):
        raise DataError(f"{path}: expected a class in one column, found one in two")
    return [_flagged(path, number, cells, columns) for number, cells in body], columns


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is not empty."""
    reader = csv.reader(read_text(path, error=DataError).splitlines(), skipinitialspace=True)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _listed(path: Path, number: int, cells: Sequence[str]) -> _Row:
    if len(cells) > 2:
        raise DataError(
            f"{path}, line {number}: expected a file and its labels, found {len(cells)} columns: use {_SHAPES}"
        )
    names = cells[1].split(_SEPARATOR) if len(cells) == 2 else []
    return _Row(_file(path, number, cells[0]), tuple(name for name in names if class_key(name)), str(number))


def _flagged(path: Path, number: int, cells: Sequence[str], columns: Sequence[str]) -> _Row:
    if len(cells) != len(columns) + 1:
        raise DataError(
            f"{path}, line {number}: expected {len(columns) + 1} columns as in the header, found {len(cells)}"
        )
    chosen = []
    for name, cell in zip(columns, cells[1:], strict=True):
        if (flag := _FLAGS.get(cell.strip().casefold())) is None:
            raise DataError(f"{path}, line {number}: expected 0 or 1 for '{name}', found '{cell[:60]}'")
        if flag:
            chosen.append(name)
    return _Row(_file(path, number, cells[0]), tuple(chosen), str(number))


def _file(path: Path, number: int, cell: str) -> str:
    if not cell.strip():
        raise DataError(f"{path}, line {number}: expected the name of a file first, found none")
    return cell.strip()
