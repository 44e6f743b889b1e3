"""Provenance: the steps in an artefact's metadata that say how it was made, oldest first; digests of files.

A step names what was done ("train", "bake", ...), its inputs with their digests, its parameters, the edgex version and
the date. Which fields a step has is decided where it is taken.
"""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

from edgex._version import __version__
from edgex.runtime.printable import printable_values


def step(name: str, /, *, dated: bool = True, **fields: Any) -> dict[str, Any]:
    """One JSON-ready provenance step: "step", the fields in their order, "edgex" (the version) and "date" (UTC).

    Text in it, such as the names of files, is made `printable`.

    dated: False leaves the date out, where the same inputs are to give the same file on any day.
    """
    taken = {"step": name, **printable_values(fields), "edgex": __version__}
    return taken | {"date": datetime.datetime.now(datetime.UTC).date().isoformat()} if dated else taken


def sha256_of(path: Path) -> str:
    """A file's sha256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
