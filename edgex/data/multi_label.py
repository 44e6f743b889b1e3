"""Pictures that may have several labels, or none: what `edgex.data.image_folders.Pictures` is for one class each.

The labels come from a table, see `edgex.data.label_tables`; files are named relative to the folder of pictures.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgex.data import image_folders
from edgex.data.class_names import places_among
from edgex.data.image_folders import Pictures
from edgex.data.label_tables import LabelTable, read_labels
from edgex.errors import DataError, UsageError
from edgex.utils.text import Report, listing, silent


@dataclasses.dataclass(frozen=True)
class MultiLabelPictures:
    """Pictures with the classes that each shows: paths, class indices in rising order, display names of the classes."""

    paths: tuple[Path, ...]
    labels: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def targets(self) -> np.ndarray:
        """Whether each picture shows each class: 0 or 1, float32 [N, C]."""
        found = np.zeros((len(self), len(self.classes)), np.float32)
        for row, labels in zip(found, self.labels, strict=True):
            row[list(labels)] = 1
        return found

    @property
    def shown(self) -> set[int]:
        """The classes that a picture shows."""
        return {label for labels in self.labels for label in labels}

    def subset(self, indices: Sequence[int]) -> MultiLabelPictures:
        """The pictures at these positions; the classes stay."""
        return MultiLabelPictures(
            tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices), self.classes
        )

    def split(self, fraction: float, seed: int) -> tuple[MultiLabelPictures, MultiLabelPictures]:
        """Holds about a fraction of every class out, and of the pictures without a label: (rest, held out).

        The rarest class chooses first. Each keeps a picture, and one is held out where it has two.
        """
        groups: dict[int, list[int]] = {}
        for index, labels in enumerate(self.labels):
            for label in labels or (-1,):
                groups.setdefault(label, []).append(index)
        held: set[int] = set()
        kept: set[int] = set()
        generator = random.Random(seed)
        for label in sorted(groups, key=lambda label: (len(groups[label]), label)):
            indices = groups[label]
            free = [index for index in indices if index not in held and index not in kept]
            if not kept.intersection(indices) and free:
                kept.add(free.pop(generator.randrange(len(free))))
            wanted = min(len(indices) - 1, max(1, round(len(indices) * fraction))) - len(held.intersection(indices))
            held.update(generator.sample(free, max(0, min(wanted, len(free)))))
        rest = [i for i in range(len(self)) if i not in held]
        return self.subset(rest), self.subset(sorted(held))


AnyPictures = Pictures | MultiLabelPictures
"""Labelled pictures of either kind; both have `paths`, `classes`, `targets`, `shown`, `subset` and `split`."""


def labelled_by(
    table: LabelTable, root: Path, split: str | None = None, *, report: Report = silent
) -> MultiLabelPictures:
    """The pictures of `root`, or of its part `split`, that a table has labels for, in order of their paths.

    report: told once how many pictures of the folder the table does not mention.

    Raises DataError where the table names pictures that are not there, or none of this folder.
    """
    folder = root / split if split else root
    image_folders.check_folder(folder, "a folder of pictures")
    inside = os.path.normpath(folder)
    chosen = {
        Path(place): labels
        for file, labels in table.labels.items()
        if (place := os.path.normpath(root / file)).startswith(inside + os.sep)
    }
    if not chosen:
        example = next(iter(table.labels))
        raise DataError(
            f"{table.path} names no picture of {folder}, its first is '{example}': name files relative to {root}",
            argument="labels",
        )
    if missing := [path for path in chosen if not path.is_file()]:
        raise DataError(
            f"{table.path} names {len(chosen)} pictures of {folder}, of which {len(missing)} are not there: "
            f"{listing(missing, most=3)}",
            argument="labels",
        )
    listed = {Path(os.path.normpath(path)) for path in image_folders.list_images([folder])}
    if others := len(listed - chosen.keys()):
        report(f"{folder}: {others} pictures are not in {table.path.name} and are left out")
    paths = tuple(sorted(chosen))
    return MultiLabelPictures(paths, tuple(chosen[path] for path in paths), table.classes)


def for_model(
    folder: Path,
    classes: Sequence[str],
    labels: Path | None,
    *,
    multi_label: bool,
    report: Report = silent,
) -> AnyPictures:
    """Labelled pictures to measure a model on: in class folders, or of a multi-label model, with a table of labels.

    labels: the table's file, which names files relative to the folder or, as one for training does, relative to the
    folder above it. Raises UsageError where a table is given to a model that gives one label, or none to one that gives
    several, DataError for an unusable folder or table, and for a label that the model does not know.
    """
    if not multi_label:
        if labels is not None:
            raise UsageError(
                f"the model gives a picture one label: expected pictures in class folders, found {labels}",
                argument="labels",
            )
        return image_folders.remap_labels(image_folders.labelled(folder, report=report), classes, folder)
    if labels is None:
        raise UsageError(
            "the model gives a picture several labels: expected a .csv or .json file of the pictures' labels",
            argument="labels",
        )
    table = read_labels(labels)
    places = places_among(table.classes, classes, table.path)
    found = labelled_by(table, *_root_and_split(table, folder), report=report)
    mapped = tuple(tuple(sorted(places[label] for label in labels)) for labels in found.labels)
    return MultiLabelPictures(found.paths, mapped, tuple(classes))


def _root_and_split(table: LabelTable, folder: Path) -> tuple[Path, str | None]:
    """What the files of a table are named relative to, and the part of it that `folder` is."""
    here = any((folder / file).is_file() for file in table.labels)
    above = any(Path(file).parts[:1] == (folder.name,) for file in table.labels)
    return (folder.parent, folder.name) if above and not here else (folder, None)
