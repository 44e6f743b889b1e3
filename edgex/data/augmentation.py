"""Random crops and mirror images of pictures."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from edgex.runtime.preprocessing import Preprocessing


def augment(
    image: Image.Image, preprocessing: Preprocessing, seed: tuple[int, ...], *, crop_scale: float, mirror: bool
) -> np.ndarray:
    """A random crop (area and aspect ratio), made the model's input, mirrored half of the time.

    Returns uint8 [H, W, 3]. The crop is Inception's (Szegedy et al., 2015, arXiv 1409.4842, section 6): its aspect
    ratio differs by up to 4/3 from the input's. With fit "pad" it differs so from the picture's, and the crop is
    padded, so that borders occur as they do when the model is used.
    """
    generator = np.random.default_rng(seed)
    width, height = image.size
    area = width * height * generator.uniform(crop_scale, 1.0)
    rows, columns = preprocessing.image_size
    pads = preprocessing.fit == "pad"
    ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
    ratio *= width / height if pads else columns / rows
    crop_width = min(width, max(1.0, math.sqrt(area * ratio)))
    crop_height = min(height, max(1.0, math.sqrt(area / ratio)))
    left = generator.uniform(0, width - crop_width)
    top = generator.uniform(0, height - crop_height)
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    box = (left, top, left + crop_width, top + crop_height)
    scale = min(rows / crop_height, columns / crop_width)
    size = (max(1, round(crop_width * scale)), max(1, round(crop_height * scale))) if pads else (columns, rows)
    resized = image.resize(size, resample, box=box)
    if pads:
        ground = Image.new("RGB", (columns, rows), preprocessing.mean_colour)
        ground.paste(resized, ((columns - size[0]) // 2, (rows - size[1]) // 2))
        resized = ground
    pixels = np.asarray(resized)
    return pixels[:, ::-1].copy() if mirror and generator.random() < 0.5 else pixels.copy()
