"""Mean, standard error and 95% confidence interval of a metric over pictures.

Plain Python, so that modules that only read stored metrics, such as `edgex.vectors.transfer`, do not import numpy. The
metrics are computed in `edgex.evaluation.comparison`, `edgex.evaluation.classification` and the benchmarks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from edgex.utils.json import finite

_Z = 1.959963984540054
_FEW = {1: 12.706204736, 2: 4.302652730}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over pictures with its standard error; n is the number of pictures."""

    mean: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, values: Iterable[Any]) -> Estimate:
        """Mean and standard error of independent numbers, at least one; a single one's error is not a number."""
        numbers = [float(value) for value in values]
        n = len(numbers)
        mean = math.fsum(numbers) / n
        squares = math.fsum((number - mean) ** 2 for number in numbers)
        return cls(mean, math.sqrt(squares / (n - 1) / n) if n > 1 else math.nan, n)

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the mean by Student's t; not a number for a single picture."""
        half = student_t(self.n - 1) * self.standard_error if self.n > 1 else math.nan
        return self.mean - half, self.mean + half

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; a single picture's standard error is None."""
        return dict(finite(dataclasses.asdict(self)))

    def with_interval(self) -> dict[str, Any]:
        """`to_dict` and the 95% interval, None for a single picture."""
        low, high = self.interval
        return {**self.to_dict(), "interval": [low, high] if math.isfinite(low) else None}

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.standard_error:.4f} (n = {self.n})"


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t with `freedom` degrees of freedom, at least 1; within 1% of the table.

    Source: Abramowitz and Stegun, 1964, 26.7.5 (its expansion is too short for 1 and 2 degrees).
    """
    if freedom in _FEW:
        return _FEW[freedom]
    terms = (
        (_Z**3 + _Z) / 4,
        (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96,
        (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384,
    )
    return _Z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def wilson(count: int, n: int) -> tuple[float, float]:
    """95% interval of a rate of which `count` of `n` independent cases are seen; 0 to 1 of no case.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    if n == 0:
        return 0.0, 1.0
    rate, square = count / n, _Z**2 / n
    middle = rate + square / 2
    half = math.sqrt(square * (rate * (1 - rate) + square / 4))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))
