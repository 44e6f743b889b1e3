"""How every command begins and ends as a process: its standard streams, signals, output that cannot be written.

Imports nothing that has to be installed. Errors that commands raise on purpose are dealt with in `application`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from edgex.cli.log import log

_STOPPED = {
    128 + int(getattr(signal, name)): words
    for name, words in (
        ("SIGINT", "interrupted"),
        ("SIGTERM", "terminated"),
        ("SIGHUP", "stopped, since its terminal was closed"),
    )
    if hasattr(signal, name)
}
"""Exit codes of a command that a signal ended, and what it says."""

_ENDS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
"""What ends a command that runs until it is stopped; the last one is Windows' own, which lacks the two before it."""

_ADVICE = ["give the same command again to go on"]
"""What to do after a signal; the last one counts."""

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


@contextlib.contextmanager
def ends_in_words() -> Iterator[None]:
    """Runs a command so that it ends in at most one line and an exit code, never in a traceback that is no bug's.

    | what happens | exit code |
    |---|---|
    | Ctrl-C, SIGTERM, SIGHUP | 128 and the signal's number: 130, 143, 129 |
    | standard output is full, closed, or a broken disk | 1 |
    | the reader of standard output is gone, as with `head` | 1, without a line |
    | standard error cannot be written | that of the command |
    """
    prepare_streams()
    try:
        with _signals_raise(), _libraries_are_quiet(), _output_is_whole():
            yield
    except KeyboardInterrupt:
        _say_stopped(128 + signal.SIGINT)
        sys.exit(128 + signal.SIGINT)
    except SystemExit as ending:
        _say_stopped(ending.code)
        raise
    finally:
        log.end()
        _flushed(sys.stderr)


def prepare_streams() -> None:
    """Lets standard output and error take any text: what their encoding does not have becomes a backslash escape.

    Names of files may be no UTF-8, and a terminal or redirection may know ASCII or a code page only. Streams that were
    closed get back their descriptors, which would be given to the next file to be opened otherwise: standard output in
    such a way that writing fails.
    """
    for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, mode)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: files that are half-written are removed."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for code in _STOPPED if (number := code - 128) != signal.SIGINT]
    # A signal that is ignored already stays so, as SIGHUP under nohup.
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """For commands that run until they are stopped: Ctrl-C, a service manager's SIGTERM, a closed terminal and Ctrl-\\
    call `stop`, a second Ctrl-C ends the program.

    What the caller had ignored stays so, such as the closing of the terminal under nohup.
    """

    def heard(*_: Any) -> None:
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    numbers = [getattr(signal, name) for name in _ENDS if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, heard) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _libraries_are_quiet() -> Iterator[None]:
    """Shows no warning of a library: they speak to who wrote the program, with its source lines.

    Python's own -W and PYTHONWARNINGS bring them back. A filter that makes errors of warnings, as in tests, goes on
    doing so.
    """
    shown, level = warnings.showwarning, logging.root.manager.disable
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        warnings.showwarning = shown
        logging.disable(level)


@contextlib.contextmanager
def _output_is_whole() -> Iterator[None]:
    """Writes all that is left for standard output at the end; where that fails, it is said once."""
    ending: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ending = error
    unwritten = _flushed(sys.stdout)
    # Without a buffer, what could not be written is gone. Files are written through `atomic_output`, which names them.
    if isinstance(ending, OSError) and ending.filename is None and ending.errno in _WRITE_ERRORS:
        unwritten = ending
    said = isinstance(ending, KeyboardInterrupt) or (isinstance(ending, SystemExit) and ending.code)
    if unwritten is not None and not said:
        if not isinstance(unwritten, BrokenPipeError):
            reason = unwritten.strerror or unwritten
            log.error(f"edgex: error: cannot write to standard output ({reason}): the result is not complete")
        sys.exit(1)
    if isinstance(ending, OSError):
        where = f": {os.fsdecode(ending.filename)}" if isinstance(ending.filename, (str, bytes)) else ""
        log.error(f"edgex: error: {ending.strerror or ending}{where}")
        sys.exit(1)
    if ending is not None:
        raise ending


def offer_to_go_on() -> None:
    """Says, for a command that goes on where it was stopped, that its line about a signal is to repeat the command."""
    _ADVICE.append(f"to go on from there: {shlex.join(['edgex', *sys.argv[1:]])}")


def _flushed(stream: TextIO) -> OSError | None:
    """None where all that is left for a stream could be written; else why not, and the rest is thrown away."""
    try:
        stream.flush()
    except OSError as error:
        # Python would try again at exit and complain.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _say_stopped(code: object) -> None:
    if isinstance(code, int) and code in _STOPPED:
        log.error(f"edgex: {_STOPPED[code]}; no file is half-written; {_ADVICE[-1]}")
