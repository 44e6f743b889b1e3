"""Text in pictures: a font that has its characters, since Pillow's own has few beyond ASCII.

Fonts are looked for where fontconfig, macOS and Windows keep them; nothing is installed or downloaded. Which text is
drawn where is decided by the callers.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

from PIL import ImageFont, features

from edgex.runtime.errors import UsageError
from edgex.runtime.printable import printable

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_PROBE_SIZE = 16
_NO_CHARACTER = "\U0010fffe"
"""Stands for no character in Unicode, so that a font draws the sign that it has for missing ones."""


def fit_text(
    texts: Sequence[str],
    size: int,
    font: str | os.PathLike[str] | None = None,
    *,
    width: float = math.inf,
    smallest: int | None = None,
) -> tuple[str, ImageFont.FreeTypeFont]:
    """The first of the texts that can be drawn, made `printable`, and a font that has every character of it.

    texts: from the wanted one to the plainest; where none can be drawn, the last one in ASCII, with escapes. size: of
    the font in pixels. font: a font file that is used where it has the characters. Defaults to Pillow's own font, then
    to the fonts of the system. width: in pixels, that the text has to fit into. smallest: size to which the font may
    shrink for that. Defaults to `size`. Where no text fits, it is the last one, in the smallest size.

    Raises UsageError for a font file that cannot be read.
    """
    check_font(font)
    given = None if font is None else os.fspath(font)
    smallest = size if smallest is None else min(smallest, size)
    for text in map(printable, texts):
        if (found := _font_with(frozenset(text), given)) is not None:
            fitting = _shrunk(text, found, size, width)
            if fitting >= smallest:
                return text, _load(found, fitting)
    text = printable(texts[-1])
    if (found := _font_with(frozenset(text), given)) is not None:
        return text, _load(found, smallest)
    text = text.encode("ascii", "backslashreplace").decode()
    return text, _load("", max(_shrunk(text, "", size, width), smallest))


def _shrunk(text: str, font: str, size: int, width: float) -> int:
    """The largest size up to `size` in which the text is at most so wide; 0 where none is."""
    wide = _load(font, size).getlength(text)
    fitting = size if wide <= width else int(size * width / wide)
    # Hinting makes small type a little wider than its size says.
    while fitting > 0 and _load(font, fitting).getlength(text) > width:
        fitting -= 1
    return fitting


def check_font(font: str | os.PathLike[str] | None) -> None:
    """Raises UsageError for a font file that cannot be read; None is no font file."""
    try:
        _load("" if font is None else os.fspath(font), _PROBE_SIZE)
    except OSError as error:
        raise UsageError(
            f"expected a font file (.ttf, .otf, .ttc), found {font}, which cannot be read as one ({error})",
            argument="font",
        ) from None


@lru_cache(maxsize=1024)
def _font_with(characters: frozenset[str], font: str | None) -> str | None:
    """The first font file that has all the characters, "" for Pillow's own font; None where no font has them."""
    if not _is_laid_out(characters):
        return None
    chosen = [font] if font is not None else []
    return next((file for file in (*chosen, "", *_system_fonts()) if _has(file, characters)), None)


def _is_laid_out(characters: frozenset[str]) -> bool:
    """Whether Pillow puts the characters in their order: right to left only with the libraries for that."""
    from_right = any(unicodedata.bidirectional(character) in ("R", "AL") for character in characters)
    return not from_right or bool(features.check("raqm") and features.check("fribidi"))


def _has(file: str, characters: frozenset[str]) -> bool:
    try:
        font = _load(file, _PROBE_SIZE)
        missing = _drawn(font, _NO_CHARACTER)
        return all(_drawn(font, character) != missing for character in characters if _is_seen(character))
    except (OSError, ValueError, MemoryError):  # no font, or one whose sizes are fixed
        return False


def _is_seen(character: str) -> bool:
    """Whether a character makes marks of its own: not white space, joiners and signs that change others."""
    return unicodedata.category(character) not in ("Zs", "Cf", "Mn", "Me")


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@lru_cache(maxsize=64)
def _load(file: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of this size in pixels; "" is Pillow's own."""
    return ImageFont.truetype(file, size) if file else cast("ImageFont.FreeTypeFont", ImageFont.load_default(size))


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    """The system's font files: those of regular weight first, then the larger ones, which have more characters."""
    found = {path: path.stat().st_size for folder in font_folders() for path in _fonts_below(folder)}
    ordered = sorted(found, key=lambda path: ("regular" not in path.stem.lower(), -found[path], path))
    return tuple(map(str, ordered))


def _fonts_below(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError:
        return


def font_folders() -> list[Path]:
    """Where the system keeps fonts: fontconfig's defaults, macOS's and Windows's folders."""
    data = [os.environ.get("XDG_DATA_HOME") or "~/.local/share"]
    data += (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep)
    folders = [f"{folder}/fonts" for folder in data] + ["~/.fonts"]
    folders += ["~/Library/Fonts", "/Library/Fonts", "/System/Library/Fonts"]
    folders += [f"{os.environ[name]}{end}" for name, end in _WINDOWS.items() if name in os.environ]
    return [Path(os.path.expanduser(folder)) for folder in folders]  # noqa: PTH111  # it works without a home


_WINDOWS = {"WINDIR": "/Fonts", "LOCALAPPDATA": "/Microsoft/Windows/Fonts"}
