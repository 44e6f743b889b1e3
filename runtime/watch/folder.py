"""Pictures of a folder as a source, see `source`."""

from __future__ import annotations

import os
from pathlib import Path

from edgex.runtime.errors import SourceError
from edgex.runtime.frames import PICTURE_SUFFIXES, as_frame, is_picture, list_pictures
from edgex.runtime.watch.source import SourceFrame


class FolderSource:
    """The pictures below a folder sorted by path, or one picture."""

    live = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self.name = str(path)
        self._waiting: list[Path] = []

    def open(self) -> None:
        """Lists the folder. Raises SourceError where there are no pictures."""
        try:
            one = [self._path] if is_picture(self._path) and self._path.is_file() else []
            pictures = list_pictures(self._path) if self._path.is_dir() else one
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be listed: {error.strerror or error}") from error
        if not pictures:
            raise SourceError(
                f"{self._path}: expected pictures ({', '.join(sorted(PICTURE_SUFFIXES))}), found none; "
                "name another folder"
            )
        self._waiting = pictures[::-1]

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        if not self._waiting:
            return None
        path = self._waiting.pop()
        return SourceFrame(as_frame(path), str(path))

    def close(self) -> None:
        """Forgets the rest of the list."""
        self._waiting = []
