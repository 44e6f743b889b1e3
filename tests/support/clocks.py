"""A clock that a test sets."""

from __future__ import annotations

from types import ModuleType

import pytest


class Clock:
    """Stands for the module `time` in one module; `now` is what it says, in seconds."""

    now = 100.0

    @classmethod
    def of(cls, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """The clock that the module reads from now on."""
        clock = cls()
        monkeypatch.setattr(module, "time", clock)
        return clock

    def monotonic(self) -> float:
        return self.now
