"""Reads text and JSON that came from elsewhere: UTF-8, of bounded size and depth, every key of an object once.

Every card, every metadata entry and every file of class names, boxes or configuration is read through here, so that a
file that was made by mistake or on purpose costs one line and little memory. What the values have to be is checked in
`schema`; what edgex writes is made elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from edgex.runtime.errors import ArtefactError, EdgexError

MAX_BYTES = 16 << 20
"""Of one text. JSON of this size takes at most half a GB of Python objects."""
MAX_DEPTH = 64
"""Objects and lists within each other."""

_STRING = re.compile(r'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_NO_BRACKET = re.compile(r"[^][{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def read_text(path: str | os.PathLike[str], *, limit: int = MAX_BYTES, error: type[EdgexError] = ArtefactError) -> str:
    """The text of a file in UTF-8; a byte-order mark at its start is dropped.

    limit: the largest size in bytes. error: what is raised for a file that cannot be read, is larger or is no UTF-8.
    """
    return decoded(_read(Path(path), limit, error), str(path), error=error)


def read_json(path: str | os.PathLike[str], *, limit: int = MAX_BYTES, error: type[EdgexError] = ArtefactError) -> Any:
    """The value in a JSON file; arguments and errors as of `read_text` and `parse_json`."""
    return parse_json(_read(Path(path), limit, error), str(path), limit=limit, error=error)


def parse_json(
    text: str | bytes | bytearray | memoryview,
    name: str,
    *,
    limit: int = MAX_BYTES,
    error: type[EdgexError] = ArtefactError,
) -> Any:
    """The value that JSON text stands for: dict, list, str, int, float, bool or None.

    name: opens the error messages. limit: the largest size, in bytes, or characters of a str. error: what is raised
    for text that is larger, is no UTF-8 or no JSON (RFC 8259: NaN and infinity are no numbers, and neither is one that
    a float cannot hold), repeats a key of an object, or is nested deeper than MAX_DEPTH.
    """
    if len(text) > limit:
        raise error(f"{name}: expected at most {limit} bytes of JSON, found {len(text)}")
    if not isinstance(text, str):
        text = decoded(text, name, error=error)
    if _depth(text) > MAX_DEPTH:
        raise error(f"{name}: expected JSON of at most {MAX_DEPTH} levels, found deeper nesting")
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_number, object_pairs_hook=_object)
    except json.JSONDecodeError as found:
        raise error(
            f"{name}: expected JSON, found something else in line {found.lineno}, column {found.colno} ({found.msg})"
        ) from None
    except ValueError as found:
        raise error(f"{name}: {found}") from None


def decoded(data: bytes | bytearray | memoryview, name: str, *, error: type[EdgexError] = ArtefactError) -> str:
    """Bytes as text in UTF-8, without a byte-order mark; `error` where they are no UTF-8."""
    data = bytes(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as found:
        line = data.count(b"\n", 0, found.start) + 1
        raise error(
            f"{name}: expected text in UTF-8, found the byte 0x{data[found.start]:02x} in line {line}: save it as UTF-8"
        ) from None


def _read(path: Path, limit: int, error: type[EdgexError]) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as found:
        reason = getattr(found, "strerror", None) or found
        raise error(f"{path}: expected a file that can be read, found: {reason}") from None
    if len(data) > limit:
        raise error(f"{path}: expected at most {limit} bytes of text, found more")
    return data


def _depth(text: str) -> int:
    """How many brackets outside of strings are open at once, at most."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text))
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"expected each key of an object once, found {repeated[:80]!r} twice")
    return found


def _number(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits)


def _no_number(word: str) -> float:
    raise ValueError(f"expected JSON with finite numbers, found {word[:40]}")
