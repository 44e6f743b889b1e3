from __future__ import annotations

import numpy as np
import pytest

from edgex.runtime import Preprocessing, View
from edgex.runtime.drawing.upsampling import bilinear_weights, smooth_weights, upsample


def view(height: int, width: int, resize: int = 40, image_size: tuple[int, int] = (32, 48)) -> View:
    return Preprocessing(image_size, resize, "bicubic", (0, 0, 0), (1, 1, 1)).view(height, width)


def brute_force(heatmap: np.ndarray, where: View) -> np.ndarray:
    """Pixel by pixel, through View's own mapping."""
    height, width = where.frame_size
    result = np.full((height, width), np.nan)
    rows, columns = heatmap.shape
    for y in range(height):
        for x in range(width):
            top, left = where.to_model(y + 0.5, x + 0.5)
            if not (0 <= top <= where.image_size[0] and 0 <= left <= where.image_size[1]):
                continue
            r = min(max(top * rows / where.image_size[0] - 0.5, 0), rows - 1)
            c = min(max(left * columns / where.image_size[1] - 0.5, 0), columns - 1)
            r0, c0 = min(int(r), max(rows - 2, 0)), min(int(c), max(columns - 2, 0))
            r1, c1 = min(r0 + 1, rows - 1), min(c0 + 1, columns - 1)
            upper = heatmap[r0, c0] * (1 - c + c0) + heatmap[r0, c1] * (c - c0)
            lower = heatmap[r1, c0] * (1 - c + c0) + heatmap[r1, c1] * (c - c0)
            result[y, x] = upper * (1 - r + r0) + lower * (r - r0)
    return result


@pytest.mark.parametrize("size", [(40, 71), (90, 160), (160, 90), (10, 33), (1, 1)])
@pytest.mark.parametrize("grid", [(2, 3), (1, 1), (1, 4), (5, 1)])
def test_upsampling_equals_a_pixel_by_pixel_computation(size: tuple[int, int], grid: tuple[int, int]) -> None:
    heatmap = np.random.default_rng(0).standard_normal(grid).astype(np.float32)
    where = view(*size)
    found = upsample(heatmap, where)
    assert found.dtype == np.float32
    assert found.shape == size
    np.testing.assert_allclose(found, brute_force(heatmap, where), atol=1e-5)


def test_upsampling_of_a_padded_crop() -> None:
    heatmap = np.arange(6, dtype=np.float32).reshape(2, 3)
    where = view(20, 90, resize=24)
    np.testing.assert_allclose(upsample(heatmap, where), brute_force(heatmap, where), atol=1e-5)


def test_smooth_weights_are_the_filters_values() -> None:
    """Of Mitchell and Netravali, 1988, with B = C = 1/3: 16/18 at the centre, 1/18 one cell on."""
    weights = smooth_weights(np.array([3.5]), 8)[0]
    np.testing.assert_allclose(weights, np.array([0, 0, 1, 16, 1, 0, 0, 0]) / 18, atol=1e-6)
    between = smooth_weights(np.array([4.0]), 8)[0]
    np.testing.assert_allclose(between, np.array([0, 0, -0.625, 9.625, 9.625, -0.625, 0, 0]) / 18, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 2, 3, 14])
@pytest.mark.parametrize("weights", [bilinear_weights, smooth_weights])
def test_a_constant_stays_a_constant(weights: object, cells: int) -> None:
    positions = np.linspace(-1, cells + 1, 57)
    np.testing.assert_allclose(weights(positions, cells).sum(axis=1), 1, atol=1e-6)  # type: ignore[operator]


def test_a_slope_stays_a_slope_away_from_the_edge() -> None:
    positions = np.linspace(2.5, 7.5, 31)
    np.testing.assert_allclose(smooth_weights(positions, 10) @ np.arange(10.0), positions - 0.5, atol=1e-5)
