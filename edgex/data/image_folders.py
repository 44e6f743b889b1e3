"""Pictures on disk: class folders, unlabelled pictures, and the reading of both.

Layout of a labelled set: `<root>/train/<class>/*.jpg` with `val` and `test` beside `train`, or class folders
directly in `<root>`. How the classes are named is in `edgex.data.class_names`, which files are pictures in
`edgex.runtime.picture_files`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from edgex.data.class_names import names_of, places_among
from edgex.errors import DataError
from edgex.runtime.frames import as_frame, read_picture
from edgex.runtime.picture_files import (
    COMPANIONS,
    SUFFIX_LIST,
    PictureFiles,
    describe,
    find_pictures,
    is_sequence,
    list_folder,
    none_found,
)
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.provenance import sha256_of
from edgex.utils.text import Report, listing, silent

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Labelled pictures: paths, one class index each, display names of the classes."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def targets(self) -> np.ndarray:
        """The class of each picture: int64 [N]."""
        return np.array(self.labels, np.int64)

    @property
    def shown(self) -> set[int]:
        """The classes that a picture shows."""
        return set(self.labels)

    def subset(self, indices: Sequence[int]) -> Pictures:
        """The pictures at these positions; the classes stay."""
        return Pictures(tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices), self.classes)

    def split(self, fraction: float, seed: int) -> tuple[Pictures, Pictures]:
        """Holds a fraction of every class out, at least one picture where the class has two: (rest, held out)."""
        by_class: dict[int, list[int]] = {}
        for index, label in enumerate(self.labels):
            by_class.setdefault(label, []).append(index)
        held: set[int] = set()
        generator = random.Random(seed)
        for indices in by_class.values():
            count = min(len(indices) - 1, max(1, round(len(indices) * fraction)))
            held.update(generator.sample(indices, count))
        rest = [i for i in range(len(self)) if i not in held]
        return self.subset(rest), self.subset(sorted(held))


def labelled(root: Path, split: str | None = None, *, report: Report = silent) -> Pictures:
    """Pictures in class folders, `<root>[/<split>]/<class>/*`; folders in order of their names.

    report: told once how many files were passed over, and why.

    Raises DataError for a missing or empty folder, for class folders without pictures, and for two that are links to
    one folder or have the same name.
    """
    folder = root / split if split else root
    class_folders, passed_over = _class_folders(folder)
    names = names_of(class_folders, root)
    paths: list[Path] = []
    labels: list[int] = []
    empty: list[Path] = []
    for index, class_folder in enumerate(class_folders):
        found = _found(class_folder)
        if not found.pictures:
            empty.append(class_folder)
        paths += found.pictures
        labels += [index] * len(found.pictures)
        passed_over += found.passed_over
    said = describe(passed_over)
    if empty:
        raise DataError(
            f"{listing(empty)}: expected pictures ({SUFFIX_LIST}) in every class folder, found none; add some or "
            "remove the folder" + (said and f"; {said}")
        )
    if said:
        report(f"{folder}: {said}")
    return Pictures(tuple(paths), tuple(labels), names)


def remap_labels(
    pictures: Pictures, classes: Sequence[str], folder: Path, *, lack: str = "the model does not know"
) -> Pictures:
    """The same pictures with labels that index `classes`; lack and errors as of `places_among`."""
    places = places_among(pictures.classes, classes, folder, lack=lack)
    return Pictures(pictures.paths, tuple(places[label] for label in pictures.labels), tuple(classes))


def has_split(root: Path, split: str) -> bool:
    """Whether `<root>/<split>` is a folder."""
    return (root / split).is_dir()


def list_images(roots: Sequence[Path], *, report: Report = silent) -> tuple[Path, ...]:
    """Every picture below these folders, labels ignored, in order of their paths within each folder.

    report: told once for each folder how many files were passed over, and why.

    Raises DataError for a missing folder and for one without pictures.
    """
    paths: list[Path] = []
    for root in roots:
        check_folder(root, "a folder of pictures")
        found = _found(root)
        if not found.pictures:
            raise DataError(none_found(root, found.passed_over))
        if said := describe(found.passed_over):
            report(f"{root}: {said}")
        paths += found.pictures
    return tuple(paths)


def _class_folders(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The class folders in a folder, and what was passed over beside them."""
    check_folder(folder, "a folder of class folders")
    passed_over = Counter[str]()
    with _listing_of(folder):
        entries = list_folder(folder, passed_over)
    found: dict[str, Path] = {}
    for entry in entries:
        if not entry.is_dir():
            passed_over["beside the class folders"] += entry.name not in COMPANIONS
        elif (twin := found.setdefault(os.path.realpath(entry.path), Path(entry.path))) != Path(entry.path):
            raise DataError(f"the class folders {twin} and {entry.path} are one folder: remove the link")
    if not found:
        raise DataError(f"expected class folders with pictures in {folder}, found none: use <class>/<picture>")
    return list(found.values()), passed_over


def _found(folder: Path) -> PictureFiles:
    with _listing_of(folder):
        return find_pictures(folder)


@contextlib.contextmanager
def _listing_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror or error}): check its permissions") from error


def check_folder(folder: Path, expected: str) -> None:
    """Raises DataError where `folder` is none. expected: what it should be, for the message."""
    if folder.is_dir():
        return
    if folder.exists():
        raise DataError(f"expected {expected} at {folder}, found a file: name a folder")
    if is_sequence(folder):
        raise DataError(
            f"expected {expected}, found {folder}, the pattern of an image sequence: name the folder that it lies in"
        )
    raise DataError(f"expected {expected} at {folder}, found nothing: check the path")


def subsample_evenly(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most `count` of the items, such as paths, at even distances in their order."""
    count = min(count, len(items))
    return tuple(items[i * len(items) // count] for i in range(count))


def digest_of(picture: Path) -> str:
    """The first 16 digits of a file's sha256."""
    return sha256_of(picture)[:16]


def open_picture(path: Path) -> Image.Image:
    """A picture as the device reads it: RGB, upright, 16 bits scaled to 8, alpha dropped; see `runtime.frames`.

    Raises ImageError, which names the file, where it cannot be read.
    """
    return Image.fromarray(read_picture(path))


def load_batch(paths: Sequence[Path], preprocessing: Preprocessing) -> np.ndarray:
    """Pictures as the model sees them: uint8 [N, H, W, 3] RGB."""
    return np.stack([preprocessing.array(as_frame(path)) for path in paths])
