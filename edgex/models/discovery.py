"""Finds the modules of a package, so that a new one in its folder is enough to add a family or a strategy."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """All modules directly in a package, imported, in alphabetical order. package: dotted name."""
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names]
