"""Names of artefacts: a path, the local zoo, the built-in zoo, or hf://org/repo/file.

The built-in zoo ships with the package. The local zoo is the folder "zoo" in $EDGEX_HOME (default: ~/.edgex);
baked models go there unless told otherwise, and "latest-bake" beside it remembers the newest one.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from edgex.errors import ArtefactError, UsageError
from edgex.files import hub
from edgex.files.tensor_file import TensorFile, atomic_output
from edgex.utils.text import nearest

BUILT_IN = Path(__file__).parents[1] / "built_in"
SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named artefact: name, "model" or "vector", where it is from ("built in" or "local"), its path."""

    name: str
    kind: str
    origin: str
    path: Path


def home() -> Path:
    """The folder of the user's own artefacts: $EDGEX_HOME, or ~/.edgex."""
    return Path(os.environ.get("EDGEX_HOME") or Path.home() / ".edgex")


def local_path(name: str) -> Path:
    """Where a local artefact of this name lies or would lie."""
    return home() / "zoo" / f"{name}{SUFFIX}"


def entries() -> list[Entry]:
    """Every artefact that can be named, local ones first; files that are neither models nor vectors are left out."""
    found = []
    for origin, folder in (("local", home() / "zoo"), ("built in", BUILT_IN)):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                with TensorFile(path) as file:
                    kind = file.metadata.get("kind")
            except ArtefactError:
                continue
            if kind in ("model", "vector"):
                found.append(Entry(path.name.removesuffix(SUFFIX), kind, origin, path))
    return found


def resolve(name: str, kind: str) -> Path:
    """The file that a name stands for; kind is "model" or "vector".

    Raises UsageError with the nearest known names, ArtefactError for a path that does not exist.
    """
    if name.startswith("hf://"):
        return hub.weights_file(name)
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix or os.sep in name:
        raise ArtefactError(f"expected an edgex {kind} file at {name}, found nothing: check the path")
    known = [entry for entry in entries() if entry.kind == kind]
    for entry in known:
        if entry.name == name:
            return entry.path
    names = sorted({entry.name for entry in known})
    hint = nearest(name, names) or f"; known {kind}s: {', '.join(names) or 'none'}"
    raise UsageError(f"no {kind} named '{name}' in the zoo{hint}")


def resolve_any(name: str) -> Path:
    """The file that a name stands for, of whichever kind; UsageError with the nearest known names."""
    if name.startswith("hf://"):
        return hub.weights_file(name)
    path = Path(name)
    if path.suffix or os.sep in name:
        raise ArtefactError(f"expected a file at {name}, found nothing: check the path")
    known = entries()
    for entry in known:
        if entry.name == name:
            return entry.path
    names = sorted({entry.name for entry in known})
    raise UsageError(f"nothing named '{name}' in the zoo{nearest(name, names) or '; known: ' + ', '.join(names)}")


def remember_bake(path: Path) -> None:
    """Makes `path` the newest bake."""
    with atomic_output(home() / "latest-bake") as temporary:
        temporary.write_text(str(path.resolve()), encoding="utf-8")


def newest_bake() -> Path:
    """The model that was baked last; UsageError where there is none."""
    try:
        path = Path((home() / "latest-bake").read_text(encoding="utf-8"))
    except FileNotFoundError:
        path = None
    if path is None or not path.is_file():
        gone = f" ({path} is gone)" if path else ""
        raise UsageError(f"no baked model yet{gone}: run 'edgex bake --target cars --vector imagenet' or name a model")
    return path
