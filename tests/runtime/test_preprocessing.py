from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import PIL
import pytest
from PIL import Image

from edgex.runtime import ArtefactError, ImageError, Preprocessing, UsageError
from edgex.runtime.view import Remarks

if TYPE_CHECKING:
    from edgex.runtime.resample import Interpolation
    from edgex.runtime.view import Fit

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


@pytest.mark.parametrize("image_size", [(224, 224), (96, 160)])
@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_padding_is_pillows_own_resize_on_the_mean_colour(image_size: tuple[int, int], how: str) -> None:
    interpolation = cast("Interpolation", how)
    preprocessing = Preprocessing(image_size, image_size, interpolation, (0.2, 0.5, 0.8), (1, 1, 1), "pad")
    rows, columns = image_size
    for height, width in [(480, 640), (300, 100), (1, 1), (90, 160), (1080, 1920), (7, 400)]:
        factor = max(height / rows, width / columns)
        size = max(1, round(width / factor)), max(1, round(height / factor))
        image = Image.fromarray(picture(height, width))
        wanted = Image.new("RGB", (columns, rows), (51, 128, 204))
        resized = image.resize(size, Image.Resampling[how.upper()])
        wanted.paste(resized, ((columns - size[0]) // 2, (rows - size[1]) // 2))
        assert np.array_equal(preprocessing.array(image), np.asarray(wanted)), (height, width)
        view = preprocessing.view(height, width)
        assert view.seen == pytest.approx((0, 0, height, width)) and view.seen_share == pytest.approx(1)


def test_a_crop_that_is_not_square_covers_itself_whatever_the_picture() -> None:
    preprocessing = dataclasses.replace(make((70, 120), (64, 112)), fit="crop")
    for height, width in [(90, 160), (160, 90), (100, 100), (64, 112)]:
        view = preprocessing.view(height, width)
        assert view.resized[0] >= 70 and view.resized[1] >= 120 and min(view.offset) >= 0
        assert view.resized[0] == 70 or view.resized[1] == 120
        assert view.scale[0] == pytest.approx(view.scale[1], rel=0.02), "one factor"
    # A square one is torchvision's, with one number or two.
    two = Preprocessing((64, 64), (72, 72), "bicubic", (0, 0, 0), (1, 1, 1), "crop")
    for height, width in SIZES:
        assert two.view(height, width) == make(72, (64, 64)).view(height, width)


def test_files_without_a_fit_keep_their_meaning() -> None:
    for resize, fit in ((256, "crop"), ([224, 224], "squash")):
        values = {key: value for key, value in make().to_dict().items() if key != "fit"} | {"resize": resize}
        assert Preprocessing.from_dict(values).fit == fit
    with pytest.raises(ArtefactError, match="fit: expected .*crop.*pad.*stretch"):
        Preprocessing.from_dict(make().to_dict() | {"fit": "stretch"})
    with pytest.raises(ArtefactError, match="expected a resize of 2 ints with fit 'pad', found 256"):
        Preprocessing.from_dict(make().to_dict() | {"fit": "pad"})


def test_another_fit_shows_as_much_as_it_can() -> None:
    own = make(256)
    assert own.fitted(None) is own and own.fitted("crop") is own
    for fit in ("pad", "squash"):
        other = own.fitted(fit)
        assert (other.fit, other.resize, other.view(1080, 1920).seen_share) == (fit, (224, 224), pytest.approx(1))
        assert other.fitted("crop").view(1080, 1920).seen_share == pytest.approx(9 / 16, abs=0.003)
    with pytest.raises(UsageError, match="expected a fit of crop, squash, pad, found 'stretch'") as caught:
        own.fitted(cast("Fit", "stretch"))
    assert caught.value.argument == "fit"


def test_the_share_that_is_not_seen_is_said_in_a_line() -> None:
    view = make(224).view(1080, 1920)
    assert view.seen_share == pytest.approx(0.5625, abs=0.003)
    assert view.remark == (
        "this model sees the middle 56% of a 1920x1080 frame; the fits 'pad' and 'squash' show it all"
    )
    assert make(224).view(224, 230).remark is None
    assert make(256).view(500, 500).remark is None, "a margin on all sides"
    assert make(200).view(500, 500).remark is None, "black borders"
    assert "45% of a 1080x1920" in (make(250).view(1920, 1080).remark or "")


def test_a_remark_is_made_once_and_again_only_for_a_larger_loss() -> None:
    remarks, own = Remarks(), make(224)
    said = [remarks(own.view(height, 1000)) for height in (1000, 600, 600, 590, 900, 400, 410)]
    assert [index for index, line in enumerate(said) if line] == [1, 5]


@pytest.mark.parametrize(
    "own, size, wanted",
    [
        (make(256), (112, 112), 128),
        (make(256), (256, 448), (293, 512)),
        (make(256, (224, 448)), (224, 224), 256),
        (make((224, 224)), (256, 448), (256, 448)),
        (make((448, 224)), (112, 112), (224, 112)),
    ],
)
def test_another_input_size_keeps_the_share(own: Preprocessing, size: tuple[int, int], wanted: object) -> None:
    other = own.at_image_size(size)
    assert (other.image_size, other.resize, other.fit) == (size, wanted, own.fit)


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
