"""Views cut on the device against the crops of picture files that they stand for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgex.data.memory import PicturesInMemory
from edgex.runtime.preprocessing import Preprocessing

PREPROCESSING = Preprocessing((64, 64), 72, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """A wide, a tall and a square picture: red grows to the right, green downwards."""
    found = []
    for number, (width, height) in enumerate([(180, 90), (80, 120), (100, 100)]):
        red = np.linspace(0, 255, width)[None].repeat(height, axis=0)
        green = np.linspace(0, 255, height)[:, None].repeat(width, axis=1)
        pixels = np.stack([red, green, np.full_like(red, 100)], axis=2).astype(np.uint8)
        found.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(found[-1])
    return found


@pytest.mark.parametrize("resize", [72, (72, 80), (64, 64)])
def test_centre_views_show_what_the_model_sees(paths: list[Path], resize: int | tuple[int, int]) -> None:
    preprocessing = dataclasses.replace(PREPROCESSING, resize=resize)
    pictures = PicturesInMemory.load(paths, preprocessing, torch.device("cpu"))
    views = pictures.centre_views(torch.tensor([2, 0, 1]))
    assert views.shape == (3, 64, 64, 3)
    for view, path in zip(views, [paths[2], paths[0], paths[1]], strict=True):
        with Image.open(path) as image:
            wanted = preprocessing.array(image.convert("RGB"))
        assert np.abs(view.numpy() - wanted).max() < 3


def test_random_views_are_crops_of_the_asked_size_of_which_half_are_mirrored(paths: list[Path]) -> None:
    pictures = PicturesInMemory.load(paths, PREPROCESSING, torch.device("cpu"))
    chosen = torch.arange(3).repeat(200)
    views = pictures.random_views(chosen, torch.Generator().manual_seed(1), crop_scale=0.4)
    across = (views[:, 32, -1, 0] - views[:, 32, 0, 0]) / 255 * 64 / 63
    down = (views[:, -1, 32, 1] - views[:, 0, 32, 1]) / 255 * 64 / 63
    mirrored = across < 0
    assert 0.4 < mirrored.float().mean() < 0.6
    area = across.abs() * down
    assert area.min() > 0.3
    assert area.max() < 1.02
    # On the screen: a crop's own aspect ratio is between 3/4 and 4/3, whatever the picture's, unless it meets a border.
    inside = (across.abs() < 0.97) & (down < 0.97)
    ratio = across.abs() * pictures.aspects[chosen] / down
    assert ratio[inside].min() > 0.73
    assert ratio[inside].max() < 1.37
    again = pictures.random_views(chosen, torch.Generator().manual_seed(1), crop_scale=0.4)
    assert torch.equal(views, again)
