from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgex.utils.json import dumps, finite

INFINITE = [math.nan, math.inf, -math.inf, np.float64("nan")]


@pytest.mark.parametrize("number", INFINITE, ids=repr)
def test_numbers_that_json_does_not_know_become_null_however_deep(number: float) -> None:
    value = {"a": [1, (number, {"b": number})], "c": number, "d": "NaN", "e": None, "f": 1e308, "g": True}
    expected = {"a": [1, [None, {"b": None}]], "c": None, "d": "NaN", "e": None, "f": 1e308, "g": True}
    assert finite(value) == expected
    assert json.loads(dumps(value), parse_constant=pytest.fail) == expected
