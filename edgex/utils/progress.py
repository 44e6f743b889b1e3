"""Progress on standard error: a bar in a terminal where rich is installed (the extra `cli`), else a line a minute.

The lines are for whoever asked for them by `show`, as the command line does; a library alone is silent without a
terminal.
"""

from __future__ import annotations

import importlib.util
import time
from types import TracebackType
from typing import Any

from edgex.runtime.printable import printable
from edgex.utils.text import Report, duration

LINE_SECONDS = 60.0
"""From a line of progress to the next."""


class _Display:
    """Where this process shows progress. bar: in a terminal. line: called with a line a minute; None for none."""

    def __init__(self) -> None:
        self.bar = True
        self.line: Report | None = None


_display = _Display()


def show(*, bar: bool = True, line: Report | None = None) -> None:
    """Decides where progress is shown from now on; without arguments as at the beginning.

    bar: whether there is a bar in a terminal. line: called with a line of every piece of work a minute.
    """
    _display.bar, _display.line = bar, line


class Progress:
    """How far a piece of work is, with elapsed and remaining time; nothing where `shown` is false.

    total, done: in `unit`, a plural such as "pictures"; without one the lines state the share alone.
    """

    def __init__(self, title: str, *, total: int, done: int = 0, unit: str = "", shown: bool = True) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._first = self._done = done
        self._line = _display.line if shown else None
        self._started = self._said = time.monotonic()
        self._bar = _bar() if shown else None
        self._task = self._bar and self._bar.add_task(printable(title), total=total, completed=done, detail="")

    def advance(self, detail: str = "", steps: int = 1) -> None:
        """Moves on, and shows a detail behind the bar or in the line."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, detail=printable(detail))
        if self._line is not None and (now := time.monotonic()) - self._said >= LINE_SECONDS:
            self._said = now
            self._line(self._described(now - self._started) + (f"; {detail}" if detail else ""))

    def _described(self, seconds: float) -> str:
        """One line. seconds: since this run began, to tell by how long the rest takes."""
        count = f"{self._done} of {self._total} {self._unit}, " if self._unit else ""
        share = self._done / self._total if self._total else 1.0
        made = self._done - self._first
        left = f", {duration(seconds * (self._total - self._done) / made)} left" if made > 0 else ""
        return f"{self._title}: {count}{100 * share:.0f}%{left}"

    def __enter__(self) -> Progress:
        self._started = self._said = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def terminal() -> Any:
    """rich's console on standard error where that is a terminal, rich is installed and bars are shown, else None."""
    if not _display.bar or importlib.util.find_spec("rich") is None:
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
