"""Progress on standard error: a bar in a terminal where rich is installed (the extra `cli`), silence elsewhere."""

from __future__ import annotations

import importlib.util
from types import TracebackType
from typing import Any

from edgex.runtime.printable import printable


class Progress:
    """A progress bar with elapsed and remaining time; only where standard error is a terminal and `shown` is true."""

    def __init__(self, title: str, *, total: int, done: int = 0, shown: bool = True) -> None:
        self._bar = _bar() if shown else None
        self._task = self._bar and self._bar.add_task(printable(title), total=total, completed=done, detail="")

    def advance(self, detail: str = "", steps: int = 1) -> None:
        """Moves the bar on and shows a detail behind it."""
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, detail=printable(detail))

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def terminal() -> Any:
    """rich's console on standard error where that is a terminal and rich is installed, else None."""
    if importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal else None


def _bar() -> Any:
    """rich's progress bar, not yet shown; None where there is nothing to show it on."""
    if (console := terminal()) is None:
        return None
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[detail]}", markup=False), console=console)
