"""Mutated files with weights: each is refused in one line or gives what the whole file gives, see `fuzzing.parsers`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuzzing.parsers import FILES


@pytest.mark.parametrize("parser", FILES)
def test_mutated_files_are_refused_or_right(parser: str, holds: Callable[[str], None]) -> None:
    holds(parser)
