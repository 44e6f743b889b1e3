"""Writes a file whole or not at all: into a temporary file beside it, which is renamed at the end.

Every file of edgex, on the device and on the workstation, is written through here. What goes into a file is not here.

A process that is killed leaves its temporary file. The next process that writes into that folder removes it: the name
says which host wrote it, and a lock that the operating system takes back when its process ends says whether that one
lives (flock(2), which knows all processes of a host, those of other containers too). Files of other hosts that share
the folder stay, as does everything where the file system has no locks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from edgex.runtime.errors import ArtefactError

if os.name == "posix":
    import fcntl

_NAME_BYTES = 120
"""Of the target's name that the temporary file's name repeats; file systems allow 255 bytes in all."""
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space or choose another folder"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "choose another name, or remove the folder of that name",
}
_OTHER_ADVICE = "choose a folder that can be written to"
_HOST = hashlib.sha256(platform.node().encode(errors="surrogateescape")).hexdigest()[:8]
_OURS = re.compile(rf"\..+\.{_HOST}-[0-9a-f]{{8}}\.part")
"""Name of a temporary file that this host wrote and that is of no use when its process is gone."""
_cleaned: set[str] = set()
"""Folders that this process has looked through for temporary files of processes that are gone."""


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str], *, durable: bool = True, recoverable: bool = False) -> Iterator[Path]:
    """Yields a temporary file in the folder of `path`, empty and already there; renames it to `path` on success.

    On any failure the temporary file is removed and what lay at `path` stays. Missing folders are made. The file gets
    the permissions of any other new file.

    durable: flush the file to the disk before it is renamed, so that a power failure leaves the old content or the
        new. False spares the wait, for pictures of a stream.
    recoverable: what a killed process wrote so far is of use, as a video is: no later process removes its file.

    Raises ArtefactError, one line that names `path`, where the operating system refuses: no permission, no space, a
    name that is too long, a folder in the file's place.
    """
    path = Path(path)
    try:
        temporary, lock = _create_beside(path, recoverable)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        _remove_orphans(path.parent)
        yield temporary
        if durable:
            _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        if not _is_about(error, temporary, path):
            raise
        raise write_error(path, error, "nothing was written, ") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def write_error(path: str | os.PathLike[str], error: OSError, consequence: str = "") -> ArtefactError:
    """The one line for an operating system's refusal to write `path`: the reason and what to do."""
    advice = _ADVICE.get(error.errno or 0, _OTHER_ADVICE)
    return ArtefactError(f"cannot write {os.fspath(path)} ({error.strerror or error}): {consequence}{advice}")


def _create_beside(path: Path, recoverable: bool) -> tuple[Path, int | None]:
    """An empty file of a new name in the same folder, with the permissions that the process gives to new files.

    Returns the descriptor that holds its lock as well, None where there are no locks.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A name that is too long is found before the work, not by the renaming after it.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()
    _make_folder(path.parent)
    start = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    while True:
        token = secrets.token_hex(4)
        temporary = path.with_name(f".{start}.{token if recoverable else f'{_HOST}-{token}'}.part")
        try:
            # O_EXCL follows no link that lies there already; unlike tempfile's private files, 0o666 obeys the umask.
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            continue
        if os.name != "posix":  # an open file could not be renamed there
            os.close(descriptor)
            return temporary, None
        _lock(descriptor)
        # A process that cleans up may have taken the file for an orphan before it was locked.
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Whether this process has the file's lock now; False where another has it or the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _remove_orphans(folder: Path) -> None:
    """Removes temporary files of this host whose processes are gone; once for each folder, since folders are large."""
    name = os.path.realpath(folder)
    if os.name != "posix" or name in _cleaned:
        return
    _cleaned.add(name)
    with contextlib.suppress(OSError):
        for entry in os.scandir(name):
            if _OURS.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_orphan(entry.path)


def _remove_orphan(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor, wait=False):
            Path(path).unlink()
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _flush(path: Path) -> None:
    """Waits until the file's content is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_about(error: OSError, *paths: Path) -> bool:
    """False where the error names another file, such as one that is read meanwhile."""
    return not isinstance(error.filename, (str, bytes)) or Path(os.fsdecode(error.filename)) in paths
