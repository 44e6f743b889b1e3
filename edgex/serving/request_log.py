"""A line for each request, written by a thread of its own: a log that is slow, or stuck, holds up no request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_MOST = 1000
"""Lines that wait to be written; what comes on top is counted."""
_CLOSING = 2.0
"""Seconds that closing waits for lines that are not written yet."""


class RequestLog:
    """write: called with each line, in the thread.

    write_failure: called instead with lines about failures. Defaults to `write`.
    """

    def __init__(self, write: Callable[[str], None], write_failure: Callable[[str], None] | None = None) -> None:
        self._write, self._write_failure = write, write_failure or write
        self._lines: queue.Queue[tuple[Callable[[str], None], str] | None] = queue.Queue(_MOST)
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="edgex log", daemon=True)
        self._thread.start()

    def add(self, line: str) -> None:
        """Returns at once."""
        self._put(self._write, line)

    def add_failure(self, line: str) -> None:
        """Returns at once."""
        self._put(self._write_failure, line)

    def _put(self, write: Callable[[str], None], line: str) -> None:
        try:
            self._lines.put_nowait((write, line))
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Writes what is left, for a moment."""
        try:
            self._lines.put(None, timeout=_CLOSING)
        except queue.Full:
            return
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while (entry := self._lines.get()) is not None:
            write, line = entry
            write(line)
            if self._left_out and self._lines.empty():
                count, self._left_out = self._left_out, 0
                self._write(f"{count} lines of the log were left out: they came faster than they could be written")
