"""Explanation supervision by human annotation: object masks or boxes beside pictures, as coverage of a crop's patches.

A picture's object is taken from the first of these that exists:

    <masks folder>/<path of the picture>.png    where `masks` is given; the picture's suffix is replaced
    <picture>.mask.png                          beside the picture: cat.jpg -> cat.mask.png
    boxes.json                                  in the data folder or the one above: an object that maps a picture's
                                                path, from that file's folder, to [[left, top, right, bottom], ...]

Boxes are in pixels of the picture as stored, right and bottom not included. In a mask, as large as its picture,
whatever is not black belongs to the object, in 16 bits as in 8. Where the picture has an EXIF orientation, boxes and
masks are turned with it; a mask with an EXIF orientation of its own is turned by that one instead. Pictures without
either, and crops that show the object everywhere or nowhere, give no shape to learn and are skipped. Supervision
without annotation is `edgex.shapley.labels`; the loss is `edgex.training.losses`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from edgex.data.crops import Crops, Folder, crops_of, joined_crops
from edgex.errors import DataError, ImageError
from edgex.runtime import schema
from edgex.runtime.errors import first_line
from edgex.runtime.frames import as_frame, open_image
from edgex.runtime.json_text import read_json
from edgex.runtime.picture_files import MASK_SUFFIX
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.progress import Progress

BOXES = "boxes.json"
CHUNK = 64
_ORIENTATION = 0x0112
"""EXIF tag."""

Boxes = tuple[tuple[float, float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class Masks:
    """Objects of V crops of pictures; coverage: float32 [V, P], share of each patch that the object covers, [0, 1]."""

    crops: Crops
    coverage: Tensor

    def __len__(self) -> int:
        return len(self.coverage)


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What is known of the objects in one folder of pictures.

    root: the folder. masks: a parallel folder of PNG masks, or None. boxes: by path from where they were found, in
    which the folder lies at `inside`.
    """

    root: Path
    masks: Path | None
    boxes: Mapping[str, Boxes]
    inside: Path

    def mask(self, path: Path) -> Image.Image | None:
        """The object in a picture, upright, as a grey picture (mode L) of 0 and 255; None where nothing is known."""
        beside = path.with_name(path.stem + MASK_SUFFIX)
        parallel = self.masks / path.relative_to(self.root).with_suffix(".png") if self.masks else None
        for place in (parallel, beside):
            if place is not None and place.is_file():
                return _read_mask(place, path)
        boxes = self.boxes.get((self.inside / path.relative_to(self.root)).as_posix()) if self.boxes else None
        if boxes is None:
            return None
        stored = _stored(path)
        return _turned(_draw(boxes, stored.size), stored.orientation)


def annotations_of(root: Path, masks: Path | None = None) -> Annotations:
    """The annotations of the pictures below `root`; masks: the parallel folder.

    Raises DataError for a masks folder that is not there and for a boxes.json that is not as described.
    """
    if masks is not None and not masks.is_dir():
        raise DataError(f"expected a folder of masks at {masks}, found nothing: check the path")
    for folder in (root.resolve(), root.resolve().parent):
        if (folder / BOXES).is_file():
            return Annotations(root, masks, _read_boxes(folder / BOXES), root.resolve().relative_to(folder))
    return Annotations(root, masks, {}, Path())


def masked_crops(
    folders: Sequence[Folder],
    masks: Sequence[Path | None],
    preprocessing: Preprocessing,
    grid: tuple[int, int],
    *,
    crop_scale: float,
    seed: int,
) -> Masks:
    """The crops of all folders' pictures whose object is known, with the object on the patch grid.

    masks: each folder's parallel folder of masks, or None. grid: (rows, columns) of patches. Raises DataError where
    no picture has a mask or a box.
    """
    parts, coverage = [], []
    with Progress("masks", total=sum(len(folder.paths) for folder in folders), unit="pictures") as progress:
        for folder, parallel in zip(folders, masks, strict=True):
            known = annotations_of(folder.root, parallel)
            crops = crops_of(
                folder.paths,
                preprocessing,
                crops=folder.crops_per_picture,
                crop_scale=crop_scale,
                seed=seed,
                chunk=CHUNK,
            )
            parts.append(crops)
            coverage.append(_coverage(crops, known, grid, progress))
    every, found = joined_crops(parts), torch.cat(coverage)
    # A crop without a mask is NaN everywhere, one that shows the object everywhere or nowhere has no spread.
    kept = ((found.amax(dim=1) - found.amin(dim=1)) > 0).nonzero()[:, 0]
    if not len(kept):
        roots = ", ".join(str(folder.root) for folder in folders)
        raise DataError(
            f"expected masks or boxes of the pictures in {roots}, found none that shows an object in part: add "
            f"<picture>{MASK_SUFFIX} or {BOXES}"
        )
    return Masks(every.select(kept), found[kept])


def _coverage(crops: Crops, known: Annotations, grid: tuple[int, int], progress: Progress) -> Tensor:
    """float32 [V, P] of all crops of one folder's pictures, NaN where the object is not known."""
    rows, columns = grid
    # Bicubic weights would ring at the object's edge; linear ones give the share that a pixel covers. Borders are no
    # object: a mean of 0 makes them black.
    smooth = dataclasses.replace(
        crops,
        preprocessing=dataclasses.replace(crops.preprocessing, interpolation="bilinear", mean=(0.0, 0.0, 0.0)),
    )
    found = torch.full((len(crops), rows * columns), torch.nan)
    by_picture: dict[int, list[int]] = {}
    for crop, picture in enumerate(crops.picture.tolist()):
        by_picture.setdefault(picture, []).append(crop)
    for picture, places in by_picture.items():
        path = crops.paths[picture]
        mask = known.mask(path)
        for crop in places if mask is not None else []:
            assert mask is not None
            pixels = torch.from_numpy(smooth.shown(mask.convert("RGB"), crop)[..., 0] / np.float32(255))
            height, width = pixels.shape
            patches = pixels.reshape(rows, height // rows, columns, width // columns)
            found[crop] = patches.mean(dim=(1, 3)).flatten()
        progress.advance()
    return found


def _draw(boxes: Boxes, size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    shape = ImageDraw.Draw(mask)
    for left, top, right, bottom in boxes:
        # Cut to the picture, since Pillow knows no larger numbers than 32 bits.
        left, right = (round(min(max(x, 0.0), size[0])) for x in (left, right))
        top, bottom = (round(min(max(y, 0.0), size[1])) for y in (top, bottom))
        if right > left and bottom > top:
            # Pillow paints the last row and column that are named.
            shape.rectangle((left, top, right - 1, bottom - 1), fill=255)
    return mask


def _read_mask(place: Path, picture: Path) -> Image.Image:
    of_mask, of_picture = _stored(place), _stored(picture)
    own = of_mask.orientation != 1
    found, expected = (of_mask.upright_size, of_picture.upright_size) if own else (of_mask.size, of_picture.size)
    if found != expected:
        raise DataError(
            f"{place} is {found[0]}x{found[1]} px, its picture {picture.name} {expected[0]}x{expected[1]}: a mask must "
            "be as large as its picture"
        )
    mask = Image.fromarray(np.where(_not_black(place), np.uint8(255), np.uint8(0)))
    return mask if own else _turned(mask, of_picture.orientation)


def _not_black(place: Path) -> np.ndarray:
    """Which pixels of a mask are not black, upright: bool [H, W]."""
    frame = as_frame(place)
    if isinstance(frame.source, Image.Image) and frame.source.mode.startswith("I"):
        # Numbers of objects, of which the first ones would be 0 in 8 bits.
        return np.asarray(frame.source) != 0
    return np.any(frame.rgb(), axis=2)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A picture's (width, height) as its file stores it, and its EXIF orientation."""

    size: tuple[int, int]
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        return self.size if self.orientation < 5 else (self.size[1], self.size[0])


def _stored(path: Path) -> _Stored:
    """What a picture's file says before it is decoded."""
    with open_image(path) as image:
        try:
            return _Stored(image.size, image.getexif().get(_ORIENTATION, 1))
        except Exception as error:
            # The orientation of some files stands behind their pixels, which are decoded then.
            raise ImageError(f"{path}: cannot be decoded: {first_line(error)}") from error


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """A picture without EXIF data of its own, turned as an EXIF orientation (1 to 8) says."""
    if orientation == 1:
        return image
    exif = image.getexif()
    exif[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


_BOXES = schema.keyed(schema.listed(schema.row(*[schema.number] * 4)))


def _read_boxes(path: Path) -> dict[str, Boxes]:
    advice = "map each picture's path to [[left, top, right, bottom], ...]"
    return schema.checked(_BOXES, read_json(path, error=DataError), str(path), advice=advice, error=DataError)
