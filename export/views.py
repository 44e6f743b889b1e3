"""The pictures that the gate compares on: a user's own as they are, a few of them in several views each.

Worst cases over five pictures say little. Mirror images and cut-outs show the model other content at other places,
and every view goes through the model's own preprocessing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from edgex.runtime.preprocessing import Preprocessing

# Pictures from which on each is shown once, as it is.
ENOUGH = 24
# Cut-outs as (left, top, side lengths' share) of the picture; every other one is mirrored.
_CUTS = ((0.0, 0.0, 0.7), (0.3, 0.3, 0.7), (0.25, 0.25, 0.5), (0.3, 0.0, 0.7), (0.0, 0.3, 0.7), (0.1, 0.1, 0.8))


def gate_pictures(images: Sequence[Image.Image], preprocessing: Preprocessing) -> np.ndarray:
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
