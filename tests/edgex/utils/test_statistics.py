from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from edgex.utils.statistics import Estimate, student_t


@pytest.mark.parametrize("dtype", [np.float64, np.float32, bool])
def test_an_estimate_is_mean_and_standard_error(dtype: type) -> None:
    values = np.random.default_rng(0).normal(1000, 3, size=50) > 1000 if dtype is bool else np.arange(50, dtype=dtype)
    found = Estimate.of(values)
    assert math.isclose(found.mean, values.mean(dtype=np.float64), rel_tol=1e-12)
    assert math.isclose(found.standard_error, stats.sem(values.astype(np.float64)), rel_tol=1e-12)
    assert found.n == 50
    assert Estimate.of(values.tolist()) == found


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 49, 999])
def test_intervals_are_students(freedom: int) -> None:
    assert math.isclose(student_t(freedom), stats.t.ppf(0.975, freedom), rel_tol=0.01)
    values = np.random.default_rng(freedom).normal(size=freedom + 1)
    low, high = stats.t.interval(0.95, freedom, values.mean(), stats.sem(values))
    assert np.allclose(Estimate.of(values).interval, (low, high), rtol=0.02)


def test_a_single_picture_has_no_interval_and_its_json_says_so() -> None:
    found = Estimate.of([1.0])
    assert all(math.isnan(end) for end in found.interval)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == {"mean": 1.0, "standard_error": None, "n": 1}


def test_it_needs_nothing_that_is_slow_to_import() -> None:
    modules = "edgex.utils.statistics, edgex.vectors.transfer"
    code = f"import sys, {modules}; sys.exit(bool({{'numpy', 'torch'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
