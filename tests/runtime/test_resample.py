from __future__ import annotations

import numpy as np
import PIL
import pytest
from PIL import Image

from edgex.runtime import resample as module
from edgex.runtime.resample import resample, resample_unrounded

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def pillow(pixels: np.ndarray, resized: tuple[int, int], window: tuple[int, int, int, int], how: str) -> np.ndarray:
    top, left, height, width = window
    image = Image.fromarray(pixels).resize(resized[::-1], FILTERS[how])
    return np.asarray(image.crop((left, top, left + width, top + height)))


def same_order_of_passes(size: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Pillow before 13 resamples columns first where 13 begins with the rows."""
    rows_first = size[0] > resized[0] and size[0] - resized[0] > 2 * (size[1] - resized[1])
    return not rows_first or int(PIL.__version__.split(".")[0]) >= 13


def check(
    pixels: np.ndarray, resized: tuple[int, int], window: tuple[int, int, int, int], how: str = "bicubic"
) -> None:
    size = pixels.shape[0], pixels.shape[1]

    def region(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        return pixels[top:bottom, left:right]

    found = resample(region, size, resized, window, how)  # type: ignore[arg-type]
    if same_order_of_passes(size, resized):
        assert np.array_equal(found, pillow(pixels, resized, window, how))


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_random_windows_equal_pillow(how: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(80):
        size, resized = rng.integers(1, 400, 2), rng.integers(1, 400, 2)
        top, left = (int(rng.integers(0, limit)) for limit in resized)
        height, width = (
            int(rng.integers(1, resized[0] - top + 1)),
            int(rng.integers(1, resized[1] - left + 1)),
        )
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        check(pixels, (int(resized[0]), int(resized[1])), (top, left, height, width), how)


def test_values_on_rounding_boundaries_equal_pillow() -> None:
    """Black and white halves average to exactly 127.5, where float32 alone could not decide."""
    board = (np.indices((300, 300)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for pixels in (board, board.T, np.repeat(np.repeat(board, 2, 0), 2, 1)):
        for resized in ((150, 150), (100, 100), (75, 75), (149, 151)):
            picture = np.repeat(pixels[..., None], 3, axis=2)
            for how in FILTERS:
                check(picture, resized, (0, 0, *resized), how)


def test_undecided_values_do_occur_and_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the integer recomputation the result differs from Pillow's: the test above tests something."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)
    seen: list[int] = []
    original = module._fixed_point

    def count(values: np.ndarray, taps: np.ndarray) -> np.ndarray:
        seen.append(len(values))
        return original(values, taps)

    monkeypatch.setattr(module, "_fixed_point", count)
    check(pixels, (256, 256), (16, 16, 224, 224))
    assert 0 < sum(seen) < 0.02 * 600 * 224 * 3


def test_float32_error_stays_below_the_stated_bound() -> None:
    rng = np.random.default_rng(1)
    axis = module._axis(1920, 455, 116, 224, "bicubic", 4, 3)
    rows = rng.integers(0, 256, (64, axis.last - axis.first, 3))
    exact = np.stack(
        [
            np.einsum("rtc,t->rc", rows[:, s : s + len(t)], t) / 2**22
            for s, t in zip(axis.starts, [t[t != 0] for t in axis.taps], strict=True)
        ],
        axis=1,
    )
    values = rows.reshape(64, -1).astype(np.float32)
    width = axis.weights.shape[1]
    sums = [values[:, s * 3 : s * 3 + width] @ w for s, w in zip(axis.block_starts, axis.weights, strict=True)]
    found = np.concatenate(sums, axis=1).reshape(64, -1, 3)
    assert np.abs(found - exact).max() < axis.tolerance < 1e-3


def test_nothing_to_do_returns_the_region() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    check(pixels, (20, 30), (3, 4, 10, 12))


def test_large_buffers_are_not_kept() -> None:
    workspace = module._Workspace()
    assert workspace.array("a", (2, 3)).shape == (2, 3)
    assert workspace.array("a", (1, 2)).base is workspace.buffers["a"]
    workspace.array("b", (1, module._Workspace.LARGEST))
    assert "b" not in workspace.buffers


def smooth(size: tuple[int, int]) -> np.ndarray:
    """A picture without the overshoot that hard edges give, with the noise of a sensor."""
    rng = np.random.default_rng(size[0])
    small = rng.integers(40, 216, (max(2, size[0] // 40), max(2, size[1] // 40), 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    return np.clip(large + rng.integers(-6, 7, large.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size, resized", [((540, 960), (224, 398)), ((700, 300), (522, 224)), ((90, 160), (224, 398))])
def test_one_rounding_is_a_grey_level_from_two(size: tuple[int, int], resized: tuple[int, int], how: str) -> None:
    pixels, window = smooth(size), (0, 0, 224, 224)
    region = lambda top, bottom, left, right: pixels[top:bottom, left:right]  # noqa: E731
    found = resample_unrounded(region, size, resized, window, how)  # type: ignore[arg-type]
    exact = resample(region, size, resized, window, how)  # type: ignore[arg-type]
    difference = np.abs(found.astype(int) - exact)
    assert (found.shape, found.dtype) == ((224, 224, 3), np.uint8)
    assert difference.max() <= 1
    assert difference.mean() < 0.2


def test_one_rounding_is_the_nearest_to_exact_arithmetic() -> None:
    """Against the same weights in double precision: at most half a grey level, where Pillow's pixels may be further."""
    size, resized = (300, 420), (224, 313)
    pixels, window = smooth(size), (0, 0, 224, 313)
    region = lambda top, bottom, left, right: pixels[top:bottom, left:right]  # noqa: E731
    matrices = []
    for before, after in zip(size, resized, strict=True):
        starts, _, taps = module._pillow_weights(before, after, 0, after, "bicubic")
        matrix = np.zeros((after, before + taps.shape[1]))
        for output, start in enumerate(starts):
            matrix[output, start : start + taps.shape[1]] = taps[output] / (1 << 22)
        matrices.append(matrix[:, :before])
    precise = np.einsum("yh,hwc,xw->yxc", matrices[0], pixels.astype(np.float64), matrices[1], optimize=True)
    found = resample_unrounded(region, size, resized, window, "bicubic")
    assert np.abs(found - np.clip(precise, 0, 255)).max() <= 0.501


def test_one_rounding_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, size = smooth((300, 700)), (300, 700)
    region = lambda top, bottom, left, right: pixels[top:bottom, left:right]  # noqa: E731
    whole = resample_unrounded(region, size, (128, 299), (3, 5, 100, 200), "bicubic")
    monkeypatch.setattr(module, "_MAX_UNROUNDED", 20_000)
    parts = resample_unrounded(region, size, (128, 299), (3, 5, 100, 200), "bicubic")
    # Sums in other blocks are added in another order.
    assert np.abs(whole.astype(int) - parts).max() <= 1
    assert (whole != parts).mean() < 1e-3
