"""Random crops and mirror images of pictures."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from edgex.runtime.preprocessing import Preprocessing


def augment(
    image: Image.Image, preprocessing: Preprocessing, seed: tuple[int, ...], *, crop_scale: float, mirror: bool
) -> np.ndarray:
    """A random crop (area and aspect ratio), resized to the model's input, mirrored half of the time.

    Returns uint8 [H, W, 3]. The crop is Inception's (Szegedy et al., 2015, arXiv 1409.4842, section 6).
    """
    generator = np.random.default_rng(seed)
    width, height = image.size
    area = width * height * generator.uniform(crop_scale, 1.0)
    ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
    crop_width = min(width, max(1.0, math.sqrt(area * ratio)))
    crop_height = min(height, max(1.0, math.sqrt(area / ratio)))
    left = generator.uniform(0, width - crop_width)
    top = generator.uniform(0, height - crop_height)
    rows, columns = preprocessing.image_size
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    box = (left, top, left + crop_width, top + crop_height)
    resized = image.resize((columns, rows), resample, box=box)
    pixels = np.asarray(resized)
    return pixels[:, ::-1].copy() if mirror and generator.random() < 0.5 else pixels.copy()
