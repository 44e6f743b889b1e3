"""Names: suggestions for misspelt ones, and what a mask's file is called. Imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MASK_SUFFIX = ".mask.png"
"""What a picture's object mask beside it is called: cat.jpg -> cat.mask.png. A mask is no picture."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """ "; did you mean ...?" with the known names nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
