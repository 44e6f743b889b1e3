"""Draws a heatmap over a picture: bilinear upsampling into frame coordinates, colour maps, blending.

Negative evidence never looks like positive evidence: the sequential maps (turbo, inferno, viridis) show
evidence for the class only and leave the picture untouched where a heatmap is zero or negative; the signed
map shows both, for in yellow to red, against in blue.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edgex.runtime.errors import UsageError

if TYPE_CHECKING:
    from edgex.runtime.preprocessing import View

# 17 equidistant colours each, interpolated linearly in between (within 7/255 of the full tables).
# turbo: Anton Mikhailov, Google, Apache-2.0. inferno and viridis: Nathaniel Smith and Stefan van der Walt for
# matplotlib, CC0. for / against: of this project.
_COLOURS = {
    "turbo": "30123b 4040a1 466be3 4293ff 29bbec 18dcc3 31f299 6bfd64 a3fd3c "
    "cced34 edd03a fdae35 fb8022 ec520f d23105 ac1701 7a0403",
    "inferno": "000004 0b0724 210c4a 3c0965 57106d 70196e 89226a a32b61 bb3755 "
    "d14644 e35932 f1711e f98d0a fcab0f f9ca32 f2e865 fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26818e 21908c "
    "1f9f88 28ae80 3ebc74 5dc963 82d34c abdc32 d5e21a fde725",
    "for": "ffe45c ffa62b f2612c d7263d 8f0b2e",
    "against": "a8d8ff 5aa9f0 2f74d0 2148a5 14246b",
}
_ROWS_AT_ONCE = 64
_MAX_HEAT = 1 << 24
"""Pixels whose upsampled heat is kept at once: larger pictures than 4K are drawn band by band."""
COLORMAPS = ("turbo", "inferno", "viridis", "signed")


def upsample(heatmap: np.ndarray, view: View, band: slice = slice(None)) -> np.ndarray:
    """The heatmap in frame coordinates, interpolated bilinearly between patch centres.

    heatmap: float32 [rows, columns], one value per patch of the model's input. band: rows of the frame.

    Returns float32 [H, W] of the frame or of its band, in logits per patch; NaN where the model saw nothing.
    """
    rows, unseen_rows = _axis(view, 0, heatmap.shape[0])
    columns, unseen_columns = _axis(view, 1, heatmap.shape[1])
    heat = rows[band] @ heatmap.astype(np.float32, copy=False) @ columns.T
    heat[unseen_rows[band]] = np.nan
    heat[:, unseen_columns] = np.nan
    return heat


def overlay(
    picture: np.ndarray,
    heatmap: np.ndarray,
    view: View,
    colormap: str = "turbo",
    opacity: float = 0.6,
    limit: float | None = None,
) -> np.ndarray:
    """The picture with the heatmap over what the model saw of it; the stronger the evidence, the more opaque.

    picture: uint8 [H, W, 3] RGB. heatmap: float32 [rows, columns].
    opacity: of the strongest evidence, 0 to 1.
    limit: evidence of the full colour, in logits per patch. Defaults to the strongest that the map shows, so that
        colours compare places within a picture; set it to compare pictures.

    Returns a new uint8 [H, W, 3]. Raises UsageError for an unknown colormap or a value out of its range.
    """
    top, left, bottom, right = view.seen
    columns = slice(math.floor(left), math.ceil(right))
    step = max(1, _MAX_HEAT // picture.shape[1])
    first, last = math.floor(top), math.ceil(bottom)
    bands = [slice(start, min(start + step, last)) for start in range(first, last, step)]
    result = np.array(picture, np.uint8, order="C")
    if len(bands) > 1 and limit is None:
        # One scale of colours for all bands.
        limit = max(_strongest(upsample(heatmap, view, band)[:, columns], colormap) for band in bands)
        if limit <= 0:
            return result
    for band in bands:
        heat = upsample(heatmap, view, band)[:, columns]
        result[band, columns] = blend(picture[band, columns], heat, colormap, opacity, limit)
    return result


def blend(
    picture: np.ndarray, heat: np.ndarray, colormap: str, opacity: float, limit: float | None = None
) -> np.ndarray:
    """As `overlay`, with heat float32 [H, W] already in picture coordinates; NaN leaves the picture as it is."""
    if colormap not in COLORMAPS:
        raise UsageError(f"colormap: expected one of {', '.join(COLORMAPS)}, found {colormap!r}")
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity: expected a number from 0 to 1, found {opacity!r}")
    if limit is not None and not limit > 0:
        raise UsageError(f"limit: expected evidence above 0 in logits per patch, found {limit!r}")
    full = _strongest(heat, colormap) if limit is None else limit
    if full <= 0:
        return picture
    keep, colours = _lookup(colormap, opacity)
    result = np.empty(picture.shape, np.uint8)
    for top in range(0, len(heat), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        level = _levels(heat[rows], colormap, full)
        blended = np.take(keep, level, axis=0, mode="clip")
        blended *= picture[rows]
        blended += np.take(colours, level, axis=0, mode="clip")
        blended >>= 8
        result[rows] = blended
    return result


def _strongest(heat: np.ndarray, colormap: str) -> float:
    """The strongest evidence that the map shows, at least 0; NaN counts as none."""
    highest = float(np.fmax.reduce(heat, axis=None, initial=0.0))
    return max(highest, -float(np.fmin.reduce(heat, axis=None, initial=0.0))) if colormap == "signed" else highest


def _levels(heat: np.ndarray, colormap: str, full: float) -> np.ndarray:
    """Positions in the look-up table: 0 to 255 for evidence for the class, 256 to 511 for evidence against it."""
    strength = np.abs(heat) if colormap == "signed" else heat
    level = np.fmin(np.fmax(strength, 0) * np.float32(255 / full), 255).astype(np.intp)
    if colormap == "signed":
        level[heat < 0] += 256
    return level


def _axis(view: View, direction: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one direction: bilinear weights [frame pixels, cells], and which pixels the model did not see."""
    frame, crop = view.frame_size[direction], view.image_size[direction]
    model = (np.arange(frame) + 0.5) * (view.resized[direction] / frame) - view.offset[direction]
    return bilinear_weights(model * (cells / crop), cells), (model < 0) | (model > crop)


def bilinear_weights(positions: np.ndarray, cells: int) -> np.ndarray:
    """float32 [positions, cells]: reads a row of cells, centred at 0.5, 1.5, ..., at these positions."""
    position = np.clip(positions - 0.5, 0, cells - 1)
    low = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    index = np.arange(len(position))
    weights = np.zeros((len(position), cells), np.float32)
    weights[index, low] = 1 - (position - low)
    if cells > 1:
        weights[index, low + 1] = position - low
    return weights


@lru_cache(maxsize=16)
def _lookup(colormap: str, opacity: float) -> tuple[np.ndarray, np.ndarray]:
    """What to keep of the picture and what to add to it, both uint16 [levels, 3] and 256 times too large."""
    strength = np.arange(256) / 255
    # Full opacity from half of the strongest evidence on: colour tells the rest apart.
    alpha = np.round(256 * opacity * np.minimum(1, 2 * strength))
    if colormap == "signed":
        table = np.concatenate([colours("for"), colours("against")])
        alpha = np.concatenate([alpha, alpha])
    else:
        table = colours(colormap)
    alpha = alpha[:, np.newaxis]
    return np.repeat(256 - alpha, 3, axis=1).astype(np.uint16), np.round(table * alpha).astype(np.uint16)


def colours(name: str) -> np.ndarray:
    """float64 [256, 3] RGB in 0..255, from no evidence to the strongest.

    name: "turbo", "inferno", "viridis", or one half of the signed map, "for" or "against".
    """
    knots = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS[name].split()], np.float64)
    position = np.linspace(0, len(knots) - 1, 256)
    return np.stack([np.interp(position, np.arange(len(knots)), knots[:, channel]) for channel in range(3)], axis=1)
