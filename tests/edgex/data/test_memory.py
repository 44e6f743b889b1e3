"""Views cut on the device against the crops of picture files that they stand for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgex.data.augmentation import augment
from edgex.data.memory import PicturesInMemory
from edgex.runtime.preprocessing import Preprocessing
from edgex.runtime.view import Fit

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


@pytest.mark.parametrize(
    "resize, fit", [(72, "crop"), ((72, 80), "squash"), ((64, 64), "squash"), ((64, 96), "crop"), ((64, 64), "pad")]
)
@pytest.mark.parametrize("image_size", [(64, 64), (48, 80)])
def test_centre_views_show_what_the_model_sees(
    paths: list[Path], resize: int | tuple[int, int], fit: Fit, image_size: tuple[int, int]
) -> None:
    preprocessing = dataclasses.replace(PREPROCESSING, resize=resize, fit=fit)
    if image_size != (64, 64):
        preprocessing = preprocessing.at_image_size(image_size)
    pictures = PicturesInMemory.load(paths, preprocessing, torch.device("cpu"))
    views = pictures.centre_views(torch.tensor([2, 0, 1]))
    assert views.shape == (3, *image_size, 3)
    for view, path in zip(views, [paths[2], paths[0], paths[1]], strict=True):
        with Image.open(path) as image:
            wanted = preprocessing.array(image.convert("RGB"))
        error = np.abs(view.numpy() - wanted).max(axis=2)
        if fit != "pad":
            assert error.max() < 3
        else:
            # Resizing rounds the picture to whole pixels, so its edge may lie beside.
            assert np.quantile(error, 0.95) < 6


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


def test_random_views_of_a_padding_model_are_whole_crops_on_the_mean_colour(paths: list[Path]) -> None:
    """In memory and from a file alike: the picture's own proportions, bars where it does not fill the input."""
    preprocessing = dataclasses.replace(PREPROCESSING, mean=(0.0, 0.0, 1.0)).fitted("pad")
    pictures = PicturesInMemory.load(paths, preprocessing, torch.device("cpu"))
    views = pictures.random_views(torch.zeros(100, dtype=torch.int64), torch.Generator().manual_seed(1), crop_scale=0.4)
    with Image.open(paths[0]) as image:
        drawn = [augment(image, preprocessing, (seed,), crop_scale=0.4, mirror=True) for seed in range(100)]
    bars = []
    for cut in (views.numpy(), np.stack(drawn)):
        is_bar = (cut == (0, 0, 255)).all(axis=3)
        rows = is_bar.all(axis=2)
        assert (is_bar == rows[:, :, None]).all(), "a wide picture has bars above and below alone"
        assert np.abs(rows[:, :32].sum(axis=1) - rows[:, 32:].sum(axis=1)).max() <= 1, "centred"
        bars.append(rows.mean(axis=1))
    # A crop of width / height from 2 * 3/4 to 2 * 4/3, cut to the picture.
    for share in bars:
        assert share.min() == pytest.approx(1 - 1 / 1.5, abs=0.05)
        assert share.max() == pytest.approx(1 - 1 / (2 * 4 / 3), abs=0.05)
    assert bars[0].mean() == pytest.approx(bars[1].mean(), abs=0.03)


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_random_views_of_a_wide_input_keep_proportions(paths: list[Path], fit: Fit) -> None:
    preprocessing = Preprocessing((32, 64), (32, 64), "bicubic", (0.5,) * 3, (0.5,) * 3, fit)
    pictures = PicturesInMemory.load(paths, preprocessing, torch.device("cpu"))
    chosen = torch.full((200,), 2)
    views = pictures.random_views(chosen, torch.Generator().manual_seed(1), crop_scale=0.2)
    across = (views[:, 16, -1, 0] - views[:, 16, 0, 0]).abs() / 255 * 64 / 63
    down = (views[:, -1, 32, 1] - views[:, 0, 32, 1]) / 255 * 32 / 31
    inside = (across < 0.97) & (down < 0.97)
    ratio = across[inside] / down[inside]
    assert ratio.min() > 1.4 and ratio.max() < 2.8
