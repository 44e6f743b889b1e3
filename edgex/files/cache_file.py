"""edgex's own caches and checkpoints: files of torch.save that carry their kind and a sha256 of their bytes.

Both stand in the comment of the zip archive that torch.save writes (PKWARE's APPNOTE.TXT, section 4.3.16), where every
other reader passes over them. A file whose digest does not hold, of another kind or of an earlier edgex, is never
read: its content is made anew. Files of other programs are `torch_file`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path
from typing import IO, Any

import torch

from edgex.errors import ArtefactError
from edgex.files import torch_file
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.errors import first_line
from edgex.utils.text import Report

_DIGITS = 64
_CHUNK = 1 << 20


def save(path: Path, content: dict[str, Any], kind: str) -> None:
    """Writes plain tensors and containers, whole or not at all. kind: what they are, with a version: "labels 2"."""
    mark = _mark(kind)
    with atomic_output(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:
            # torch's own writer reports a full disk this way.
            raise OSError(errno.ENOSPC, f"torch could not write it: {first_line(error)}") from error
        with temporary.open("r+b") as file:
            # The archive ends with the length of its comment, which torch leaves empty.
            file.seek(-2, io.SEEK_END)
            file.write((len(mark) + _DIGITS).to_bytes(2, "little"))
            digest = _digest(file, file.tell())
            file.seek(0, io.SEEK_END)
            file.write(mark + digest)


def load(path: Path, kind: str) -> Any:
    """What `save` wrote as this kind, tensors on the CPU.

    Raises ArtefactError, without reading on, where the file is not whole, not of this kind or not as it was written.
    """
    mark = _mark(kind)
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END) - len(mark) - _DIGITS
            file.seek(max(0, size))
            comment = file.read()
            if size < 0 or not comment.startswith(mark):
                raise ArtefactError(f"{path} is no file of edgex's of the kind '{kind}', or is cut off")
            if comment != mark + _digest(file, size):
                raise ArtefactError(f"{path} is damaged: its bytes are not those of its sha256")
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error})") from error
    return torch_file.load(path)


def find(path: Path, kind: str, report: Report) -> Any | None:
    """What `save` wrote; None where there is no such file and, with a line to `report`, where it cannot be used."""
    if not path.exists():
        return None
    try:
        return load(path, kind)
    except ArtefactError as error:
        report(f"{error}: it is made anew")
        return None


def _mark(kind: str) -> bytes:
    return f"edgex {kind} sha256 ".encode()


def _digest(file: IO[bytes], size: int) -> bytes:
    """The sha256 of the first `size` bytes, as hexadecimal digits."""
    file.seek(0, os.SEEK_SET)
    digest = hashlib.sha256()
    while size > 0 and (data := file.read(min(size, _CHUNK))):
        digest.update(data)
        size -= len(data)
    return digest.hexdigest().encode()
