"""Opens every picture before work starts, so that all that cannot be read are known at once, and not after hours.

Each picture is decoded whole, since a header says nothing of what follows it. The pixels are not kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from edgex.data.loading import loaded
from edgex.data.multi_label import AnyPictures
from edgex.errors import DataError, ImageError
from edgex.runtime.frames import as_frame
from edgex.utils.processes import Processes
from edgex.utils.progress import Progress
from edgex.utils.text import Report, listing, silent

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class ReadCheck:
    """How pictures are checked before work starts.

    skip_bad: leave those out that cannot be read, and report them; otherwise they are an error. report: called with
    lines for people. workers: see `edgex.data.loading.loaded`. group: processes that share the work; None for one.
    """

    skip_bad: bool = False
    report: Report = silent
    workers: int | None = None
    group: Processes | None = None

    def readable(self, paths: Sequence[Path]) -> list[bool]:
        """Whether each picture can be read.

        Raises DataError, which names the first bad ones and says how many there are, unless they are skipped; also
        where not one can be read.
        """
        found = self._decoded(paths)
        bad = [path for path, good in zip(paths, found, strict=True) if not good]
        if not bad:
            return found
        words = (
            f"{len(bad)} of {len(paths)} pictures cannot be read: {listing([_Fault(p) for p in bad], separator='; ')}"
        )
        if not self.skip_bad:
            raise DataError(f"{words}. Mend or remove them, or go on without them", argument="skip_bad")
        if len(bad) == len(paths):
            raise DataError(words)
        self.report(f"left out, {words}")
        return found

    def lists(self, *lists: Sequence[Path]) -> list[tuple[Path, ...]]:
        """Several lists of pictures, checked together, without those that cannot be read.

        Raises DataError also where nothing is left of a list.
        """
        known = dict.fromkeys(path for paths in lists for path in paths)
        known = dict(zip(known, self.readable(list(known)), strict=True))
        kept = [tuple(path for path in paths if known[path]) for paths in lists]
        for before, after in zip(lists, kept, strict=True):
            if before and not after:
                raise DataError(f"not one of these pictures can be read: {listing(before)}")
        return kept

    def sets(self, *sets: AnyPictures) -> list[AnyPictures]:
        """Several sets of labelled pictures, checked together, without those that cannot be read.

        Raises DataError also where a class of the first set has no picture left.
        """
        found = iter(self.readable([path for pictures in sets for path in pictures.paths]))
        kept = [pictures.subset([i for i in range(len(pictures)) if next(found)]) for pictures in sets]
        if lost := sorted(sets[0].shown - kept[0].shown):
            names = listing([f"'{sets[0].classes[label]}'" for label in lost])
            raise DataError(f"no picture of these classes can be read: {names}")
        return kept

    def _decoded(self, paths: Sequence[Path]) -> list[bool]:
        """Whether each picture can be decoded, found out by all processes together."""
        places = torch.arange(len(paths))
        mine = (places if self.group is None else self.group.share(places)).tolist()
        failures = torch.zeros(len(paths))
        requests = [mine[first : first + _BATCH] for first in range(0, len(mine), _BATCH)]
        results = loaded(_check, ([paths[i] for i in r] for r in requests), pictures=len(mine), workers=self.workers)
        shown = self.group is None or self.group.is_main
        with Progress("checking pictures", total=len(mine), unit="pictures", shown=shown) as progress:
            for request, good in zip(requests, results, strict=True):
                failures[request] = torch.tensor([float(not g) for g in good])
                progress.advance(steps=len(request))
        return [failure == 0 for failure in (self.group.sum(failures.tolist()) if self.group else failures.tolist())]


@dataclasses.dataclass(frozen=True)
class _Fault:
    """What is wrong with a picture: looked up only for those that a message names."""

    path: Path

    def __str__(self) -> str:
        try:
            as_frame(self.path)
        except ImageError as error:
            return str(error)
        return f"{self.path}: cannot be decoded"


def _check(paths: Sequence[Path]) -> list[bool]:
    return [_can_be_read(path) for path in paths]


def _can_be_read(path: Path) -> bool:
    try:
        as_frame(path)
    except ImageError:
        return False
    return True
