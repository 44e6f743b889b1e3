from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import PIL
import pytest
from PIL import Image

from edgex.runtime import ArtefactError, ImageError, Preprocessing, UsageError

if TYPE_CHECKING:
    from edgex.runtime.resample import Interpolation

SIZES = [(1, 1), (1, 7), (2, 3), (3, 200), (97, 211), (224, 224), (223, 257), (256, 300), (300, 256)]
SIZES += [(333, 517), (641, 479), (255, 255), (4, 300), (300, 3), (700, 201)]
TARGETS = [(256, (224, 224)), (224, (224, 224)), (248, (224, 224)), (200, (224, 224)), (256, (224, 192))]
SQUASHED: list[tuple[int | tuple[int, int], tuple[int, int]]] = [
    ((224, 224), (224, 224)),
    ((182, 200), (160, 160)),
    ((30, 90), (48, 64)),
]
TARGETS += [(255, (225, 225)), (64, (63, 64)), (40, (32, 48)), (518, (518, 518))]


def make(
    resize: int | tuple[int, int] = 256, image_size: tuple[int, int] = (224, 224), how: str = "bicubic"
) -> Preprocessing:
    interpolation = cast("Interpolation", how)
    return Preprocessing(image_size, resize, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a gradient, with saturated areas: overshoot and clipping occur."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3))
    pixels[: height // 3] = np.where(pixels[: height // 3] > 127, 255, 0)
    pixels[:, : width // 4] = np.linspace(0, 255, width // 4)[:, None].astype(int) if width >= 4 else 0
    return pixels.astype(np.uint8)


def torchvision_crop(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    from torchvision import transforms

    height, width = preprocessing.view(image.height, image.width).resized
    rows_go, columns_go = image.height - height, image.width - width
    if rows_go > 0 and rows_go > 2 * columns_go and int(PIL.__version__.split(".")[0]) < 13:
        # Pillow 13 resamples the rows first here, see edgex.runtime.resample; so does torchvision with it.
        return preprocessing.array(image)

    how = transforms.InterpolationMode(preprocessing.interpolation)
    resize = transforms.Resize(preprocessing.resize, interpolation=how, antialias=True)
    return np.asarray(transforms.CenterCrop(preprocessing.image_size)(resize(image)))


@pytest.mark.parametrize("resize, image_size", [*TARGETS, *SQUASHED])
@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_equals_torchvision_to_the_last_bit(
    resize: int | tuple[int, int], image_size: tuple[int, int], how: str
) -> None:
    preprocessing = make(resize, image_size, how)
    for height, width in SIZES:
        pixels = picture(height, width)
        image = Image.fromarray(pixels)
        wanted = torchvision_crop(image, preprocessing)
        for found in (preprocessing.array(image), preprocessing.array(pixels)):
            assert found.dtype == np.uint8
            assert np.array_equal(found, wanted), (height, width)


@pytest.mark.parametrize("height, width", [(480, 640), (1080, 1920), (1920, 1080), (1500, 600)])
def test_equals_torchvision_on_camera_sizes(height: int, width: int) -> None:
    pixels = picture(height, width)
    assert np.array_equal(make().array(pixels), torchvision_crop(Image.fromarray(pixels), make()))


def test_equals_torchvision_on_random_sizes() -> None:
    rng = np.random.default_rng(11)
    for seed in range(60):
        height, width = (int(size) for size in rng.integers(1, 700, 2))
        image_size = (int(rng.integers(1, 200)), int(rng.integers(1, 200)))
        preprocessing = make(int(rng.integers(1, 220)), image_size, ["bicubic", "bilinear"][seed % 2])
        image = Image.fromarray(picture(height, width, seed))
        wanted = torchvision_crop(image, preprocessing)
        assert np.array_equal(preprocessing.array(image), wanted), (height, width, preprocessing)


def test_crop_is_the_array_as_a_picture() -> None:
    image = Image.fromarray(picture(90, 160))
    crop = make().crop(image)
    assert crop.size == (224, 224)
    assert crop.mode == "RGB"
    assert np.array_equal(np.asarray(crop), make().array(image))


def test_result_is_writable_and_does_not_alias_the_frame() -> None:
    pixels = picture(224, 224)
    found = make(resize=224).array(pixels)
    found[:] = 0
    assert pixels.any()


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = Image.fromarray(picture(90, 160))
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(make().array(Image.open(tmp_path / "a.png")), make().array(upright))


@pytest.mark.parametrize(
    "height, width", [(1, 30_000), (30_000, 1), (2, 40_001), (40_001, 3), (20_000, 20_000), (20_000, 9_000)]
)
@pytest.mark.parametrize("exact", [True, False])
def test_extreme_sizes_in_bounded_memory(height: int, width: int, exact: bool) -> None:
    columns = np.linspace(0, 255, width).astype(np.uint8)
    pixels = np.broadcast_to(columns[None, :, None], (height, width, 3))
    tracemalloc.start()
    try:
        found = make().array(pixels, exact=exact)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.shape == (224, 224, 3)
    assert peak < 150e6


def test_view_maps_points_there_and_back() -> None:
    view = make(40, (32, 48)).view(90, 160)
    assert view.resized == (40, 71)
    assert view.offset == (4, 12)
    assert view.to_frame(*view.to_model(17.5, 93.25)) == pytest.approx((17.5, 93.25))
    assert view.seen == pytest.approx((9.0, 12 * 160 / 71, 81.0, 60 * 160 / 71))


def test_view_matches_the_pixels() -> None:
    """A bright dot in the frame lands where the view says."""
    preprocessing = make(40, (32, 48))
    pixels = np.zeros((400, 710, 3), np.uint8)
    pixels[200:210, 400:410] = 255
    bright = preprocessing.array(pixels)[..., 0].astype(float)
    rows, columns = np.indices(bright.shape) + 0.5
    centre = (rows * bright).sum() / bright.sum(), (columns * bright).sum() / bright.sum()
    assert centre == pytest.approx(preprocessing.view(400, 710).to_model(205, 405), abs=0.1)


def test_view_of_a_padded_crop_stays_inside_the_frame() -> None:
    view = make(200, (224, 224)).view(100, 300)
    assert view.offset == (-12, 188)
    assert view.seen[0] == 0
    assert view.seen[2] == 100


def test_dict_round_trip_through_json() -> None:
    preprocessing = make(40, (32, 48), "bilinear")
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    "change, words",
    [
        ({"resize": ...}, "resize"),
        ({"resize": 0}, "preprocessing: resize: expected a whole number from 1 to .*, found 0"),
        ({"resize": 2.5}, "resize"),
        ({"image_size": [224]}, "image_size"),
        ({"image_size": [224, True]}, "image_size"),
        ({"image_size": 224}, "image_size"),
        ({"interpolation": "lanczos"}, "'bicubic' or 'bilinear'"),
        ({"std": [1, 0, 1]}, "above 0"),
        ({"mean": [0, 0, float("nan")]}, "mean"),
        ({"mean": "abc"}, "mean"),
    ],
)
def test_unusable_values_are_named(change: dict[str, object], words: str) -> None:
    values = {k: v for k, v in {**make().to_dict(), **change}.items() if v is not ...}
    with pytest.raises(ArtefactError, match=words):
        Preprocessing.from_dict(values)


def test_constructor_refuses_unusable_values() -> None:
    with pytest.raises(UsageError, match="interpolation"):
        make(how="nearest")


def test_a_wrong_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="uint8"):
        make().array(np.zeros((8, 8, 3), np.float32))
