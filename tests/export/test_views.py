import numpy as np
import pytest
from PIL import Image

from edgex.export.views import ENOUGH, gate_pictures
from edgex.runtime.preprocessing import Preprocessing


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=(32, 32), resize=32, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def pictures(count: int, size: tuple[int, int] = (48, 40)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(("count", "views"), [(1, 8), (3, 8), (5, 5), (12, 2), (ENOUGH - 1, 2), (ENOUGH, 1), (40, 1)])
def test_few_pictures_are_shown_in_several_views(preprocessing, count, views):
    images = pictures(count)
    made = gate_pictures(images, preprocessing)
    assert made.dtype == np.uint8 and made.shape == (count * views, 32, 32, 3)
    assert len(np.unique(made.reshape(len(made), -1), axis=0)) == len(made)
    for index, image in enumerate(images):
        assert np.array_equal(made[index * views], preprocessing.array(image))


def test_the_second_view_is_the_mirror_image(preprocessing):
    (square,) = pictures(1, (32, 32))
    made = gate_pictures([square], preprocessing)
    assert np.array_equal(made[1], made[0][:, ::-1])


def test_a_picture_of_one_pixel_has_views(preprocessing):
    assert len(gate_pictures(pictures(1, (1, 1)), preprocessing)) == 8
