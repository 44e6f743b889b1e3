"""The folder of the user's own files, $EDGEX_HOME, and the record of bakes in it. Imports nothing heavy.

$EDGEX_HOME (default: ~/.edgex) holds

- zoo/: the local zoo. Baked models go there unless they are given another place.
- bakes/: which model was baked from which working directory, a small file for each bake.
- hub/: the sha256 of each file of the hub, as it was when its name was first used.
- cache/: what evaluation has computed; it can be deleted at any time.

`edgex export` without a model takes the newest bake by this rule: **the model that was baked last from the same working
directory; where several processes bake in one directory, each gets its own.** A process's own bake is one of the same
Python process, or one of the same shell. So two jobs that bake and export at once do not get each other's models,
wherever they run. A record holds the sha256 of the baked file: a file that another bake has replaced since is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import secrets
import time
from pathlib import Path

from edgex.runtime import schema
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.errors import ArtefactError
from edgex.runtime.json_text import read_json

_KEPT_SECONDS = 7 * 24 * 3600
"""How long the records of a directory stay, its newest one apart."""

_RECORD = "[0-9]*.json"


@dataclasses.dataclass(frozen=True)
class Bake:
    """The record of one bake.

    path: of the baked model. sha256: the digest that the file records of itself. directory: the working directory.
    process, shell: identities of the process that baked and of its parent. nanoseconds: the time, since 1970.
    """

    path: Path
    sha256: str
    directory: str
    process: str
    shell: str
    nanoseconds: int


_BAKE = schema.record(
    Bake,
    path=lambda value: Path(schema.any_text(value)),
    sha256=schema.text,
    directory=schema.any_text,
    process=schema.text,
    shell=schema.text,
    nanoseconds=schema.whole(),
)


def home() -> Path:
    """The folder of the user's own files: $EDGEX_HOME, or ~/.edgex. It need not exist.

    Raises ArtefactError where nothing says where that is, as for a user that the system does not know.
    """
    try:
        return Path(os.environ.get("EDGEX_HOME") or "~/.edgex").expanduser()
    except RuntimeError as error:
        raise ArtefactError(
            "expected a folder for edgex's own files, found no home folder of this user: set EDGEX_HOME to one"
        ) from error


def home_or_none() -> Path | None:
    """The same for what only reads it: None where there is no such folder to be."""
    try:
        return home()
    except ArtefactError:
        return None


def record_bake(path: str | os.PathLike[str], sha256: str) -> None:
    """Makes a model the newest bake of this working directory.

    Every bake writes a file of its own, so that processes at work at the same time lose no record. Old records of this
    directory are removed. Raises ArtefactError where $EDGEX_HOME is unknown or cannot be written.
    """
    now = time.time_ns()
    bake = Bake(Path(path).resolve(), sha256, _directory(), _identity(os.getpid()), _identity(os.getppid()), now)
    for earlier in files_in(_folder(), _RECORD):
        with contextlib.suppress(OSError):
            if now - earlier.stat().st_mtime_ns > _KEPT_SECONDS * 1e9:
                earlier.unlink()
    with atomic_output(_folder() / f"{now}-{secrets.token_hex(4)}.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(bake), default=str), encoding="utf-8")


def newest_record() -> Bake | None:
    """The newest bake of this process, else of its shell, else of any; None where none was made in this directory."""
    if home_or_none() is None:
        return None
    process, shell = _identity(os.getpid()), _identity(os.getppid())
    bakes = _bakes(_folder())
    of_process = [bake for bake in bakes if bake.process == process]
    of_shell = [bake for bake in bakes if bake.shell == shell]
    return next(iter(of_process or of_shell or bakes), None)


def newest_record_anywhere() -> Bake | None:
    """The newest bake of all working directories."""
    own = home_or_none()
    folders = [] if own is None else files_in(own / "bakes", "*")
    bakes = [bake for folder in folders for bake in _bakes(folder)]
    return max(bakes, key=lambda bake: bake.nanoseconds, default=None)


def _folder() -> Path:
    """Where the records of this working directory lie."""
    return home() / "bakes" / hashlib.sha256(os.fsencode(_directory())).hexdigest()[:16]


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""


def files_in(folder: Path, pattern: str) -> list[Path]:
    """What a folder of $EDGEX_HOME holds, sorted; nothing where there is no such folder or it cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # such as a name that is too long for the file system
        return []


def _bakes(folder: Path) -> list[Bake]:
    """The records in a folder, newest first; files that are none are passed over."""
    bakes = []
    for record in files_in(folder, _RECORD):
        with contextlib.suppress(ArtefactError):
            bakes.append(schema.checked(_BAKE, read_json(record), str(record)))
    return sorted(bakes, key=lambda bake: bake.nanoseconds, reverse=True)


def _identity(process: int) -> str:
    """Host, number and, where the system tells, the start time of a process: numbers alone are used again."""
    try:
        # proc(5): field 22, counted behind the name in parentheses, which may itself hold spaces.
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        started = text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    return f"{platform.node()}:{process}:{started}"
