"""Mutated texts, pictures, streams, requests and options: each is refused in one line or taken rightly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuzzing.parsers import INPUTS


@pytest.mark.parametrize("parser", INPUTS)
def test_mutated_inputs_are_refused_or_right(parser: str, holds: Callable[[str], None]) -> None:
    holds(parser)
