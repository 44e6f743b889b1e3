"""Names for people and for JSON, whatever characters they hold."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from edgex.runtime.printable import printable, printable_json

OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
STEERING = "".join(
    c
    for c in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in OVERRIDES
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Käfer 猫 🚗 می‌خواهم", "Käfer 猫 🚗 می‌خواهم"),
        ("C:\\new", "C:\\new"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\x1b[2Jcat", r"\x1b[2Jcat"),
        ("\x9b2Jcat\x7f", r"\x9b2Jcat\x7f"),
        ("\u202egpj.cat", r"\u202egpj.cat"),
        ("\ufeffcat\u200b", r"\ufeffcat\u200b"),
        ("fissur\udce9", r"fissur\udce9"),
        ("tag\U000e0001", r"tag\U000e0001"),
    ],
)
def test_what_steers_or_hides_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_every_character_that_steers_is_escaped() -> None:
    assert len(STEERING) > 2048
    assert printable(STEERING).isascii()
    assert printable(STEERING).isprintable()


@pytest.mark.parametrize("encoding", [None, "utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("text", ["Käfer", "猫\x1b[2J", "🚗\x9b\u202e\u2028", "fissur\udce9\ufeff"])
def test_json_keeps_its_value_in_every_encoding(text: str, encoding: str | None) -> None:
    shown = printable_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2), encoding)
    shown.encode(encoding or "utf-8")
    assert json.loads(shown) == {text: [text]}
    assert printable(shown.replace("\n", "")) == shown.replace("\n", "")


def test_json_is_readable_where_the_encoding_allows() -> None:
    assert printable_json('"Käfer"', "cp1252") == '"Käfer"'
    assert printable_json('"🚗"', "cp1252") == r'"\ud83d\ude97"'
