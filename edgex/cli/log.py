"""What `--quiet` and `--log-file` ask for: which lines for people are shown, and the file that keeps all of them.

Imports nothing that has to be installed. The lines themselves are those of `console` and `ending`.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from pathlib import Path
from typing import TextIO

from edgex.errors import UsageError
from edgex.runtime.printable import printable
from edgex.utils import progress


class Log:
    """How one command talks. quiet: only errors and results are shown. The file, if any, gets every line."""

    def __init__(self) -> None:
        self.quiet = False
        self._file: TextIO | None = None
        self._path = Path()

    @property
    def keeps(self) -> bool:
        """Whether there is a file that takes lines."""
        return self._file is not None

    def begin(self, title: str, *, quiet: bool = False, path: str | os.PathLike[str] | None = None) -> None:
        """Starts with a command; title: what the log's first line says.

        path: file that the lines are appended to, each with the time; None keeps none. Raises UsageError where it
        cannot be written.
        """
        self.end()
        self.quiet = quiet
        if path is not None:
            self._path = Path(path)
            try:
                # Appended to, so that a run that resumes goes on with its log.
                self._file = self._path.open("a", encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise UsageError(
                    f"expected a file that can be written, found {path} ({error.strerror or error})",
                    argument="log_file",
                ) from error
            self.record(title)
        # Beside a bar, its line would be one too many on the screen.
        progress.show(bar=not quiet, line=self.record if sys.stderr.isatty() else self.note)

    def note(self, text: str) -> None:
        """A line for people on standard error, made safe by `printable`, and in the file."""
        if not self.quiet:
            show(text)
        self.record(text)

    def error(self, text: str) -> None:
        """The same line, of an error: it is always shown."""
        show(text)
        self.record(text)

    def record(self, text: str) -> None:
        """A line in the file alone."""
        if self._file is None:
            return
        time = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            self._file.write(f"{time} {printable(text)}\n")
            self._file.flush()
        except OSError as error:
            self._close()
            show(f"edgex: note: {self._path} ends here, it cannot be written ({error.strerror or error})")

    def end(self) -> None:
        """Closes the file and forgets what was asked for."""
        self._close()
        self.quiet = False
        progress.show()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


log = Log()
"""Of the command that this process runs."""


def show(text: str) -> None:
    """A line on standard error; where nobody can read it, the work goes on."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)
