"""Copies of a card in which one value, at any depth, is of another kind than it should be."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "negative": -1,
    "fraction": 0.5,
    "large": 1e308,
    "huge": 10**400,
    "nan": math.nan,
    "infinity": -math.inf,
    "empty text": "",
    "text": "x",
    "half a pair": "\ud800",
    "control": "\x1b]0;x\x07\u202e",
    "empty list": [],
    "list": [7],
    "empty object": {},
    "object": {"a": 7},
    "nested": [[{"a": [{}]}]],
}


def with_wrong_values(card: Any) -> Iterator[tuple[str, Any]]:
    """(what is wrong, the changed copy) for each value of a card replaced by each of WRONG, and left out."""
    for path in _paths(card):
        for name, value in [*WRONG.items(), ("left out", ...)]:
            changed = copy.deepcopy(card)
            place = changed
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            yield f"{'.'.join(map(str, path))} {name}", changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value below this one; of a list, to its first and its last."""
    if path:
        yield path
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        keys = sorted({0, len(value) - 1})
    for key in keys:
        yield from _paths(value[key], (*path, key))
