"""Finds the method that a text names, among the modules of this package."""

from __future__ import annotations

import functools
import inspect

from edgex.errors import UsageError
from edgex.evaluation.methods.method import Method
from edgex.models.discovery import modules_of


@functools.cache
def methods() -> tuple[type[Method], ...]:
    """All methods: the subclasses of `Method` that the modules of this package define, by name."""
    assert __package__ is not None
    found = [
        kind
        for module in modules_of(__package__)
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and issubclass(kind, Method)
        and not inspect.isabstract(kind)
    ]
    return tuple(sorted(found, key=lambda kind: kind.name))


def parse(text: str) -> Method:
    """A method from its text, such as "kernel-shap:150" or "grad-cam"; UsageError for anything else."""
    for kind in methods():
        if (method := kind.parse(text)) is not None:
            return method
    *known, last = (kind.grammar for kind in methods())
    raise UsageError(f"expected a method {', '.join(known)} or {last}, found '{text}'")
