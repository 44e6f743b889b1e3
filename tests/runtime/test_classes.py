"""When two class names are the same, and which class is meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgex.runtime import UsageError
from edgex.runtime.classes import ClassIndex, class_key, class_name, describe_twins, find_twins

INDEX = ClassIndex(("crane", "crane", "Stork", "stork", "Grey Heron"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\ufeffcat\r", "cat"),
        ("ca\u200bt\u00ad", "cat"),
        ("  traffic \t\u00a0light\u2028", "traffic light"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u1100\u1161", "\uac00"),
        ("fissur\udce9", r"fissur\udce9"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egod", r"\u202egod"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\ufeff \u200b", ""),
        ("Cat", "Cat"),
        ("ｃａｔ", "ｃａｔ"),
    ],
)
def test_names_as_they_are_stored(text: str, name: str) -> None:
    assert class_name(text) == name
    assert class_name(name) == name, "stored names stay"
    assert class_key(text) == class_key(name)


@pytest.mark.parametrize(("first", "second"), [("Cat", "cat"), ("cat", "ｃａｔ"), ("ﬁn", "fin"), ("ca t", "cat")])
def test_other_names(first: str, second: str) -> None:
    assert class_key(first) != class_key(second)
    assert find_twins([first, second]) is None


@pytest.mark.parametrize(
    ("first", "second", "described"),
    [
        ("crane", "crane", "'crane' and 'crane'"),
        ("cat", "\ufeffcat", r"'cat' and '\ufeffcat'"),
        ("caf\u00e9", "cafe\u0301", r"'caf\xe9' and 'cafe\u0301'"),
        ("می\u200cخواهم", "میخواهم", r"\u200c"),
        ("cat", "cat ", "'cat' and 'cat '"),
    ],
)
def test_twins_are_told_apart_in_messages(first: str, second: str, described: str) -> None:
    assert find_twins(["dog", first, "bird", second]) == (1, 3)
    assert described in describe_twins(first, second)


@pytest.mark.parametrize(
    "name, number",
    [
        ("Stork", 2),
        ("stork", 3),
        ("\ufeffStork ", 2),
        ("grey heron", 4),
        ("ＧＲＥＹ heron", 4),
        (0, 0),
        (4, 4),
        ("1", 1),
        (np.int64(1), 1),
    ],
)
def test_names_and_positions(name: Any, number: int) -> None:
    found = INDEX.number(name)
    assert found == number
    assert type(found) is int


def test_digits_are_names_where_a_class_has_a_number_for_a_name() -> None:
    digits = ClassIndex(("1", "2", "3"))
    assert digits.number("1") == 0
    with pytest.raises(UsageError, match="found '0'"):
        digits.number("0")


def test_a_model_that_was_made_with_an_unclean_name_finds_it_by_the_clean_one() -> None:
    assert ClassIndex(("\ufeffcat", "cafe\u0301")).number("cat") == 0
    assert ClassIndex(("\ufeffcat", "cafe\u0301")).number("caf\u00e9") == 1


@pytest.mark.parametrize(
    "name, words",
    [
        ("gray heron", "5 classes, found 'gray heron'; did you mean 'Grey Heron'"),
        ("zzz", "found 'zzz'; their names begin with 'crane', 'crane', 'Stork'"),
        ("crane", r"unique class name, found 'crane' at the numbers \[0, 1\]"),
        ("STORK", r"found 'STORK' at the numbers \[2, 3\]"),
        (5, "from 0 to 4, found 5"),
        ("5", "from 0 to 4, found 5"),
        (-1, "from 0 to 4, found -1"),
        (True, "found True"),
        (1.0, "found 1.0"),
        (None, "found None"),
    ],
)
def test_unknown_and_ambiguous_names_are_refused(name: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        INDEX.number(name)
