"""From a picture of any size to the uint8 pixels the model sees, and back from there to the picture.

The pixels equal torchvision's `Resize(resize, antialias=True)` + `CenterCrop` on a PIL picture to the
last bit, so training, evaluation and the device see the same input. Mean and standard deviation are only
carried here: a fused model holds them in its first layer. Reading and checking frames is in `frames`, where the
input lies in a frame in `view`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from edgex.runtime import schema
from edgex.runtime.errors import UsageError
from edgex.runtime.frames import ColorOrder, Frame, as_frame
from edgex.runtime.resample import Interpolation, resample, resample_unrounded
from edgex.runtime.view import FITS, Fit, View, view_of

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model's input.

    image_size: (height, width) of the input in pixels.
    resize: (height, width) in pixels that the fit refers to; of crops it may be one number, the short side. Where it is
        larger than image_size, the middle is cut out.
    interpolation: "bicubic" or "bilinear", both with antialiasing.
    mean, std: per channel (R, G, B), of pixels scaled to [0, 1].
    fit: "crop" scales a picture to cover `resize`, "squash" scales both sides to it, "pad" scales the whole picture to
        fit into it and fills the rest with `mean_colour`. Defaults to "crop" where resize is one number, else "squash".
    """

    image_size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = None  # type: ignore[assignment]  # replaced by the default that the type of `resize` tells

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
        if self.fit is None:
            object.__setattr__(self, "fit", "squash" if isinstance(self.resize, tuple) else "crop")
        check_fit(self.fit)
        if self.fit != "crop" and not isinstance(self.resize, tuple):
            raise UsageError(f"preprocessing: expected a resize of 2 ints with fit {self.fit!r}, found {self.resize!r}")
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
        """JSON-ready: image_size [height, width], resize or [height, width], interpolation, mean [3], std [3], fit."""
        return {
            "image_size": list(self.image_size),
            "resize": list(self.resize) if isinstance(self.resize, tuple) else self.resize,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "fit": self.fit,
        }

    def at_image_size(self, image_size: tuple[int, int]) -> Preprocessing:
        """The same for another input size (height, width): the input keeps its share of the resized picture."""
        if isinstance(self.resize, int):
            short_side = self.resize * min(image_size) / min(self.image_size)
            return replace(self, image_size=image_size, resize=covering(short_side, image_size))
        sides = zip(self.resize, image_size, self.image_size, strict=True)
        height, width = (round(side * new / old) for side, new, old in sides)
        return replace(self, image_size=image_size, resize=(height, width))

    def fitted(self, fit: Fit | None) -> Preprocessing:
        """The same with another fit; None is its own. Another one shows as much of the picture as it can.

        Raises UsageError for an unknown fit.
        """
        if fit is None or fit == self.fit:
            return self
        return replace(self, fit=check_fit(fit), resize=self.image_size)

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour of `mean`, 0 to 255 per channel: what normalisation turns into zeros."""
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in self.mean)
        return red, green, blue

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour of borders: `mean_colour` with fit "pad", else black, as torchvision pads crops."""
        return self.mean_colour if self.fit == "pad" else (0, 0, 0)

    def view(self, height: int, width: int) -> View:
        """Where the model's pixels lie in a frame of height x width pixels."""
        return view_of((height, width), self.resize, self.image_size, self.fit)

    def crop(self, image: Image.Image) -> Image.Image:
        """Resizes as `fit` says, cuts the centre: an RGB picture of `image_size`.

        image: any PIL picture; EXIF rotation is applied, modes other than RGB are converted, see
            `frames.as_frame`. Where the resized picture is smaller than `image_size`, the borders have the colour
            `fill`.
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
        padded = np.full((height, width, 3), self.fill, np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        padded[y : y + visible[2], x : x + visible[3]] = pixels
        return padded


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame that is ready for a pass of the model, see `Session.prepare`."""

    pixels: np.ndarray
    """uint8 [H, W, 3] RGB, at the model's size."""
    view: View
    """Where they lie in the frame."""
    color: ColorOrder = "rgb"
    """Channel order of overlays of the frame."""


_SIDE = schema.whole(1, schema.MAX_SIDE)
_SIZE = schema.listed(_SIDE, least=2, most=2)
PREPROCESSING = schema.record(
    Preprocessing,
    image_size=_SIZE,
    resize=lambda value: _SIZE(value) if isinstance(value, (list, tuple)) else _SIDE(value),
    interpolation=schema.one_of(*INTERPOLATIONS),
    mean=schema.listed(schema.number, least=3, most=3),
    std=schema.listed(schema.positive, least=3, most=3),
    fit=schema.Default(schema.one_of(*FITS), None),
)
"""The object stored in artefacts, see `Preprocessing.to_dict`."""


def covering(short_side: float, image_size: tuple[int, int]) -> int | tuple[int, int]:
    """The `resize` of a crop of this (height, width) whose short side is `short_side` pixels: one number if square.

    In a crop that is not square the short side of the picture can be the long one of the input, so both are needed.
    """
    height, width = (round(short_side * side / min(image_size)) for side in image_size)
    return height if height == width else (height, width)


def enlarged(image_size: tuple[int, int], crop_pct: float, fit: Fit = "crop") -> int | tuple[int, int]:
    """The `resize` of which the input keeps this share of each side, by timm's rule; one number for square crops."""
    height, width = (math.floor(side / crop_pct) for side in image_size)
    return height if fit == "crop" and height == width else (height, width)


def check_fit(fit: Any) -> Fit:
    """The fit; UsageError for an unknown one."""
    if fit not in FITS:
        raise UsageError(f"expected a fit of {', '.join(FITS)}, found {fit!r}", argument="fit")
    return cast("Fit", fit)


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
