"""The pictures that an export compares on and calibrates with: which ones, and in how many views each.

A user's own pictures are compared as they are. Of few pictures further views are made, since worst cases over five
pictures say little: mirror images and cut-outs show the model other content at other places. Every view goes through
the model's own preprocessing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgex import samples
from edgex.data import image_folders
from edgex.data.readable import ReadCheck
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.text import silent

PictureSource = str | os.PathLike[str] | np.ndarray
"""A folder of pictures, or uint8 [N, H, W, 3] at the model's input size."""

USED_OF_A_FOLDER = 64
"""Pictures of a folder that are used, evenly spread over it."""

# Pictures from which on each is shown once, as it is.
ENOUGH = 24
# Cut-outs as (left, top, side lengths' share) of the picture; every other one is mirrored.
_CUTS = ((0.0, 0.0, 0.7), (0.3, 0.3, 0.7), (0.25, 0.25, 0.5), (0.3, 0.0, 0.7), (0.0, 0.3, 0.7), (0.1, 0.1, 0.8))


def choose_pictures(
    pictures: PictureSource | None,
    calibration: PictureSource | None,
    preprocessing: Preprocessing,
    progress: Callable[[str], None] | None = None,
    *,
    skip_bad: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The pictures of the gate and those to calibrate with, None without `calibration`; both uint8 [N, H, W, 3].

    The gate compares on `pictures`, or else on the pictures that calibration leaves over, or else on edgex's samples.
    Where calibration leaves none over, as of an array, its pictures serve for both. progress: told what is compared
    and what is left out. skip_bad: go on without the pictures of a folder that cannot be read.

    Raises DataError for a folder that is missing or holds no picture, and for pictures that cannot be read.
    """
    say = progress or silent
    calibrated, source, found = None, "edgex's samples", samples.paths()
    used: tuple[Path, ...] = ()
    if isinstance(calibration, np.ndarray):
        calibrated = calibration
        pictures = calibration if pictures is None else pictures
    elif calibration is not None:
        available = image_folders.list_images([Path(calibration)], report=say)
        used = image_folders.subsample_evenly(available, USED_OF_A_FOLDER)
        source, found = os.fspath(calibration), tuple(sorted(set(available) - set(used))) or used
    if isinstance(pictures, np.ndarray):
        found = ()
    elif pictures is not None:
        source, found = os.fspath(pictures), image_folders.list_images([Path(pictures)], report=say)
    check = ReadCheck(skip_bad, say)
    used, compared = check.lists(used, image_folders.subsample_evenly(found, USED_OF_A_FOLDER))
    if used:
        calibrated = image_folders.load_batch(used, preprocessing)
    if isinstance(pictures, np.ndarray):
        return pictures, calibrated
    views = picture_views([image_folders.open_picture(path) for path in compared], preprocessing)
    say(f"gate: {len(views)} views of {len(compared)} pictures of {source}")
    return views, calibrated


def picture_views(images: Sequence[Image.Image], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 [V, H, W, 3]: every RGB picture as the model sees it; of fewer than 24, further views of each as well.

    V is the number of pictures, or the smallest multiple of it that reaches 24 (at most 8 views of each).
    """
    views = min(2 + len(_CUTS), math.ceil(ENOUGH / max(1, len(images))))
    shown = [view for image in images for view in _views(image)[:views]]
    return np.stack([preprocessing.array(view) for view in shown])


def _views(image: Image.Image) -> list[Image.Image]:
    """The picture, its mirror image, and cut-outs of both."""
    mirrored = ImageOps.mirror(image)
    cuts = [_cut((image, mirrored)[index % 2], *place) for index, place in enumerate(_CUTS)]
    return [image, mirrored, *cuts]


def _cut(image: Image.Image, left: float, top: float, share: float) -> Image.Image:
    width, height = image.size
    x, y = int(left * width), int(top * height)
    return image.crop((x, y, x + max(1, int(share * width)), y + max(1, int(share * height))))
