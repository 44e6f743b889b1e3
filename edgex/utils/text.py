"""Words for messages: suggestions for misspelt names. Imports nothing heavy.

The first line of an exception is `edgex.runtime.errors.first_line`, since the device needs it too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """ "; did you mean ...?" with the known names nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
