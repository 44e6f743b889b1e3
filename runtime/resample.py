"""Pillow's antialiased resize of one window of a picture: equal to the last bit and faster, or faster still and nearly.

Pillow resamples in two passes, columns and rows, in fixed-point arithmetic with 22 bits, and rounds to uint8
after each. Only the crop is wanted here, so only its window is computed, and as matrix products: float32 sums
are rounded like Pillow's, and the few values that lie so near a rounding boundary that float32 cannot decide
are computed again in integers. `resample_unrounded` gives up that equality for time: rows first, and one
rounding at the end. Which window belongs to which frame is decided in `preprocessing`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Interpolation = Literal["bicubic", "bilinear"]
Region: TypeAlias = "Callable[[int, int, int, int], np.ndarray]"

_BITS = 22
"""Fixed-point precision of Pillow's 8-bit resample: 32 bits less 8 of the pixel and 2 of overshoot."""
_COLUMNS_PER_BLOCK = 4
_ROWS_PER_BLOCK = 4
_ROWS_PER_STRIP = 540
_COLUMNS_PER_STRIP = 1024
_MAX_VALUES = 1 << 20
"""float32 pixels in work at once when rows are resampled."""
_MAX_UNROUNDED = 4 << 20
"""float32 values between the two passes of `resample_unrounded`."""
_MAX_PRODUCT = (1 << 19) - 1
"""Multiplications per matrix product. OpenBLAS computes smaller ones on the calling thread; larger ones would wake
threads that get in the way of the inference's own."""


def resample(
    region: Region,
    size: tuple[int, int],
    resized: tuple[int, int],
    window: tuple[int, int, int, int],
    interpolation: Interpolation,
) -> np.ndarray:
    """The pixels of a window of the resized picture.

    region: (top, bottom, left, right) -> uint8 [rows, columns, 3] of the picture.
    size, resized: (height, width) of the picture before and after resizing.
    window: (top, left, height, width) in the resized picture, inside it.

    Returns a new uint8 [height, width, 3], equal to `resize(resized).crop(window)` of Pillow 13, whichever Pillow
    is installed. Earlier ones always resample columns first, and so differ in pictures over about twice as tall as
    wide: in a fifth of the values, mostly by 1.
    """
    top, left, height, width = window
    if size == resized:
        return region(top, top + height, left, left + width).copy()
    rows = _axis(size[0], resized[0], top, height, interpolation, _ROWS_PER_BLOCK, 1)
    columns = _axis(size[1], resized[1], left, width, interpolation, _COLUMNS_PER_BLOCK, 3)
    # Pillow's own rule, ImagingResampleInner: rows first where more than twice as many rows as columns go.
    if size[0] > resized[0] and size[0] - resized[0] > 2 * (size[1] - resized[1]):
        short = _resample_rows(region, rows, columns.first, columns.last)
        return _resample_columns(_part_of(short, 0, columns.first), columns, 0, height)
    narrow = _resample_columns(region, columns, rows.first, rows.last)
    return _resample_rows(_part_of(narrow, rows.first, 0), rows, 0, width)


def resample_unrounded(
    region: Region,
    size: tuple[int, int],
    resized: tuple[int, int],
    window: tuple[int, int, int, int],
    interpolation: Interpolation,
) -> np.ndarray:
    """As `resample`, in about half of its time: rounded once, at the end, instead of after each pass as Pillow does.

    Rows go first, so that columns are resampled in far fewer rows. The same weights, so the difference from Pillow's
    pixels is its rounding between the passes: rarely more than one grey level (benchmarks/preprocess.py measures it).
    """
    top, left, height, width = window
    if size == resized:
        return region(top, top + height, left, left + width).copy()
    columns = _axis(size[1], resized[1], left, width, interpolation, _COLUMNS_PER_BLOCK, 3)
    if width > 1 and height * (columns.last - columns.first) * 3 > _MAX_UNROUNDED:
        half = width // 2
        parts = ((top, left, height, half), (top, left + half, height, width - half))
        return np.hstack([resample_unrounded(region, size, resized, part, interpolation) for part in parts])
    rows = _axis(size[0], resized[0], top, height, interpolation, _ROWS_PER_BLOCK, 1)
    short = _row_sums(region, rows, columns.first, columns.last)
    _, inputs, outputs = columns.weights.shape
    sums = _workspace.array("sums", (height, len(columns.block_starts) * outputs))
    step = max(1, _MAX_PRODUCT // (inputs * outputs))
    for start in range(0, height, step):
        stop = min(start + step, height)
        for block, first in enumerate(columns.block_starts):
            target = sums[start:stop, block * outputs : (block + 1) * outputs]
            np.matmul(short[start:stop, first * 3 : first * 3 + inputs], columns.weights[block], out=target)
    np.clip(sums, 0.0, 255.0, out=sums)
    sums += np.float32(0.5)
    return sums[:, : width * 3].astype(np.uint8).reshape(height, width, 3)


def _row_sums(region: Region, axis: _Axis, left: int, right: int) -> np.ndarray:
    """Columns left..right-1 of a picture, resampled in height: float32 [outputs, columns * 3], in the workspace."""
    _, inputs, outputs = axis.weights.shape
    width = (right - left) * 3
    sums = _workspace.array("rows", (len(axis.block_starts) * outputs, width))
    step = max(1, _MAX_PRODUCT // (inputs * outputs))
    for blocks in _groups(axis, _MAX_VALUES // width):
        first = axis.block_starts[blocks[0]]
        last = axis.block_starts[blocks[-1]] + inputs
        strip = region(axis.first + first, axis.first + last, left, right)
        values = _workspace.array("values", (last - first, width))
        np.copyto(values.reshape(strip.shape), strip)
        for block in blocks:
            top = axis.block_starts[block] - first
            weights, target = axis.weights[block].T, sums[block * outputs : (block + 1) * outputs]
            for start in range(0, width, step):
                part = slice(start, start + step)
                np.matmul(weights, values[top : top + inputs, part], out=target[:, part])
    return sums


def _part_of(pixels: np.ndarray, top: int, left: int) -> Region:
    """The region function of pixels [rows, columns, 3] whose first one lies at (top, left)."""
    return lambda y0, y1, x0, x1: pixels[y0 - top : y1 - top, x0 - left : x1 - left]


class _Workspace(threading.local):
    """Buffers that a thread keeps between calls: touching fresh memory costs as much as the arithmetic."""

    LARGEST = 16 << 20
    """Larger buffers, in bytes, are not kept."""

    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        """An uninitialised float32 array, valid until the same thread asks for the same name again."""
        size = shape[0] * shape[1]
        buffer = self.buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size, np.float32)
            if buffer.nbytes <= self.LARGEST:
                self.buffers[name] = buffer
        return buffer[:size].reshape(shape)


_workspace = _Workspace()


@dataclass(frozen=True, eq=False)
class _Axis:
    """Weights of one direction, for a range of output positions.

    The input positions needed are first..last-1; `starts` and `block_starts` count from `first`.
    """

    first: int
    last: int
    starts: np.ndarray
    """int64 [outputs]: the first input position of each output's filter."""
    taps: np.ndarray
    """int64 [outputs, taps]: fixed-point weights from `starts` on."""
    block_starts: list[int]
    weights: np.ndarray
    """float32 [blocks, inputs * channels, outputs of a block * channels], the same weights as matrices."""
    tolerance: np.float32
    """Bound of the float32 error of a sum of products of weights and pixels, in pixel values."""

    def positions(self, output: np.ndarray) -> np.ndarray:
        """int64 [n, taps] from `first` on; taps past the end weigh 0 and read the last pixel."""
        return np.minimum(self.starts[output, np.newaxis] + np.arange(self.taps.shape[1]), self.last - self.first - 1)


@lru_cache(maxsize=32)
def _axis(
    size: int, resized: int, first: int, count: int, interpolation: Interpolation, block: int, channels: int
) -> _Axis:
    starts, stops, taps = _pillow_weights(size, resized, first, count, interpolation)
    low, high = int(starts.min()), int(stops.max())
    starts -= low
    stops -= low
    block_first = np.arange(0, count, block)
    block_last = np.minimum(block_first + block, count) - 1
    length = int((stops[block_last] - starts[block_first]).max())
    block_starts = np.minimum(starts[block_first], high - low - length)

    weights = np.zeros((len(block_first), length, channels, block, channels), np.float32)
    output, tap = np.nonzero(taps)
    position = starts[output] + tap - block_starts[output // block]
    for channel in range(channels):
        # At most 23 significant bits: exact in float32.
        weights[output // block, position, channel, output % block, channel] = taps[output, tap] / (1 << _BITS)

    # |error of a sum of n products| <= n u / (1 - n u) * sum |product|, whatever the order of summation
    # (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), u = 2^-24; four more for the
    # additions that round. Zeros outside of the filter add no error.
    magnitude = 255 * float(np.abs(taps).sum(axis=1).max()) / (1 << _BITS)
    return _Axis(
        low,
        high,
        starts,
        taps,
        block_starts.tolist(),
        weights.reshape(len(block_first), length * channels, block * channels),
        np.float32(1.01 * (taps.shape[1] + 4) * 2.0**-24 * magnitude),
    )


def _pillow_weights(
    size: int, resized: int, first: int, count: int, interpolation: Interpolation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Filter range (start, stop) [count] and fixed-point weights [count, taps] of each output position.

    Follows precompute_coeffs and normalize_coeffs_8bpc of Pillow's src/libImaging/Resample.c operation by
    operation, in double precision.
    """
    kernel, reach = (_bicubic, 2.0) if interpolation == "bicubic" else (_bilinear, 1.0)
    scale = size / resized
    stretch = max(scale, 1.0)
    support = reach * stretch
    centre = (np.arange(first, first + count) + 0.5) * scale
    starts = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    stops = np.minimum((centre + support + 0.5).astype(np.int64), size)
    offsets = np.arange((stops - starts).max())
    weights = kernel((offsets + starts[:, np.newaxis] - centre[:, np.newaxis] + 0.5) * (1.0 / stretch))
    weights[offsets >= (stops - starts)[:, np.newaxis]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # cumsum adds from left to right, as Pillow does
    half = np.where(weights < 0, -0.5, 0.5)
    return starts, stops, (half + weights * (1 << _BITS)).astype(np.int64)


def _bicubic(x: np.ndarray) -> np.ndarray:
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _resample_columns(region: Region, axis: _Axis, top: int, bottom: int) -> np.ndarray:
    """Rows top..bottom-1 of a picture, resampled in width: uint8 [rows, outputs, 3]."""
    width = len(axis.starts) * 3
    _, inputs, outputs = axis.weights.shape
    step = max(1, min(_ROWS_PER_STRIP, _MAX_PRODUCT // (inputs * outputs)))
    result = np.empty((bottom - top, width), np.uint8)
    for start in range(top, bottom, step):
        stop = min(start + step, bottom)
        strip = region(start, stop, axis.first, axis.last)
        values = _workspace.array("values", (stop - start, strip.shape[1] * 3))
        np.copyto(values.reshape(strip.shape), strip)
        sums = _workspace.array("sums", (stop - start, len(axis.block_starts) * outputs))
        for block, first in enumerate(axis.block_starts):
            columns = values[:, first * 3 : first * 3 + inputs]
            np.matmul(columns, axis.weights[block], out=sums[:, block * outputs : (block + 1) * outputs])
        target = result[start - top : stop - top]
        undecided = _round(sums[:, :width], axis.tolerance, target)
        if len(undecided):
            row, column = np.divmod(undecided, width)
            output, channel = np.divmod(column, 3)
            pixels = strip[row[:, np.newaxis], axis.positions(output), channel[:, np.newaxis]]
            target[row, column] = _fixed_point(pixels, axis.taps[output])
    return result.reshape(bottom - top, -1, 3)


def _resample_rows(region: Region, axis: _Axis, left: int, right: int) -> np.ndarray:
    """Columns left..right-1 of a picture, resampled in height: uint8 [outputs, columns, 3]."""
    count = len(axis.starts)
    _, inputs, outputs = axis.weights.shape
    result = np.empty((count, (right - left) * 3), np.uint8)
    step = max(1, min(_COLUMNS_PER_STRIP, _MAX_PRODUCT // (inputs * outputs * 3)))
    for start in range(left, right, step):
        stop = min(start + step, right)
        width = (stop - start) * 3
        for blocks in _groups(axis, _MAX_VALUES // width):
            first = axis.block_starts[blocks[0]]
            last = axis.block_starts[blocks[-1]] + inputs
            strip = np.ascontiguousarray(region(axis.first + first, axis.first + last, start, stop))
            strip = strip.reshape(last - first, width)
            values = _workspace.array("values", strip.shape)
            np.copyto(values, strip)
            sums = _workspace.array("sums", (len(blocks) * outputs, width))
            for number, block in enumerate(blocks):
                top = axis.block_starts[block] - first
                target = sums[number * outputs : (number + 1) * outputs]
                np.matmul(axis.weights[block].T, values[top : top + inputs], out=target)
            above = blocks[0] * outputs
            below = min((blocks[-1] + 1) * outputs, count)
            part = result[above:below, (start - left) * 3 : (stop - left) * 3]
            undecided = _round(sums[: below - above], axis.tolerance, part)
            if len(undecided):
                output, column = np.divmod(undecided, width)
                positions = np.minimum(axis.positions(output + above) - first, last - first - 1)
                pixels = strip[positions, column[:, np.newaxis]]
                part[output, column] = _fixed_point(pixels, axis.taps[output + above])
    return result.reshape(count, -1, 3)


def _groups(axis: _Axis, rows: int) -> list[range]:
    """Consecutive blocks that need at most so many input rows, or one block each."""
    inputs = axis.weights.shape[1]
    groups, begin = [], 0
    for block, start in enumerate(axis.block_starts):
        if block > begin and start + inputs - axis.block_starts[begin] > rows:
            groups.append(range(begin, block))
            begin = block
    return [*groups, range(begin, len(axis.block_starts))]


def _round(sums: np.ndarray, tolerance: np.float32, result: np.ndarray) -> np.ndarray:
    """Rounds half up into the uint8 result; returns the flat positions where the error may decide it.

    Those are where the lowest and the highest value within the error round differently. sums is overwritten.
    """
    highest = np.empty(result.shape, np.uint8)
    np.clip(sums, 0.0, 255.0, out=sums)
    sums += np.float32(0.5) - tolerance
    np.copyto(result, sums, casting="unsafe")
    sums += 2 * tolerance
    np.copyto(highest, sums, casting="unsafe")
    return np.flatnonzero(result != highest)


def _fixed_point(pixels: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Pillow's own arithmetic: uint8 [n, taps] and weights [n, taps] -> uint8 [n]."""
    sums = np.einsum("nt,nt->n", pixels.astype(np.int64), taps)
    return np.clip((sums + (1 << (_BITS - 1))) >> _BITS, 0, 255).astype(np.uint8)
