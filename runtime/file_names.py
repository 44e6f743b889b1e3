"""Names that become files: what a model or a vector may be called, and what a class is called in the name of a file.

A name is one component of a path on every system, so that no name, whoever wrote it, leads out of its folder. How text
is shown is in `printable`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from edgex.runtime.errors import UsageError
from edgex.runtime.printable import printable

_MOST_BYTES = 200
"""Of a name; file systems allow 255 for the name with all that is put behind it."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""Devices of Windows, with every suffix: Microsoft, "Naming Files, Paths, and Namespaces"."""


def check_name(name: str, *, argument: str = "name", what: str = "a name") -> str:
    """Returns a name of a model or vector, which is one component of a path on every system.

    argument, what: of the error: the parameter of the public function that gives the name, and what it names.

    Raises UsageError for an empty name, separators (/, \\, :), a dot at the beginning, a dot or white space at an end,
    characters that `printable` escapes, more than 200 bytes, and the names of devices.
    """
    if reason := _refusal(name):
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        raise UsageError(f"expected {what} that can be that of a file, found {shown!r}, {reason}", argument=argument)
    return name


def name_of(out: str | os.PathLike[str], name: str | None = None) -> str:
    """What the model or vector in a file is called: the name given, else the file's without its suffix.

    A colon or backslash, which other systems have in names, such as that of a time, becomes a hyphen. Raises UsageError
    as `check_name`.
    """
    if name is None:
        name = re.sub(r"[:\\]", "-", Path(out).name.removesuffix(".safetensors"))
    return check_name(name)


def _refusal(name: str) -> str | None:
    if not name:
        return "which is empty"
    if found := re.search(r"[/\\:]", name):
        return f"which has a {found[0]!r}"
    if printable(name) != name:
        return "which has characters that are not seen or no UTF-8"
    if name.startswith(".") or name.endswith(".") or name != name.strip():
        return "which begins or ends with a dot or with white space"
    if len(name.encode()) > _MOST_BYTES:
        return f"which is longer than {_MOST_BYTES} bytes"
    return "a device of Windows" if _RESERVED.fullmatch(name) else None


@lru_cache(maxsize=8)
def class_components(classes: tuple[str, ...]) -> tuple[str, ...]:
    """For each class what it is called in names of files: letters, digits and hyphens, and no two alike.

    "Audi TT 2011" becomes audi-tt-2011. Classes that would be called the same, or nothing, get their number behind it.
    """
    plain = [_plain(name) for name in classes]
    count = Counter(plain)
    taken = {component for component, times in count.items() if times == 1 and component}
    found = []
    for number, component in enumerate(plain):
        if count[component] > 1 or not component:
            component = f"{component or 'class'}-{number}"
            while component in taken:
                component += f"-{number}"
            taken.add(component)
        found.append(component)
    return tuple(found)


def shortened(text: str, most: int) -> str:
    """The beginning of a file's name, at most this many bytes of it."""
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text


def _plain(name: str) -> str:
    return shortened(re.sub(r"\W+", "-", name.lower()).strip("-"), 60).strip("-")
