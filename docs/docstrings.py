"""Makes the docstrings' lists of parameters into Markdown lists when mkdocstrings reads them."""

from __future__ import annotations

import re
from typing import Any

from griffe import Class, Extension, Function

_ENTRY = re.compile(r"^(\w+(?:, \w+)*): ")


class ParameterLists(Extension):
    """`name: text` at a line's start, for a parameter or attribute of that name, becomes an entry of a list."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrites one docstring."""
        if obj.docstring is None:
            return
        names: set[str] = set()
        if isinstance(obj, Function):
            names = {parameter.name for parameter in obj.parameters}
        elif isinstance(obj, Class):
            names = set(obj.members)
            if (init := obj.members.get("__init__")) is not None and isinstance(init, Function):
                names |= {parameter.name for parameter in init.parameters}
        obj.docstring.value = as_lists(obj.docstring.value, names)


def as_lists(text: str, names: set[str]) -> str:
    """The docstring with an entry of a list for each of the names that begins a line."""
    lines: list[str] = []
    for line in text.splitlines():
        found = _ENTRY.match(line)
        if found and set(found[1].split(", ")) <= names:
            if lines and lines[-1] and not lines[-1].startswith(("- ", "    ")):
                lines.append("")
            line = f"- **{found[1]}**: {line[found.end() :]}"
        lines.append(line)
    return "\n".join(lines)
