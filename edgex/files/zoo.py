"""Names of artefacts: a path, the local zoo, the built-in zoo, or hf://org/repo/file.

The built-in zoo ships with the package. The local zoo is the folder "zoo" in $EDGEX_HOME, where baked models go unless
they are given another place; `edgex.files.home` documents that folder and which bake is the newest one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from edgex.errors import ArtefactError, UsageError
from edgex.files import hub
from edgex.files.home import Bake, files_in, home, newest_record, newest_record_anywhere
from edgex.files.model_file import LoadedModel, card_of, load_card, load_model
from edgex.files.names import BUILT_IN as BUILT_IN
from edgex.files.names import SUFFIX, folders
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import VectorCard
from edgex.runtime.file_names import check_name
from edgex.utils.text import nearest

Kind = Literal["model", "vector"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named artefact: name, "model" or "vector", where it is from ("built in" or "local"), its path, and the
    file's metadata.
    """

    name: str
    kind: str
    origin: str
    path: Path
    metadata: dict[str, Any] = dataclasses.field(repr=False, compare=False)


def local_path(name: str) -> Path:
    """Where a local artefact of this name lies or would lie; UsageError for a name that cannot be that of a file."""
    return home() / "zoo" / f"{check_name(name)}{SUFFIX}"


def entries() -> list[Entry]:
    """Every artefact that can be named, local ones first; files that are no model and no vector are left out."""
    found = []
    for origin, folder in folders():
        for path in files_in(folder, f"*{SUFFIX}"):
            with contextlib.suppress(ArtefactError), TensorFile(path) as file:
                kind = file.metadata.get("kind")
                if kind == "model":
                    card_of(file)
                elif kind == "vector":
                    VectorCard.from_metadata(file.metadata, path)
                else:
                    continue
                found.append(Entry(path.name.removesuffix(SUFFIX), kind, origin, path, file.metadata))
    return found


def resolve(name: str | os.PathLike[str], kind: Kind | None = None) -> Path:
    """The file that a name or path stands for; an existing file stands for itself, whatever it holds.

    kind: what the zoo is searched for; None finds models and vectors.

    Raises UsageError with the nearest known names, ArtefactError for a path that does not exist or a file of the hub
    that cannot be fetched.
    """
    name = os.fspath(name)
    if name.startswith(hub.SCHEME):
        return hub.weights_file(name)
    path = Path(name)
    if path.is_file():
        return path
    known = [entry for entry in entries() if kind in (None, entry.kind)]
    for entry in known:
        if entry.name == name:
            return entry.path
    if path.suffix or path.name != name:
        wanted = f"an edgex {kind} file" if kind else "a file"
        raise ArtefactError(f"expected {wanted} at {name}, found nothing: check the path")
    names = sorted({entry.name for entry in known})
    hint = nearest(name, names) or f"; known {kind or 'name'}s: {', '.join(names) or 'none'}"
    raise UsageError(f"{f'no {kind}' if kind else 'nothing'} named '{name}' in the zoo{hint}")


def newest_bake() -> Path:
    """The file of the newest bake, by the rule of `edgex.files.home`.

    Raises UsageError where there is none, where its file is gone or where another model has replaced it.
    """
    bake = _newest_bake()
    _check_unchanged(bake, load_card(bake.path)[1])
    return bake.path


def load_newest_bake() -> LoadedModel:
    """The newest bake, loaded; raises as `newest_bake` does."""
    bake = _newest_bake()
    loaded = load_model(bake.path)
    _check_unchanged(bake, loaded.sha256)
    return loaded


def _newest_bake() -> Bake:
    bake = newest_record()
    if bake is None:
        elsewhere = newest_record_anywhere()
        hint = f" (the one from {elsewhere.directory} is {elsewhere.path})" if elsewhere else ""
        raise UsageError(
            f"no baked model yet from this folder{hint}: run 'edgex bake --target cars --vector imagenet' or name a "
            "model"
        )
    if not bake.path.is_file():
        raise UsageError(f"the newest bake from this folder, {bake.path}, is gone: bake again or name a model")
    return bake


def _check_unchanged(bake: Bake, sha256: str) -> None:
    if bake.sha256 != sha256:
        raise UsageError(
            f"the newest bake from this folder, {bake.path}, has been replaced by another model since: bake again or "
            "name a model"
        )
