"""Progress on standard error: a bar for people, silence where nobody looks."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

stderr = Console(stderr=True)


class Progress:
    """A progress bar with elapsed and remaining time; only where standard error is a terminal and `shown` is true."""

    def __init__(self, title: str, *, total: int, done: int = 0, shown: bool = True) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=stderr,
            disable=not (shown and stderr.is_terminal),
        )
        self._task = self._bar.add_task(title, total=total, completed=done, detail="")

    def advance(self, detail: str = "", steps: int = 1) -> None:
        """Moves the bar on and shows a detail behind it."""
        self._bar.update(self._task, advance=steps, detail=detail)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
