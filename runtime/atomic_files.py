"""Writes a file whole or not at all: into a temporary file beside it, which is renamed at the end.

Every file of edgex, on the device and on the workstation, is written through here. What goes into a file is not here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgex.runtime.errors import ArtefactError

_NAME_BYTES = 120
"""Of the target's name that the temporary file's name repeats; file systems allow 255 bytes in all."""
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space or choose another folder"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "choose another name, or remove the folder of that name",
}
_OTHER_ADVICE = "choose a folder that can be written to"


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary file in the folder of `path`, empty and already there; renames it to `path` on success.

    On any failure the temporary file is removed and what lay at `path` stays. Missing folders are made. The file gets
    the permissions of any other new file.

    durable: flush the file to the disk before it is renamed, so that a power failure leaves the old content or the
        new. False spares the wait, for pictures of a stream.

    Raises ArtefactError, one line that names `path`, where the operating system refuses: no permission, no space, a
    name that is too long, a folder in the file's place.
    """
    path = Path(path)
    try:
        temporary = _create_beside(path)
    except OSError as error:
        raise write_error(path, error) from error
    try:
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


def write_error(path: str | os.PathLike[str], error: OSError, consequence: str = "") -> ArtefactError:
    """The one line for an operating system's refusal to write `path`: the reason and what to do."""
    advice = _ADVICE.get(error.errno or 0, _OTHER_ADVICE)
    return ArtefactError(f"cannot write {os.fspath(path)} ({error.strerror or error}): {consequence}{advice}")


def _create_beside(path: Path) -> Path:
    """An empty file of a new name in the same folder, with the permissions that the process gives to new files."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A name that is too long is found before the work, not by the renaming after it.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()
    _make_folder(path.parent)
    start = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    while True:
        temporary = path.with_name(f".{start}.{secrets.token_hex(4)}.part")
        try:
            # O_EXCL follows no link that lies there already; unlike tempfile's private files, 0o666 obeys the umask.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return temporary


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
