"""Writing results: refusing to overwrite, pictures. How a file is written whole: `edgex.runtime.atomic_files`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgex.errors import UsageError
from edgex.runtime.atomic_files import atomic_output, write_error

if TYPE_CHECKING:
    import numpy as np


def refuse_to_overwrite(path: str | os.PathLike[str] | None, *, force: bool, argument: str = "out") -> None:
    """UsageError where a file to be written exists already, unless `force`; None stands for no file.

    argument: the parameter of the public function that names the file. Raises UsageError for a folder, too, and
    ArtefactError where the operating system allows no such name: both would be found after the work otherwise.
    """
    if path is None:
        return
    path = Path(path)
    try:
        folder, there = path.is_dir(), path.exists()
        _check_name(path)
    except OSError as error:
        raise write_error(path, error) from error
    if folder:
        raise UsageError(f"expected a file to write, found the folder {path}: name a file in it", argument=argument)
    if there and not force:
        raise UsageError(f"{path} exists already: choose another name, or replace it with force", argument=argument)


def check_writable(path: Path) -> None:
    """Raises ArtefactError where `path` could not be written: before long work, not after it."""
    probe = path.with_name(path.name + ".probe")
    with atomic_output(probe):
        pass
    probe.unlink()


def _check_name(path: Path) -> None:
    """Raises OSError for a name that cannot be in this folder, also where the folder is still to be made."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    with contextlib.suppress(FileNotFoundError):
        (nearest / path.name).lstat()


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """uint8 [H, W, 3] RGB -> a PNG file, whole or not at all; ArtefactError where it cannot be written."""
    from PIL import Image

    # Pillow takes no notice of a disk that fills while it writes to a file.
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    with atomic_output(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
