from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex import samples
from edgex.errors import DataError
from edgex.export.gate_pictures import ENOUGH, USED_OF_A_FOLDER, choose_pictures, picture_views
from edgex.runtime.preprocessing import Preprocessing

SMALL = Preprocessing(image_size=(8, 8), resize=8, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=(32, 32), resize=32, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def pictures(count: int, size: tuple[int, int] = (48, 40)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(("count", "views"), [(1, 8), (3, 8), (5, 5), (12, 2), (ENOUGH - 1, 2), (ENOUGH, 1), (40, 1)])
def test_few_pictures_are_shown_in_several_views(preprocessing: Preprocessing, count: int, views: int) -> None:
    images = pictures(count)
    made = picture_views(images, preprocessing)
    assert made.dtype == np.uint8 and made.shape == (count * views, 32, 32, 3)
    assert len(np.unique(made.reshape(len(made), -1), axis=0)) == len(made)
    for index, image in enumerate(images):
        assert np.array_equal(made[index * views], preprocessing.array(image))


def test_the_second_view_is_the_mirror_image(preprocessing: Preprocessing) -> None:
    (square,) = pictures(1, (32, 32))
    made = picture_views([square], preprocessing)
    assert np.array_equal(made[1], made[0][:, ::-1])


def test_a_picture_of_one_pixel_has_views(preprocessing: Preprocessing) -> None:
    assert len(picture_views(pictures(1, (1, 1)), preprocessing)) == 8


def folder_of(place: Path, count: int, first: int = 0) -> Path:
    """Pictures of one color each, numbered from `first`: their red is their number."""
    place.mkdir()
    for index in range(first, first + count):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(place / f"{index:03}.png")
    return place


def numbers(pictures: np.ndarray) -> set[int]:
    return set(pictures[:, 0, 0, 0].tolist())


def test_without_folders_the_samples_are_shown_in_several_views() -> None:
    lines: list[str] = []
    gated, calibrated = choose_pictures(None, None, SMALL, lines.append)
    count = len(samples.paths())
    assert calibrated is None and len(gated) >= ENOUGH and len(gated) % count == 0
    assert lines == [f"gate: {len(gated)} views of {count} pictures of edgex's samples"]
    for index, path in enumerate(samples.paths()):
        with Image.open(path) as image:
            assert np.array_equal(gated[index * len(gated) // count], SMALL.array(image.convert("RGB")))


def test_the_gate_compares_on_other_pictures_than_were_calibrated_with(tmp_path: Path) -> None:
    gated, calibrated = choose_pictures(None, folder_of(tmp_path / "many", USED_OF_A_FOLDER + 30), SMALL)
    assert calibrated is not None and len(calibrated) == USED_OF_A_FOLDER and len(gated) == 30
    assert not numbers(gated) & numbers(calibrated)


def test_few_calibration_pictures_serve_for_both(tmp_path: Path) -> None:
    gated, calibrated = choose_pictures(None, folder_of(tmp_path / "few", 3), SMALL)
    assert calibrated is not None and numbers(gated) == numbers(calibrated) == {0, 1, 2}


def test_the_gates_own_folder_comes_first(tmp_path: Path) -> None:
    named, calibration = folder_of(tmp_path / "named", 70, first=100), folder_of(tmp_path / "calibration", 4)
    gated, calibrated = choose_pictures(str(named), calibration, SMALL)
    assert len(gated) == USED_OF_A_FOLDER and min(numbers(gated)) >= 100
    assert calibrated is not None and numbers(calibrated) == {0, 1, 2, 3}


def test_arrays_are_used_as_they_are(tmp_path: Path) -> None:
    one, other = np.zeros((2, 8, 8, 3), dtype=np.uint8), np.ones((3, 8, 8, 3), dtype=np.uint8)
    for found, expected in (
        (choose_pictures(one, None, SMALL), (one, None)),
        (choose_pictures(None, one, SMALL), (one, one)),
        (choose_pictures(one, other, SMALL), (one, other)),
        (choose_pictures(one, folder_of(tmp_path / "folder", 3), SMALL)[:1], (one,)),
    ):
        assert all(a is b for a, b in zip(found, expected, strict=True))


def test_a_missing_or_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for first, second in ((tmp_path / "absent", None), (None, tmp_path / "absent"), (None, tmp_path / "empty")):
        with pytest.raises(DataError, match=r"pictures (at|\(.*\) in)"):
            choose_pictures(first, second, SMALL)
