"""Pictures that ship with edgex; SOURCES.md beside them names source and licence of each."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

OF_MODEL = {"cars": ("suv", "sedan"), "imagenet-1k": ("cat", "coffee", "rocket")}
"""Samples that show what a built-in model knows."""


def paths(model: str | None = None) -> tuple[Path, ...]:
    """Sample pictures for a built-in model, or all of them."""
    if model in OF_MODEL:
        return tuple(FOLDER / f"{name}.jpg" for name in OF_MODEL[model])
    return tuple(sorted(FOLDER.glob("*.jpg")))
