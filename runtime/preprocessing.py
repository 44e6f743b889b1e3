"""From a picture of any size to the uint8 pixels the model sees, and back from there to the picture.

The pixels equal torchvision's `Resize(resize, antialias=True)` + `CenterCrop` on a PIL picture to the
last bit, so training, evaluation and the device see the same input. Mean and standard deviation are only
carried here: a fused model holds them in its first layer. Reading and checking frames is in `frames`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgex.runtime import schema
from edgex.runtime.errors import UsageError
from edgex.runtime.frames import Frame, as_frame
from edgex.runtime.resample import Interpolation, resample, resample_unrounded

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class View:
    """Where the model's pixels lie in a frame: resize, then a crop at `offset` of the resized picture."""

    frame_size: tuple[int, int]
    """(height, width) of the frame in pixels."""
    resized: tuple[int, int]
    """(height, width) after the resize."""
    offset: tuple[int, int]
    """(top, left) of the crop in the resized picture; negative where the crop is larger (black padding)."""
    image_size: tuple[int, int]
    """(height, width) of the crop: the model's input."""

    @property
    def scale(self) -> tuple[float, float]:
        """Frame pixels per model pixel, (vertical, horizontal)."""
        return self.frame_size[0] / self.resized[0], self.frame_size[1] / self.resized[1]

    def to_frame(self, top: float, left: float) -> tuple[float, float]:
        """Maps a point (top, left) of the model's input to frame coordinates, both in pixels from the corner.

        Points in the padding come out outside the frame.
        """
        scale_y, scale_x = self.scale
        return (top + self.offset[0]) * scale_y, (left + self.offset[1]) * scale_x

    def to_model(self, top: float, left: float) -> tuple[float, float]:
        """The inverse of `to_frame`: frame coordinates to coordinates of the model's input."""
        scale_y, scale_x = self.scale
        return top / scale_y - self.offset[0], left / scale_x - self.offset[1]

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the part of the frame that the model sees, in frame pixels."""
        top, left = self.to_frame(0, 0)
        bottom, right = self.to_frame(*self.image_size)
        height, width = self.frame_size
        return max(top, 0.0), max(left, 0.0), min(bottom, float(height)), min(right, float(width))


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model's input.

    image_size: (height, width) of the input in pixels.
    resize: short side after resizing, in pixels; or (height, width) that every picture is resized to, whatever its
        shape ("squash").
    interpolation: "bicubic" or "bilinear", both with antialiasing.
    mean, std: per channel (R, G, B), of pixels scaled to [0, 1].
    """

    image_size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", _numbers(self.image_size, "image_size", 2, int))
        object.__setattr__(self, "mean", _numbers(self.mean, "mean", 3, float))
        object.__setattr__(self, "std", _numbers(self.std, "std", 3, float))
        object.__setattr__(self, "resize", _side_or_size(self.resize))
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if min(*sides, *self.image_size) < 1:
            raise UsageError(
                "preprocessing: expected resize and image_size of at least 1 pixel, "
                f"found resize {self.resize!r} and image_size {self.image_size!r}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"preprocessing: expected interpolation {' or '.join(map(repr, INTERPOLATIONS))}, "
                f"found {self.interpolation!r}"
            )
        if min(self.std) <= 0:
            raise UsageError(f"preprocessing: expected std above 0 for every channel, found {self.std!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Builds it from the object stored in artefacts, see `to_dict`.

        Raises ArtefactError for a missing key or an unusable value; unknown keys are ignored.
        """
        return schema.checked(PREPROCESSING, values, "preprocessing")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: image_size [height, width], resize or [height, width], interpolation, mean [3], std [3]."""
        return {
            "image_size": list(self.image_size),
            "resize": list(self.resize) if isinstance(self.resize, tuple) else self.resize,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def at_image_size(self, image_size: tuple[int, int]) -> Preprocessing:
        """The same for another input size (height, width): the crop keeps its share of the picture."""
        if isinstance(self.resize, tuple):
            scales = [new / old for new, old in zip(image_size, self.image_size, strict=True)]
            resize: Any = tuple(round(side * scale) for side, scale in zip(self.resize, scales, strict=True))
        else:
            resize = round(self.resize * min(image_size) / min(self.image_size))
        return replace(self, image_size=image_size, resize=resize)

    def view(self, height: int, width: int) -> View:
        """Where the model's pixels lie in a frame of height x width pixels."""
        return _view(height, width, self.resize, self.image_size)

    def crop(self, image: Image.Image) -> Image.Image:
        """Resizes to `resize`, cuts the centre: an RGB picture of `image_size`.

        image: any PIL picture; EXIF rotation is applied, modes other than RGB are converted, see
            `frames.as_frame`. Where the resized picture is smaller than `image_size`, black is added around.
        """
        return Image.fromarray(self.array(image))

    def array(self, image: Image.Image | np.ndarray | Frame, *, exact: bool = True) -> np.ndarray:
        """As `crop`, as uint8 [H, W, 3] RGB in [0, 255].

        image: a PIL picture, a uint8 RGB array [H, W, 3] or whatever else `frames.as_frame` takes.
        exact: False for `resample_unrounded`: about half the time, rarely more than one grey level off.
        """
        frame = as_frame(image)
        view = self.view(frame.height, frame.width)
        (top, left), (height, width) = view.offset, self.image_size
        visible = (
            max(top, 0),
            max(left, 0),
            min(top + height, view.resized[0]) - max(top, 0),
            min(left + width, view.resized[1]) - max(left, 0),
        )
        scale = resample if exact else resample_unrounded
        pixels = scale(frame.region, view.frame_size, view.resized, visible, self.interpolation)
        if frame.color == "bgr":
            pixels = pixels[..., ::-1]
        if visible[2:] == (height, width):
            return np.ascontiguousarray(pixels)
        padded = np.zeros((height, width, 3), np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        padded[y : y + visible[2], x : x + visible[3]] = pixels
        return padded


_SIDE = schema.whole(1, schema.MAX_SIDE)
_SIZE = schema.listed(_SIDE, least=2, most=2)
PREPROCESSING = schema.record(
    Preprocessing,
    image_size=_SIZE,
    resize=lambda value: _SIZE(value) if isinstance(value, (list, tuple)) else _SIDE(value),
    interpolation=schema.one_of(*INTERPOLATIONS),
    mean=schema.listed(schema.number, least=3, most=3),
    std=schema.listed(schema.positive, least=3, most=3),
)
"""The object stored in artefacts, see `Preprocessing.to_dict`."""


@lru_cache(maxsize=64)
def _view(height: int, width: int, resize: int | tuple[int, int], image_size: tuple[int, int]) -> View:
    """The size arithmetic of torchvision.transforms.functional: resize, pad and center_crop."""
    if isinstance(resize, tuple):
        resized = resize
    else:
        long_side = int(resize * max(height, width) / min(height, width))
        resized = (resize, long_side) if height <= width else (long_side, resize)
    offset = tuple(
        int(round((size - crop) / 2.0)) if size >= crop else -((crop - size) // 2)  # noqa: RUF046
        for size, crop in zip(resized, image_size, strict=True)
    )
    return View((height, width), resized, (offset[0], offset[1]), image_size)


def _side_or_size(value: Any) -> int | tuple[int, int]:
    if _is_integer(value):
        return int(value)
    height, width = _numbers(value, "resize", 2, int)
    return height, width


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _numbers(values: Any, name: str, length: int, kind: type) -> tuple[Any, ...]:
    try:
        numbers = tuple(values)
        usable = len(numbers) == length and all(
            _is_integer(value) if kind is int else np.isfinite(float(value)) for value in numbers
        )
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise UsageError(f"preprocessing: expected {name} of {length} {kind.__name__}s, found {values!r}")
    return tuple(kind(value) for value in numbers)
