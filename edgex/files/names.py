"""What the zoo's files are called, found without opening their tensors. Imports nothing heavy, for shell completion.

What a name stands for is `edgex.files.zoo`, which also checks the files.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from edgex.files.home import files_in, home_or_none

BUILT_IN = Path(__file__).parents[1] / "built_in"
SUFFIX = ".safetensors"
METADATA_KEY = "edgex"
"""Of edgex's metadata among those of a safetensors file."""

_LARGEST_HEADER = 1 << 25
"""In bytes; that of a model with a thousand classes has about a hundred thousand."""


def folders() -> list[tuple[str, Path]]:
    """Where named files lie, those that count first: origin ("local" or "built in") and folder."""
    own = home_or_none()
    return [*([] if own is None else [("local", own / "zoo")]), ("built in", BUILT_IN)]


def names(kind: str | None = None) -> list[str]:
    """Names that files of a kind, "model" or "vector", have in the zoo; None for both."""
    found = {
        path.name.removesuffix(SUFFIX)
        for _, folder in folders()
        for path in files_in(folder, f"*{SUFFIX}")
        if _kind_of(path) in ((kind,) if kind else ("model", "vector"))
    }
    return sorted(found)


def _kind_of(path: Path) -> str | None:
    """The kind that a file states; None for a file that states none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size <= _LARGEST_HEADER:
            stated = json.loads(json.loads(file.read(size))["__metadata__"][METADATA_KEY]).get("kind")
            return stated if isinstance(stated, str) else None
    return None
