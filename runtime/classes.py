"""Names of classes: when two of them are the same, and which class a name or a number stands for.

This is the one rule for class folders, names.json, lists of names at import, and the class that a user asks for:

- **The same name**: byte-order marks and other characters without a width do not count, white space at the ends does
  not count, white space inside counts as one space, and Unicode's composed and decomposed spellings are one (NFC).
  Bytes of a folder's name that are not UTF-8, and control characters, count as the escapes that they are shown as.
- **Another name**: capitals, and compatibility forms such as full-width letters, make another class: a model may have
  "Apple" and "apple".
- **Looking a name up** is more lenient: where no class has the name, the one that differs in capitals or compatibility
  forms only (NFKC, case folded) is found, unless there are two.

Training and import refuse two classes of one name. A model file may still hold some, such as ImageNet's two cranes: it
works, and such a class is asked for by its number. Unicode's forms: UAX 15.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edgex.runtime.errors import UsageError
from edgex.runtime.printable import printable

_WIDTHLESS = re.compile("[\xad\u180e\u200b\u2060-\u2064\ufeff]")
_JOINERS = re.compile("[\u200c\u200d]")


def class_name(text: str) -> str:
    """A class name as a new model stores it: without what does not count, see the module, and printable."""
    visible = " ".join(_WIDTHLESS.sub("", text).split())
    return printable(unicodedata.normalize("NFC", visible))


def class_key(name: str) -> str:
    """Equal for two names of the same class. Joiners, which spelling and emoji need, are kept in names but not here."""
    return class_name(_JOINERS.sub("", name))


def find_twins(names: Iterable[str]) -> tuple[int, int] | None:
    """Positions of two names of the same class, or None."""
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        first = seen.setdefault(class_key(name), position)
        if first != position:
            return first, position
    return None


def describe_twins(first: str, second: str) -> str:
    """Two names for a message, in ASCII with escapes where they are spelt differently but look the same."""
    return f"{first!r} and {second!r}" if first == second else f"{first!a} and {second!a}"


_LONGEST_NAME = 200
"""Characters of an unknown name that an error repeats."""


class ClassIndex:
    """The class names of a model, for look-up. Names need not be unique: ImageNet has two cranes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def numbers(self, name: str) -> list[int]:
        """Positions of the classes of this name, else of those that it matches leniently; there may be none."""
        return self._by_key.get(class_key(name)) or self._by_folded.get(_folded(name)) or []

    def number(self, name: Any) -> int:
        """Position of the class.

        name: a class name, or a position; digits in a string are a position where no class has a number for a name.

        Raises UsageError for an unknown or ambiguous name, with the nearest names, or a position out of range.
        """
        if isinstance(name, str) and name.isdecimal() and len(name) < 10 and not any(map(str.isdecimal, self._by_key)):
            name = int(name)
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
            if 0 <= name < len(self.names):
                return int(name)
            raise UsageError(f"expected a class from 0 to {len(self.names) - 1}, found {name}", argument="explain")
        if not isinstance(name, str):
            raise UsageError(f"expected a class name, its number or None, found {name!r}", argument="explain")
        numbers = self.numbers(name)
        if not numbers:
            known = f"one of the model's {len(self.names)} classes"
            found = repr(name) if len(name) <= _LONGEST_NAME else f"a name of {len(name)} characters"
            raise UsageError(f"expected {known}, found {found}{self._hint(name)}", argument="explain")
        if len(numbers) > 1:
            raise UsageError(
                f"expected a unique class name, found {name!r} at the numbers {numbers}; use one of them",
                argument="explain",
            )
        return numbers[0]

    @cached_property
    def _by_key(self) -> dict[str, list[int]]:
        return _positions(map(class_key, self.names))

    @cached_property
    def _by_folded(self) -> dict[str, list[int]]:
        return _positions(map(_folded, self.names))

    def near(self, name: str) -> list[str]:
        """Up to three names that are spelt much like a name that no class has, the nearest first."""
        import difflib  # here, since its import takes longer than everything else of this module

        near = difflib.get_close_matches(_folded(name), list(self._by_folded), n=3, cutoff=0.5)
        return [self.names[self._by_folded[key][0]] for key in near]

    def _hint(self, name: str) -> str:
        if names := list(map(repr, self.near(name))):
            return f"; did you mean {' or '.join(names)}?"
        return f"; their names begin with {', '.join(repr(first) for first in self.names[:3])}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", class_key(name)).casefold()


def _positions(keys: Iterable[str]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        positions.setdefault(key, []).append(number)
    return positions
