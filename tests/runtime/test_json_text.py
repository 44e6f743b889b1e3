from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgex.errors import DataError
from edgex.runtime import ArtefactError
from edgex.runtime.json_text import MAX_DEPTH, parse_json, read_json, read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, true, null, "ü"]}', {"a": [1, 2.5, True, None, "ü"]}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
        ('{"' + "[" * 500 + '": "' + "{" * 500 + '"}', {"[" * 500: "{" * 500}),
        ('{"\\"' + "[" * 500 + '\\\\": 1}', {'"' + "[" * 500 + "\\": 1}),
        ("[" + "[]," * 500 + "[]]", [[]] * 501),
        ("7", 7),
    ],
)
def test_json_that_is_as_it_should_be(text: str, value: object) -> None:
    found = parse_json(text.encode(), "a.json")
    assert found == (value if value is not None else found)
    assert parse_json(text.removeprefix("\ufeff"), "a.json") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "expected JSON, found something else in line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "in line 2, column 6"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": NaN}', "finite numbers, found NaN"),
        (b'{"a": [-Infinity]}', "finite numbers, found -Infinity"),
        (b'{"a": 1e999}', "finite numbers, found 1e999"),
        (b"[" + b"9" * 5000 + b"]", "a.json: .*digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "each key of an object once, found 'c' twice"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"at most {MAX_DEPTH} levels"),
        (b"[" * 200_000, f"at most {MAX_DEPTH} levels"),
        (b'{"a":' * 200_000, f"at most {MAX_DEPTH} levels"),
        (b'["' + b'\\"' * 200_000 + b"[" * 100, "Unterminated string"),
        ("ü".encode("latin-1"), "UTF-8, found the byte 0xfc in line 1: save it as UTF-8"),
        ('{"a": 1,\n"b": "ü"}'.encode("latin-1"), "0xfc in line 2"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8, found the byte 0xff in line 1"),
        (b'{"a": "' + b"x" * 1000 + b'"}', "at most 512 bytes of JSON, found 1009"),
    ],
)
def test_json_that_is_refused_in_one_line(text: bytes, message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(DataError, match=message) as raised:
        parse_json(text, "a.json", limit=512 if len(text) == 1009 else 10**7, error=DataError)
    assert str(raised.value).startswith("a.json: ") and "\n" not in str(raised.value)
    assert time.perf_counter() - started < 2


def test_files(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "bom.json") == {"a": 1}
    assert read_json(str(tmp_path / "bom.json"), limit=11) == {"a": 1}
    assert read_text(tmp_path / "bom.json") == '{"a": 1}'
    for read in (read_json, read_text):
        with pytest.raises(ArtefactError, match=r"bom\.json: expected at most 10 bytes of text, found more"):
            read(tmp_path / "bom.json", limit=10)
        with pytest.raises(DataError, match=r"none\.json: .*No such file"):
            read(tmp_path / "none.json", error=DataError)
        with pytest.raises(ArtefactError, match="Is a directory"):
            read(tmp_path)
        with pytest.raises(ArtefactError, match="null byte"):
            read(tmp_path / "a\0b")


def test_a_file_without_an_end_is_read_up_to_the_limit() -> None:
    with pytest.raises(ArtefactError, match="at most 1000 bytes"):
        read_text("/dev/zero", limit=1000)
