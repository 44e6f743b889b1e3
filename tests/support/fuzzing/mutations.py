"""Damage to bytes and to JSON, drawn from a `random.Random` that hypothesis steers, so that failures can be shrunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**64 - 1)
_NUMBERS = (b"0", b"-1", b"1e309", b"1e38", b"NaN", b"-Infinity", b"9" * 30, b"9" * 5000, b"0.1", b"1_0", b"true")
_TEXTS = (
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0",
    b"\r\n",
    b"\x1b[31m",
    "\u202e".encode(),
    "\u200b".encode(),
    b"\xed\xa0\x80",
    b"../../",
    b"%s%n",
    b"{" * 100_000,
    b"[" * 100_000,
    b'"' * 3,
    b"=HYPERLINK(1)",
)

_DEEP: list[Any] = []
for _ in range(500):
    _DEEP = [_DEEP]
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    7,
    0.5,
    1e39,
    1e308,
    float("nan"),
    float("inf"),
    10**30,
    2**63,
    "",
    " ",
    "a",
    "cat",
    "x" * 5000,
    "\x1b[31mred",
    "a\nb",
    "\u202eabc",
    "\ud800",
    "../../x",
    "0" * 64,
    [],
    [0],
    ["a"],
    [[]],
    [None],
    [1, 2, 3],
    {},
    {"a": 1},
    {"": {}},
    _DEEP,
)
"""What stands in for a value of JSON: every type, and extremes of each."""


def damaged(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to three kinds of damage, one after the other; others: files to splice with."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(_DAMAGE)(random, data, others)
    return data


def position(random: Random, data: bytes) -> int:
    """A place in a file: its head, where the structure stands, is hit as often as all the rest."""
    size = len(data)
    limit = random.choice((16, 128, 1024, size, size, size))
    place = random.randrange(min(limit, size) + 1)
    # Some formats keep their directory at the end.
    return size - place if random.random() < 0.25 else place


def _flip(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    del others
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[min(position(random, data), len(data) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: position(random, data)]


def _insert(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place, new = position(random, data), bytes(random.randrange(256) for _ in range(random.choice((1, 2, 4, 16))))
    return data[:place] + new + data[place:]


def _remove(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place = position(random, data)
    return data[:place] + data[place + random.choice((1, 2, 4, 64, 4096)) :]


def _repeat(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place, length = position(random, data), random.choice((1, 8, 64, 1024))
    return data[:place] + data[place : place + length] * random.choice((2, 3, 50)) + data[place + length :]


def _splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return data[: position(random, data)] + other[position(random, other) :]


def _length(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A number of some width at some place becomes an extreme one."""
    width = random.choice((1, 2, 4, 8))
    order: Literal["little", "big"] = random.choice(("little", "big"))
    place = position(random, data)
    value = random.choice(_EXTREMES) % (1 << 8 * width)
    return data[:place] + value.to_bytes(width, order) + data[place + width :]


def _fill(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place, length = position(random, data), random.choice((2, 8, 64, 1024))
    return data[:place] + bytes([random.choice((0, 0x20, 0x41, 0xFF))]) * length + data[place + length :]


def _text(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place = position(random, data)
    return data[:place] + random.choice(_TEXTS) + data[place:]


def _number(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A run of digits becomes an extreme number."""
    start = position(random, data)
    while start < len(data) and not data[start : start + 1].isdigit():
        start += 1
    end = start
    while end < len(data) and data[end : end + 1].isdigit():
        end += 1
    return data[:start] + random.choice(_NUMBERS) + data[end:] if end > start else data + b"0"


_DAMAGE: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flip,
    _flip,
    _truncate,
    _insert,
    _remove,
    _repeat,
    _splice,
    _length,
    _length,
    _fill,
    _text,
    _number,
)


def changed_json(random: Random, value: Any) -> Any:
    """The same JSON with one or two values replaced, removed, repeated or renamed."""
    for _ in range(random.choice((1, 1, 2))):
        value = _changed(random, value)
    return value


def _changed(random: Random, value: Any) -> Any:
    """Descends to a random place, deeper more often than not, and changes it."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(sorted(value))
        rest = dict(value)
        action = random.choice(("change", "change", "change", "change", "remove", "rename", "add"))
        if action == "remove":
            del rest[key]
        elif action == "rename":
            rest[random.choice(("", "\x1b[31m", key.upper() + " ", "../" + key))] = rest.pop(key)
        elif action == "add":
            rest[random.choice(("extra", "\ud800", "x" * 3000))] = random.choice(VALUES)
        else:
            rest[key] = _changed(random, rest[key])
        return rest
    if isinstance(value, list) and value and random.random() < 0.7:
        index = random.randrange(len(value))
        action = random.choice(("change", "change", "remove", "repeat", "many"))
        if action == "change":
            return [*value[:index], _changed(random, value[index]), *value[index + 1 :]]
        if action == "remove":
            return [*value[:index], *value[index + 1 :]]
        return [*value, *[value[index]] * (1 if action == "repeat" else 3000)]
    return random.choice(VALUES)


def json_text(random: Random, value: Any) -> str:
    """JSON, written in one of the ways that are allowed, or twice over in one object."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 1)))
    if isinstance(value, dict) and value and random.random() < 0.1:
        key = random.choice(sorted(value))
        text = text[: text.rindex("}")] + f", {json.dumps(key)}: {json.dumps(random.choice(VALUES))}}}"
    return text


def encoded(text: str) -> bytes:
    """UTF-8; a lone surrogate, which JSON can hold in escapes, is written as the three bytes that UTF-8 forbids."""
    return text.encode("utf-8", "surrogatepass")
