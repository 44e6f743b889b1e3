from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgex.runtime import UsageError
from edgex.runtime.classes import ClassIndex

INDEX = ClassIndex(("crane", "crane", "Stork", "stork", "Grey Heron"))


@pytest.mark.parametrize(
    "name, number", [("Stork", 2), ("stork", 3), ("grey heron", 4), (0, 0), (4, 4), (np.int64(1), 1)]
)
def test_names_and_positions(name: Any, number: int) -> None:
    found = INDEX.number(name)
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize(
    "name, words",
    [
        ("gray heron", "5 classes, found 'gray heron'; did you mean 'Grey Heron'"),
        ("zzz", "found 'zzz'; see session.classes"),
        ("crane", r"unique class name, found 'crane' at the numbers \[0, 1\]"),
        ("STORK", r"found 'STORK' at the numbers \[2, 3\]"),
        (5, "from 0 to 4, found 5"),
        (-1, "from 0 to 4, found -1"),
        (True, "found True"),
        (1.0, "found 1.0"),
        (None, "found None"),
    ],
)
def test_unknown_and_ambiguous_names_are_refused(name: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        INDEX.number(name)
