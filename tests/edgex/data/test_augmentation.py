"""Random crops and mirror images: what is cut out, and which way round it is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgex.data.augmentation import augment
from edgex.runtime.preprocessing import Preprocessing

PREPROCESSING = Preprocessing((32, 32), 32, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def picture() -> Image.Image:
    """80x60 pixels: red grows from left to right, green from top to bottom."""
    rows, columns = np.mgrid[0:60, 0:80]
    pixels = np.stack([3 * columns, 4 * rows, np.zeros_like(rows)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_half_of_the_pictures_are_mirrored(picture: Image.Image) -> None:
    mirrored = 0
    for seed in range(200):
        plain = augment(picture, PREPROCESSING, (seed,), crop_scale=0.5, mirror=False)
        assert plain[:, 0, 0].mean() < plain[:, -1, 0].mean(), "mirror=False leaves left and right"
        found = augment(picture, PREPROCESSING, (seed,), crop_scale=0.5, mirror=True)
        turned = np.array_equal(found, plain[:, ::-1])
        assert turned or np.array_equal(found, plain)
        mirrored += turned
    assert 70 < mirrored < 130


def test_crops_are_as_small_as_allowed_and_no_smaller(picture: Image.Image) -> None:
    """The gradients tell a crop's extent: red spans its width, green its height."""
    for least in (0.1, 0.9):
        areas = []
        for seed in range(200):
            pixels = augment(picture, PREPROCESSING, (seed,), crop_scale=least, mirror=False).astype(float)
            width = (pixels[:, 30, 0] - pixels[:, 1, 0]).mean() / 3 * 32 / 29
            height = (pixels[30, :, 1] - pixels[1, :, 1]).mean() / 4 * 32 / 29
            areas.append(width * height / (80 * 60))
        # Wide or high crops are cut at the picture's edge, which costs at most a quarter of their area.
        assert least * 0.7 < min(areas) < least + 0.1
        assert max(areas) < 1.05
