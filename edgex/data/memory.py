"""Pictures that lie in a device's memory, and views of them that are cut there: for training faster than decoding.

A view is what `edgex.data.augmentation` cuts out of a picture's file, cut by bilinear sampling from a copy of the
picture of the input's size. Reading a file for each view is `edgex.data.crops`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from edgex.data import image_folders
from edgex.data.loading import loaded
from edgex.runtime.preprocessing import Preprocessing

_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class PicturesInMemory:
    """V pictures on one device.

    pixels: uint8 [V, S, S, 3], each whole picture squeezed to a square of the longest side that it is resized to,
        its own long side apart.
    aspects: width over height of each picture, float32 [V].
    """

    pixels: Tensor
    aspects: Tensor
    preprocessing: Preprocessing

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        workers: int | None = None,
    ) -> PicturesInMemory:
        """Decodes pictures once; workers: see `edgex.data.loading.loaded`. ImageError for one that cannot be read."""
        resize = preprocessing.resize
        side = max(*(resize if isinstance(resize, tuple) else (resize,)), *preprocessing.image_size)
        load = _Squeezer(side, Image.Resampling[preprocessing.interpolation.upper()])
        chunks = [list(paths[first : first + _CHUNK]) for first in range(0, len(paths), _CHUNK)]
        pixels = torch.empty(len(paths), side, side, 3, dtype=torch.uint8, device=device)
        aspects = torch.empty(len(paths), device=device)
        first = 0
        for images, shapes in loaded(load, chunks, pictures=len(paths), workers=workers):
            here = slice(first, first + len(images))
            pixels[here] = torch.from_numpy(images).to(device)
            aspects[here] = torch.from_numpy(shapes).to(device)
            first += len(images)
        return cls(pixels, aspects, preprocessing)

    def __len__(self) -> int:
        return len(self.pixels)

    def centre_views(self, chosen: Tensor) -> Tensor:
        """The centre crops that the model sees, but for the resampling: float32 [N, H, W, 3] in [0, 255].

        chosen: int64 [N], positions of pictures.
        """
        aspects = self.aspects[chosen]
        (rows, columns), resize = self.preprocessing.image_size, self.preprocessing.resize
        tall, wide = (resize, resize) if isinstance(resize, int) else resize
        # Of a picture whose height is 1, scaled by one factor, or by one for each side.
        if self.preprocessing.fit == "squash":
            height, width = torch.full_like(aspects, rows / tall), torch.full_like(aspects, columns / wide)
        else:
            chosen_of = torch.maximum if self.preprocessing.fit == "crop" else torch.minimum
            factor = chosen_of(torch.full_like(aspects, tall), wide / aspects)
            height, width = rows / factor, columns / (factor * aspects)
        zero = torch.zeros_like(width)
        return self._sampled(chosen, width, height, zero, zero, (1 / width, 1 / height))

    def random_views(
        self, chosen: Tensor, generator: torch.Generator, *, crop_scale: float, mirror: bool = True
    ) -> Tensor:
        """A random crop of each picture, with `mirror` turned over half of the time: float32 [N, H, W, 3] in [0, 255].

        chosen: int64 [N], positions of pictures. generator: of the pictures' device. crop_scale: smallest share of a
            picture's area that is kept. The crop is Inception's, as `edgex.data.augmentation.augment` draws it.
        """
        rows, columns = self.preprocessing.image_size
        aspects, shape = self.aspects[chosen], columns / rows
        drawn = torch.rand(5, len(chosen), generator=generator, device=self.pixels.device)
        area = crop_scale + (1 - crop_scale) * drawn[0]
        pads = self.preprocessing.fit == "pad"
        # Ratio of the crop, seen in the square that the picture was squeezed to.
        ratio = torch.exp((2 * drawn[1] - 1) * math.log(4 / 3)) * (1 if pads else shape / aspects)
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        x, y = (2 * drawn[2] - 1) * (1 - width), (2 * drawn[3] - 1) * (1 - height)
        # With padding, how much of the input's width and height the crop takes.
        own = aspects * width / height / shape
        inside = (own.clamp(max=1), (1 / own).clamp(max=1)) if pads else (torch.ones_like(own), torch.ones_like(own))
        width, height = width / inside[0], height / inside[1]
        return self._sampled(chosen, torch.where((drawn[4] < 0.5) & mirror, -width, width), height, x, y, inside)

    def _sampled(
        self, chosen: Tensor, width: Tensor, height: Tensor, x: Tensor, y: Tensor, inside: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Views of these sizes around these centres, in halves of the picture's sides.

        inside: the middle part of the view's width and height that shows the crop; the rest is filled. All [N].
        """
        zero = torch.zeros_like(width)
        box = torch.stack([torch.stack([width, zero, x], dim=1), torch.stack([zero, height, y], dim=1)], dim=1)
        rows, columns = self.preprocessing.image_size
        grid = F.affine_grid(box, [len(chosen), 3, rows, columns], align_corners=False)
        pictures = self.pixels[chosen].permute(0, 3, 1, 2).float()
        views = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
        shown = _within(inside[1], rows)[:, :, None] & _within(inside[0], columns)[:, None, :]
        return torch.where(shown[..., None], views, views.new_tensor(self.preprocessing.fill))


def _within(inside: Tensor, cells: int) -> Tensor:
    """Which of a view's rows or columns lie in its middle part: bool [N, cells]; inside: [N], that part's share."""
    centres = (2 * torch.arange(cells, device=inside.device) + 1) / cells - 1
    return centres.abs() <= inside[:, None]


@dataclasses.dataclass(frozen=True)
class _Squeezer:
    """Decodes pictures and squeezes each to a square: paths -> (uint8 [N, S, S, 3], aspects float32 [N])."""

    side: int
    resample: Image.Resampling

    def __call__(self, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        pictures = [image_folders.open_picture(path) for path in paths]
        aspects = np.array([picture.width / picture.height for picture in pictures], np.float32)
        return np.stack([np.asarray(p.resize((self.side, self.side), self.resample)) for p in pictures]), aspects
