"""Words for messages: suggestions for misspelt names, lists that stay short. Imports nothing heavy.

The first line of an exception is `edgex.runtime.errors.first_line`, since the device needs it too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Report = Callable[[str], None]
"""Called with lines for people."""


def silent(text: str) -> None:
    """The report where the caller passes none."""


def listing(entries: Sequence[Any], *, most: int = 10, separator: str = ", ") -> str:
    """The first entries, and how many more there are."""
    shown = [str(entry) for entry in entries[:most]]
    if len(entries) > most:
        shown.append(f"and {len(entries) - most} more")
    return separator.join(shown)


def duration(seconds: float) -> str:
    """A time in words, to two units at most: "40 s", "12 min 5 s", "3 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    big, small, names = (
        (whole // 60, whole % 60, ("min", "s")) if whole < 3600 else (whole // 3600, whole % 3600 // 60, ("h", "min"))
    )
    return f"{big} {names[0]}" + (f" {small} {names[1]}" if small else "")


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """ "; did you mean ...?" with the known names nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
