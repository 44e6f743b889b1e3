"""Finds the class that a user names: by its name or by its position among the logits."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from edgex.runtime.errors import UsageError


class ClassIndex:
    """The class names of a model, for look-up. Names need not be unique: ImageNet has two cranes."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def number(self, name: Any) -> int:
        """Position of the class.

        name: a class name, if need be in other capitals, or a position.

        Raises UsageError for an unknown or ambiguous name, with the nearest names, or a position out of range.
        """
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
            if 0 <= name < len(self.names):
                return int(name)
            raise UsageError(f"explain: expected a class from 0 to {len(self.names) - 1}, found {name}")
        if not isinstance(name, str):
            raise UsageError(f"explain: expected a class name, its number or None, found {name!r}")
        numbers = self._exact.get(name) or self._folded.get(name.casefold())
        if numbers is None:
            known = f"one of the model's {len(self.names)} classes"
            raise UsageError(f"explain: expected {known}, found {name!r}{self._hint(name)}")
        if len(numbers) > 1:
            raise UsageError(
                f"explain: expected a unique class name, found {name!r} at the numbers {numbers}; use one of them"
            )
        return numbers[0]

    @cached_property
    def _exact(self) -> dict[str, list[int]]:
        return _positions(self.names)

    @cached_property
    def _folded(self) -> dict[str, list[int]]:
        return _positions(tuple(name.casefold() for name in self.names))

    def _hint(self, name: str) -> str:
        import difflib  # here, since its import takes longer than everything else of this module

        near = difflib.get_close_matches(name.casefold(), list(self._folded), n=3, cutoff=0.5)
        names = [repr(self.names[self._folded[key][0]]) for key in near]
        return f"; did you mean {' or '.join(names)}?" if names else "; see session.classes"


def _positions(names: tuple[str, ...]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        positions.setdefault(name, []).append(number)
    return positions
