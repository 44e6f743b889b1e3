"""Pictures of a folder as a source, see `source`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from edgex.runtime.errors import SourceError
from edgex.runtime.frames import as_frame
from edgex.runtime.picture_files import describe, find_pictures, is_picture, none_found
from edgex.runtime.watch.sources.source import SourceFrame


class FolderSource:
    """The pictures below a folder sorted by path, or one picture."""

    live = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self.name = str(path)
        self.remark = ""
        """What was passed over when the folder was listed, for people."""
        self._waiting: list[Path] = []

    def open(self) -> None:
        """Lists the folder. Raises SourceError where there are no pictures."""
        passed_over = Counter[str]()
        pictures = [self._path] if is_picture(self._path) and self._path.is_file() else []
        if self._path.is_dir():
            try:
                found = find_pictures(self._path)
            except OSError as error:
                raise SourceError(f"{self._path}: cannot be listed: {error.strerror or error}") from error
            pictures, passed_over = list(found.pictures), found.passed_over
        if not pictures:
            raise SourceError(f"{none_found(self._path, passed_over)}; name another folder")
        self.remark = describe(passed_over)
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
