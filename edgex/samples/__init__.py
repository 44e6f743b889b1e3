"""Pictures that ship with edgex; SOURCES.md beside them names source and licence of each."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

OF_MODEL = {
    "cars": ("suv", "sedan"),
    "imagenet-1k": ("panda", "macaw", "komodo", "dog", "coffee", "cat", "rocket"),
}
"""Samples that show what a built-in model knows."""

GATE = ("cat", "coffee", "rocket", "sedan", "suv")
"""Samples that an export is compared on where no pictures are given."""


def paths(model: str | None = None) -> tuple[Path, ...]:
    """Sample pictures for a built-in model, or, without one, those of the gate."""
    return tuple(FOLDER / f"{name}.jpg" for name in OF_MODEL.get(model or "", GATE))
