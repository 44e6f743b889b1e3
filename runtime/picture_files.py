"""Which files are pictures, by their names, and the pictures of a folder. Reading them is `frames`.

The one list of suffixes and the one lister of edgex, for training as on the device. Folders are searched to the bottom,
through links too; what is passed over on the way is counted, so that a caller can say it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter, deque
from pathlib import Path

from PIL import Image, features

PICTURE_FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".gif": "GIF",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    ".jp2": "JPEG2000",
    ".avif": "AVIF",
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
}
"""Suffix of a picture's file, in small letters -> the file format, as Pillow calls it."""

SUFFIX_LIST = ", ".join(sorted(PICTURE_FORMATS))
"""For messages."""

MASK_SUFFIX = ".mask.png"
"""What the object mask beside a picture is called, cat.mask.png for cat.jpg: no picture of its own in a folder."""

COMPANIONS = frozenset({"boxes.json", "names.json"})
"""Files that edgex itself reads beside pictures: boxes of objects, and display names of classes."""

_OPTIONAL = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
"""Formats that Pillow may be built without -> what it calls the feature."""

_SYSTEM = frozenset(
    {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "lost+found", "#recycle"}
)
"""What operating systems and network storage leave in folders, in small letters, beside names that begin with a dot."""

HIDDEN, BROKEN, LOOPS, REFUSED, BARE = (
    "hidden or of the system",
    "broken links",
    "links to folders that are listed already",
    "folders that may not be read",
    "without a suffix",
)
_SAID = 5
"""Reasons that a message gives; the rest is added up."""


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """The pictures below a folder, sorted by path, and how many files and folders were passed over, by reason."""

    pictures: tuple[Path, ...]
    passed_over: Counter[str]


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it is a picture; the file itself is not looked at."""
    return Path(path).suffix.lower() in PICTURE_FORMATS


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Whether a name is the pattern of an image sequence, such as frame_%04d.jpg, as video programs take it."""
    return re.search(r"%\d*d", os.fspath(path)) is not None and not Path(path).exists()


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or is one that an operating system leaves in folders."""
    return name.startswith(".") or name.lower() in _SYSTEM


def find_pictures(folder: str | os.PathLike[str]) -> PictureFiles:
    """The files below a folder whose names say that they are pictures, sorted by path.

    Links to files and folders are followed, each folder once: not again by a second link to it, nor by a link to a
    folder that the link itself lies in. Hidden and system files and folders, files of other kinds, broken links and
    pictures of a format that this machine's Pillow cannot read are passed over. Masks and `COMPANIONS`
    belong to the pictures and are neither.

    Raises OSError where the folder cannot be listed.
    """
    pictures: list[Path] = []
    passed_over: Counter[str] = Counter()
    real, linked, seen = deque([Path(folder)]), deque[Path](), set[str]()
    while real or linked:
        # Folders before links to them: a picture keeps the shorter of its paths.
        here = (real or linked).popleft()
        place = os.path.realpath(here)
        if place in seen:
            passed_over[LOOPS] += 1
            continue
        seen.add(place)
        try:
            inside = list_folder(here, passed_over)
        except OSError:
            if here == Path(folder):
                raise
            passed_over[REFUSED] += 1
            continue
        for entry in inside:
            if entry.is_dir():
                (linked if entry.is_symlink() else real).append(Path(entry.path))
            elif reason := _reason_against(entry):
                passed_over[reason] += 1
            elif is_picture(entry.name) and not entry.name.endswith(MASK_SUFFIX):
                pictures.append(Path(entry.path))
    return PictureFiles(tuple(sorted(pictures)), passed_over)


def list_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """`find_pictures` without what was passed over."""
    return list(find_pictures(folder).pictures)


def list_folder(folder: Path, passed_over: Counter[str]) -> list[os.DirEntry[str]]:
    """A folder's own files and folders in order of their names; counts what is hidden, broken or a loop.

    Raises OSError where the folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    place, kept = os.path.realpath(folder), []
    for entry in listed:
        if is_hidden(entry.name):
            passed_over[HIDDEN] += 1
        elif entry.is_symlink() and not os.access(entry.path, os.F_OK):
            passed_over[BROKEN] += 1
        elif entry.is_symlink() and entry.is_dir() and _contains(os.path.realpath(entry.path), place):
            passed_over[LOOPS] += 1
        else:
            kept.append(entry)
    return kept


def describe(passed_over: Counter[str]) -> str:
    """ "7 files or folders passed over (.txt: 4, broken links: 3)"; an empty string where there are none."""
    if not (total := passed_over.total()):
        return ""
    reasons = [f"{reason}: {count}" for reason, count in passed_over.most_common(_SAID)]
    if (rest := total - sum(count for _, count in passed_over.most_common(_SAID))) > 0:
        reasons.append(f"others: {rest}")
    return f"{total} {'file or folder' if total == 1 else 'files or folders'} passed over ({', '.join(reasons)})"


def none_found(folder: str | os.PathLike[str], passed_over: Counter[str]) -> str:
    """The message about a folder without pictures."""
    found = describe(passed_over)
    return f"expected pictures ({SUFFIX_LIST}) in {os.fspath(folder)}, found none" + (found and f"; {found}")


def load_heif_plugin() -> bool:
    """Makes Pillow know HEIF where the package pillow-heif is installed; returns whether Pillow knows it."""
    if "HEIF" in Image.OPEN:
        return True
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _contains(folder: str, place: str) -> bool:
    """Whether a folder is `place` or lies above it; both are real paths."""
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)


def _reason_against(entry: os.DirEntry[str]) -> str:
    """Why a file is passed over; an empty string for pictures and what belongs to them."""
    suffix = Path(entry.name).suffix.lower()
    if not entry.is_file():
        return "no files"
    if entry.name in COMPANIONS:
        return ""
    if (kind := PICTURE_FORMATS.get(suffix)) is None:
        return suffix or BARE
    if kind == "HEIF":
        return "" if load_heif_plugin() else f"{suffix}, for which Pillow needs the package pillow-heif"
    if kind in _OPTIONAL and not features.check(_OPTIONAL[kind]):
        return f"{suffix}, which this Pillow cannot read"
    return ""
