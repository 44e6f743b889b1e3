"""What a parser under test is: where its inputs come from, what reads them, and what a right answer is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One input: the bytes of a file, and what the file is called from its suffix on."""

    data: bytes
    suffix: str


def always(meaning: Any, case: Case) -> str | None:
    """For inputs of which any can be valid: an answer is right as long as nothing breaks."""
    del meaning, case
    return None


@dataclasses.dataclass(frozen=True)
class Parser:
    """A parser, named by the room that it is in.

    bases: valid inputs; called once in an empty folder, which stays as long as inputs are tried.
    mutate: a damaged input, out of one of the bases.
    read: hands the input, a file in that folder, to edgex; returns what it was taken for.
    wrong: says in a few words why this input should not have been taken for this, None where it is right.
    names_file: whether a refusal must name the file.
    """

    name: str
    bases: Callable[[Path], Sequence[Case]]
    mutate: Callable[[Random, Sequence[Case]], Case]
    read: Callable[[Path], Any]
    wrong: Callable[[Any, Case], str | None] = always
    names_file: bool = True
