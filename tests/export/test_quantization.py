import numpy as np
import pytest

from edgex.export.quantization import Range, quantization_params, quantized_weight


def test_weights_are_rounded_to_the_nearest_code() -> None:
    weight = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    weight[:, 2] = 0
    data, scale = quantized_weight(weight)
    assert data.dtype == np.int8 and data.min() >= -127
    assert (np.abs(data * scale - weight) <= scale / 2 + 1e-7).all()


def test_params_represent_zero_exactly() -> None:
    codes = quantization_params(Range(-1.0, 3.0), symmetric=False)
    assert 0 <= codes.zero_point <= 255 and codes.scale == pytest.approx(4 / 255)
    assert quantization_params(Range(-1.0, 3.0), symmetric=True) == (3 / 127, 0, True)
