"""Writing results: refusing to overwrite, pictures. How a file is written whole: `edgex.runtime.atomic_files`."""

from __future__ import annotations

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

    argument: the parameter of the public function that names the file. Raises ArtefactError where the operating system
    allows no such name.
    """
    if path is None:
        return
    try:
        there = Path(path).exists()
    except OSError as error:
        raise write_error(path, error) from error
    if there and not force:
        raise UsageError(f"{path} exists already: choose another name, or replace it with force", argument=argument)


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """uint8 [H, W, 3] RGB -> a PNG file, whole or not at all; ArtefactError where it cannot be written."""
    from PIL import Image

    # Pillow takes no notice of a disk that fills while it writes to a file.
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    with atomic_output(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
