"""Crops of pictures: the centre crop that a model sees, and random crops that can be made again from their seeds.

A crop is stored as its seed; its pixels are decoded when they are needed, so that ten thousand crops take no memory.
Labels of crops are in `edgex.shapley.labels`, masks in `edgex.data.masks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgex.data import image_folders
from edgex.data.augmentation import augment
from edgex.data.loading import loaded
from edgex.data.readable import ReadCheck
from edgex.errors import UsageError
from edgex.runtime.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Folder:
    """Pictures of one folder that a vector is learned from, and how many crops of each are made."""

    root: Path
    paths: tuple[Path, ...]
    crops_per_picture: int


@dataclasses.dataclass(frozen=True)
class Crops:
    """V crops of pictures.

    paths: the pictures. picture: int64 [V], position in paths. seeds: int64 [V, 4], what a crop is drawn
    from; the last number is 0 for the centre crop. crop_scale: smallest share of its picture's area that a random
    crop keeps.
    """

    paths: tuple[Path, ...]
    picture: Tensor
    seeds: Tensor
    preprocessing: Preprocessing
    crop_scale: float

    def __len__(self) -> int:
        return len(self.picture)

    def select(self, crops: Tensor) -> Crops:
        """These crops; the list of pictures stays."""
        return dataclasses.replace(self, picture=self.picture[crops], seeds=self.seeds[crops])

    def shown(self, image: Image.Image, crop: int) -> np.ndarray:
        """The crop of a picture: uint8 [H, W, 3]; any picture as large as the crop's own may be given."""
        return _cut(image, tuple(self.seeds[crop].tolist()), self.preprocessing, self.crop_scale)

    def batches(self, size: int, *, workers: int | None = None) -> Iterator[Tensor]:
        """The crops' pixels in order, uint8 [N, H, W, 3], decoded ahead; workers: see `edgex.data.loading.loaded`."""
        load = _CropLoader(self.preprocessing, self.crop_scale)
        names = [self.paths[index] for index in self.picture.tolist()]
        crops = list(zip(names, map(tuple, self.seeds.tolist()), strict=True))
        requests = [crops[first : first + size] for first in range(0, len(crops), size)]
        for images in loaded(load, requests, pictures=len(crops), workers=workers):
            yield torch.from_numpy(images)


@dataclasses.dataclass(frozen=True)
class _CropLoader:
    """Cuts crops out of pictures: (path, seed) of each -> uint8 [N, H, W, 3]."""

    preprocessing: Preprocessing
    crop_scale: float

    def __call__(self, crops: Sequence[tuple[Path, tuple[int, ...]]]) -> np.ndarray:
        return np.stack(
            [_cut(image_folders.open_picture(path), seed, self.preprocessing, self.crop_scale) for path, seed in crops]
        )


def _cut(image: Image.Image, seed: tuple[int, ...], preprocessing: Preprocessing, crop_scale: float) -> np.ndarray:
    """uint8 [H, W, 3]; a seed that ends with 0 is the centre crop's."""
    if seed[-1] == 0:
        return preprocessing.array(image)
    return augment(image, preprocessing, seed, crop_scale=crop_scale, mirror=True)


def crops_of(
    paths: Sequence[Path], preprocessing: Preprocessing, *, crops: int, crop_scale: float, seed: int, chunk: int
) -> Crops:
    """The centre crop and `crops` - 1 random crops of each picture, ordered by chunk of pictures, then by crop.

    A crop depends on the seed, the chunk, the place in the chunk and its own number alone.
    """
    rows = [
        (number * chunk + place, (seed, number, place, crop))
        for number in range(-(-len(paths) // chunk))
        for crop in range(crops)
        for place in range(min(chunk, len(paths) - number * chunk))
    ]
    picture = torch.tensor([index for index, _ in rows])
    return Crops(tuple(paths), picture, torch.tensor([seeds for _, seeds in rows]), preprocessing, crop_scale)


def joined_crops(parts: Sequence[Crops]) -> Crops:
    """Crops of several lists of pictures as one."""
    first, offset, picture = parts[0], 0, []
    for part in parts:
        picture.append(part.picture + offset)
        offset += len(part.paths)
    paths = tuple(path for part in parts for path in part.paths)
    return dataclasses.replace(
        first, paths=paths, picture=torch.cat(picture), seeds=torch.cat([part.seeds for part in parts])
    )


def gather(
    roots: Sequence[Path], *, crops: Sequence[int], limit: int | None, check: ReadCheck | None = None
) -> tuple[Folder, ...]:
    """The pictures of some folders; crops: how many of each picture, one number for all folders or one for each.

    limit: take that many pictures per folder, evenly spread. check: what becomes of pictures that cannot be read;
    defaults to an error. Raises UsageError, and DataError for a folder without pictures and for bad pictures.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"expected a limit of at least 1 picture, found {limit}", argument="limit")
    if len(crops) not in (1, len(roots)):
        raise UsageError(
            f"expected one number of crops, or one for each of {len(roots)} folders, found {len(crops)}",
            argument="crops",
        )
    if min(crops) < 1:
        raise UsageError(f"expected crops of at least 1, found {min(crops)}", argument="crops")
    each = list(crops) * len(roots) if len(crops) == 1 else list(crops)
    check = check or ReadCheck()
    found = [image_folders.list_images([root], report=check.report) for root in roots]
    chosen = [image_folders.subsample_evenly(paths, limit or len(paths)) for paths in found]
    for root, all_of_it, taken in zip(roots, found, chosen, strict=True):
        check.report(f"{root}: {len(all_of_it)} pictures" + (f", {len(taken)} of them taken" if limit else ""))
    return tuple(Folder(*entry) for entry in zip(roots, check.lists(*chosen), each, strict=True))
