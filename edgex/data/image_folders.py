"""Pictures on disk: class folders, unlabelled pictures, and the reading of both.

Layout of a labelled set: `<root>/train/<class>/*.jpg` with `val` and `test` beside `train`, or class folders
directly in `<root>`. `<root>/names.json` may map folder names to display names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edgex.errors import DataError
from edgex.runtime.frames import as_frame, list_pictures, read_picture
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.text import nearest


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Labelled pictures: paths, one class index each, display names of the classes."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

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


def labelled(root: Path, split: str | None = None) -> Pictures:
    """Pictures in class folders, `<root>[/<split>]/<class>/*`; folders in order of their names.

    Raises DataError for a missing or empty folder and for a class folder without pictures.
    """
    folder = root / split if split else root
    if not folder.is_dir():
        raise DataError(f"expected a folder of class folders at {folder}, found nothing: check the path")
    class_folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not class_folders:
        raise DataError(f"expected class folders with pictures in {folder}, found none: use <class>/<picture>")
    names = display_names(root)
    paths: list[Path] = []
    labels: list[int] = []
    for index, class_folder in enumerate(class_folders):
        found = list_pictures(class_folder)
        if not found:
            raise DataError(f"class folder {class_folder} has no pictures: add some or remove the folder")
        paths += found
        labels += [index] * len(found)
    return Pictures(tuple(paths), tuple(labels), tuple(names.get(f.name, f.name) for f in class_folders))


def remap_labels(pictures: Pictures, classes: Sequence[str], folder: Path) -> Pictures:
    """The same pictures with labels that index `classes`; DataError names a class that is not among them."""
    places = {name: index for index, name in enumerate(classes)}
    for name in pictures.classes:
        if name not in places:
            raise DataError(f"{folder} has a class '{name}' that the model does not know{nearest(name, classes)}")
    return Pictures(pictures.paths, tuple(places[pictures.classes[label]] for label in pictures.labels), tuple(classes))


def has_split(root: Path, split: str) -> bool:
    """Whether `<root>/<split>` is a folder."""
    return (root / split).is_dir()


def display_names(root: Path) -> dict[str, str]:
    """Folder name -> display name from `<root>/names.json`, or from the folder above; {} without one."""
    for place in (root / "names.json", root.parent / "names.json"):
        if place.is_file():
            try:
                parsed = json.loads(place.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{place} is not JSON ({error}): expected folder names mapped to names") from error
            if not isinstance(parsed, dict) or not all(isinstance(v, str) for v in parsed.values()):
                raise DataError(f"{place}: expected an object of folder names mapped to names")
            return parsed
    return {}


def list_images(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Every picture below these folders, labels ignored, in order of their paths within each folder."""
    paths: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise DataError(f"expected a folder of pictures at {root}, found nothing: check the path")
        found = list_pictures(root)
        if not found:
            raise DataError(f"expected pictures in {root}, found none")
        paths += found
    return tuple(paths)


def subsample_evenly(paths: Sequence[Path], count: int) -> tuple[Path, ...]:
    """At most `count` of the paths, at even distances in their order."""
    count = min(count, len(paths))
    return tuple(paths[i * len(paths) // count] for i in range(count))


def digest_of(picture: Path) -> str:
    """The first 16 digits of a file's sha256."""
    with picture.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def open_picture(path: Path) -> Image.Image:
    """A picture as the device reads it: RGB, upright, 16 bits scaled to 8, alpha dropped; see `runtime.frames`.

    Raises ImageError, which names the file, where it cannot be read.
    """
    return Image.fromarray(read_picture(path))


def load_batch(paths: Sequence[Path], preprocessing: Preprocessing) -> np.ndarray:
    """Pictures as the model sees them: uint8 [N, H, W, 3] RGB."""
    return np.stack([preprocessing.array(as_frame(path)) for path in paths])
