"""Suggestions for misspelt names."""

from __future__ import annotations

from edgex.utils.text import nearest

KNOWN = ["cars", "cards", "imagenet", "flowers"]


def test_near_names_are_suggested() -> None:
    assert nearest("imagnet", KNOWN) == "; did you mean imagenet?"
    assert nearest("carss", KNOWN) == "; did you mean cars or cards?"
    assert nearest("carss", KNOWN, count=1) == "; did you mean cars?"


def test_nothing_near_says_nothing() -> None:
    assert nearest("zzz", KNOWN) == ""
    assert nearest("cars", []) == ""
