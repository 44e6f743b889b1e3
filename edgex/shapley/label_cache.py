"""The cache of labels that are being made: a file of each chunk of pictures, and one of the chunk that is in work.

What the labels are is `edgex.shapley.labels`; the artefact that is made of them is `edgex.shapley.label_file`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.files import cache_file
from edgex.utils.text import Report

KEEP_SECONDS = 20.0
"""Of work on a chunk that an interruption may cost, besides the batch that was in work."""

_KIND = "labels 2"
"""Of the files: counts up when the same pictures would get other labels."""
_PICTURES = "pictures"
"""Key of the digests of a chunk's pictures."""
_BATCH_SIZE = "batch_size"
"""Key of an unfinished chunk's batch size: coalitions are drawn for each batch."""


class CachedChunk:
    """The labels of one chunk of pictures. names: of the tensors that make them up, a row for each crop."""

    def __init__(self, file: Path, pictures: Sequence[Path], names: Sequence[str]) -> None:
        self._file, self._pictures, self._names = file, pictures, names
        self._part = file.with_name(f"unfinished-{file.name}")
        self._kept = time.monotonic()

    def find(self, report: Report) -> dict[str, Any] | None:
        """All rows, where they are there with all names, of the pictures as they are now. report: told of damage."""
        return self._found(self._file, report)

    def load(self) -> dict[str, Any]:
        """All rows of a finished chunk."""
        content: dict[str, Any] = cache_file.load(self._file, _KIND)
        return content

    def begun(self, batch_size: int, report: Report) -> dict[str, Tensor]:
        """The rows of the first batches of an unfinished chunk; empty where nothing of it was kept."""
        content = self._found(self._part, report)
        whole = content is not None and content[_BATCH_SIZE] == batch_size
        return {name: content[name] for name in self._names} if content is not None and whole else {}

    def keep(self, rows: Mapping[str, Sequence[Tensor]], batch_size: int) -> None:
        """Stores the rows of an unfinished chunk, its batches so far, KEEP_SECONDS after the last time."""
        if time.monotonic() - self._kept >= KEEP_SECONDS:
            joined = {name: torch.cat([*rows[name]]) for name in self._names}
            cache_file.save(self._part, {**self._described(), _BATCH_SIZE: batch_size, **joined}, _KIND)
            self._kept = time.monotonic()

    def finish(self, rows: Mapping[str, Tensor]) -> None:
        """Stores all rows."""
        cache_file.save(self._file, {**self._described(), **rows}, _KIND)
        self._part.unlink(missing_ok=True)

    def _found(self, file: Path, report: Report) -> dict[str, Any] | None:
        content: dict[str, Any] | None = cache_file.find(file, _KIND, report)
        if content is None or not all(name in content for name in self._names):
            return None
        return content if content[_PICTURES] == self._described()[_PICTURES] else None

    def _described(self) -> dict[str, Any]:
        return {_PICTURES: [image_folders.digest_of(path) for path in self._pictures]}
