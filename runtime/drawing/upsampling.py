"""From a heatmap's grid of patches to the pixels of a frame: by bilinear weights for numbers, smoothly for pictures.

Bilinear interpolation is what numbers are read with: it adds nothing, and stays between its neighbours. Drawn, it shows
diamonds around single patches. Pictures are drawn with the cubic filter of Mitchell and Netravali, "Reconstruction
filters in computer graphics", SIGGRAPH 1988, with B = C = 1/3: smooth, and a single patch keeps 0.79 of its height.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgex.runtime.view import View


def upsample(heatmap: np.ndarray, view: View, band: slice = slice(None)) -> np.ndarray:
    """The heatmap in frame coordinates, interpolated bilinearly between patch centres.

    heatmap: float32 [rows, columns], one value per patch of the model's input. band: rows of the frame.

    Returns float32 [H, W] of the frame or of its band, in logits per patch; NaN where the model saw nothing. Patches
    that lie wholly in the padding count nowhere.
    """
    heatmap, view = view.trimmed(heatmap)
    (rows, unseen_rows), (columns, unseen_columns) = (
        _axis(view, direction, heatmap.shape[direction]) for direction in (0, 1)
    )
    heat = rows[band] @ heatmap.astype(np.float32, copy=False) @ columns.T
    heat[unseen_rows[band]] = np.nan
    heat[:, unseen_columns] = np.nan
    return heat


def cells_at(pixels: np.ndarray, view: View, direction: int, cells: int) -> np.ndarray:
    """Where positions in the frame lie among the cells of a heatmap: the first cell is 0 to 1.

    pixels: positions from the frame's edge, in frame pixels. direction: 0 for rows, 1 for columns.
    """
    frame, crop = view.frame_size[direction], view.image_size[direction]
    return (pixels * (view.resized[direction] / frame) - view.offset[direction]) * (cells / crop)


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


def smooth_weights(positions: np.ndarray, cells: int) -> np.ndarray:
    """As `bilinear_weights`, by the Mitchell filter; beyond the outer centres, the outer cells go on."""
    position = np.clip(positions - 0.5, 0, cells - 1)
    low = np.floor(position).astype(np.int64)
    index = np.arange(len(position))
    weights = np.zeros((len(position), cells), np.float32)
    for neighbour in (-1, 0, 1, 2):
        place = low + neighbour
        np.add.at(weights, (index, np.clip(place, 0, cells - 1)), _mitchell(np.abs(position - place)))
    return weights


def _mitchell(distance: np.ndarray) -> np.ndarray:
    """The filter's value at distances from 0 to 2 cells."""
    near = 7 * distance**3 - 12 * distance**2 + 16 / 3
    far = -7 / 3 * distance**3 + 12 * distance**2 - 20 * distance + 32 / 3
    return np.where(distance < 1, near, far) / 6


def _axis(view: View, direction: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one direction: bilinear weights [frame pixels, cells], and which pixels the model did not see."""
    position = cells_at(np.arange(view.frame_size[direction]) + 0.5, view, direction, cells)
    return bilinear_weights(position, cells), (position < 0) | (position > cells)
