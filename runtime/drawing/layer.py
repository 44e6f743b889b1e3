"""Blends a heatmap's colours into a picture: integer arithmetic on whole rows, so that it costs less than the model.

A colour and an opacity are looked up for every column of every `step`-th row and interpolated between those rows. What
is mixed there is premultiplied with its opacity, as in Porter and Duff, "Compositing digital images", SIGGRAPH 1984,
section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LEVELS = 256
_ROWS_AT_ONCE = 256
"""Frame rows whose colours are kept at once, so that memory is bounded for pictures of any size."""
_MOST_STEP = 16
_STEPS_PER_CELL = 8


class Table(NamedTuple):
    """What each level does to a picture, as one uint64 [levels]: three colours and what is kept, uint16 each."""

    packed: np.ndarray

    @classmethod
    def of(cls, colours: np.ndarray, opacity: np.ndarray) -> Table:
        """colours: float [levels, 3] in 0..255. opacity: float [levels] in 0..1."""
        alpha = np.round(256 * opacity)[:, np.newaxis]
        entries = np.empty((len(alpha), 4), np.uint16)
        # Half a grey level is added once, so that the last step rounds.
        entries[:, :3] = np.round(colours * alpha) + 128
        entries[:, 3] = 256 - alpha[:, 0]
        return cls(entries.view(np.uint64).ravel())

    def over(self, grey: int) -> np.ndarray:
        """uint8 [levels, 3]: what each level makes of a grey of 0 to 255."""
        entries = self.packed.view(np.uint16).reshape(-1, 4)
        return ((entries[:, :3] + grey * entries[:, 3:]) >> 8).astype(np.uint8)


def rows_apart(cell: float) -> int:
    """How many rows apart colours are looked up, a power of two, for cells of this height in pixels."""
    fits = min(cell / _STEPS_PER_CELL, _MOST_STEP)
    return 1 << max(int(math.log2(fits)), 0) if fits >= 1 else 1


def blend(
    picture: np.ndarray, levels_at: Callable[[np.ndarray], np.ndarray], table: Table, step: int, out: np.ndarray
) -> None:
    """Writes the picture with the layer over it to `out`.

    picture, out: uint8 [H, W, 3]. levels_at: positions float [R] in rows -> levels intp [R, W] of the table; levels
        beyond its ends count as its ends. step: rows between two look-ups, see `rows_apart`.
    """
    mix = _mix if step > 1 else _mix_exactly
    for top in range(0, len(picture), _ROWS_AT_ONCE):
        rows = np.ascontiguousarray(picture[top : top + _ROWS_AT_ONCE])
        # Looked up at the middle of the first row of each step, and once behind the last.
        level = levels_at(top + 0.5 + step * np.arange(-(-len(rows) // step) + (step > 1)))
        entries = table.packed.take(level, mode="clip").view(np.uint16).reshape(*level.shape, 4)
        colour = np.ascontiguousarray(entries[..., :3]).reshape(len(level), -1)
        keep = np.repeat(entries[..., 3], 3, axis=1)
        mixed = np.empty((len(rows), colour.shape[1]), np.uint8)
        mix(rows.reshape(mixed.shape), colour, keep, step, mixed)
        out[top : top + _ROWS_AT_ONCE] = mixed.reshape(rows.shape)


def _mix_exactly(picture: np.ndarray, colour: np.ndarray, keep: np.ndarray, step: int, out: np.ndarray) -> None:  # noqa: ARG001
    """picture * keep + colour, over 256, for rows [R, 3 W] that all have colours of their own."""
    keep *= picture
    keep += colour
    keep >>= 8
    out[...] = keep


def _mix(picture: np.ndarray, colour: np.ndarray, keep: np.ndarray, step: int, out: np.ndarray) -> None:
    """The same with `step` rows for each row of colours, interpolated to the next one; one more row of colours."""
    shift = step.bit_length() - 1
    # A sum of `step` of them has to fit into 16 bits.
    colour >>= shift
    later = np.arange(step, dtype=np.uint16)[:, np.newaxis]
    earlier = np.uint16(step) - later
    shape = (step, picture.shape[1])
    kept, added, other = (np.empty(shape, np.uint16) for _ in range(3))
    for index in range(len(colour) - 1):
        rows = slice(index * step, min((index + 1) * step, len(picture)))
        np.multiply(keep[index], earlier, out=kept)
        np.multiply(keep[index + 1], later, out=other)
        kept += other
        kept >>= shift
        np.multiply(colour[index], earlier, out=added)
        np.multiply(colour[index + 1], later, out=other)
        added += other
        count = rows.stop - rows.start
        mixed = other[:count]
        mixed[...] = picture[rows]
        mixed *= kept[:count]
        mixed += added[:count]
        mixed >>= 8
        out[rows] = mixed
