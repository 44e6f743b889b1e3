"""Tries one input in this process: refused in one line, taken rightly, or a failure of some kind."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import io
import re
import time
import traceback
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from edgex.errors import EdgexError
from fuzzing.parser import Case, Parser

MOST_SECONDS = 20
MOST_MEMORY = 1 << 30
"""Above the idle process, in bytes."""
_OWN = re.compile(r"/(edgex|export|runtime)/(?!.*site-packages)")
_LONGEST = 2000
"""Characters of a refusal."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an input.

    kind: "refused" or "accepted"; else a failure: "traceback", "wrong" (accepted, but should not have been),
    "unclear" (refused, but not in one clear line), "memory", "slow", "crash". message: of the refusal or the failure.
    signature: equal for failures that are likely the same one. memory: peak above idle, in bytes.
    """

    kind: str
    message: str = ""
    signature: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def failed(self) -> bool:
        return self.kind not in ("refused", "accepted")


def judge(parser: Parser, case: Case, folder: Path, seconds: float = MOST_SECONDS) -> Outcome:
    """Writes the input to `folder` and reads it; the file stays, for whoever finds this process dead.

    A process that hangs for `seconds` ends itself, with a traceback on standard error.
    """
    path = folder / f"case{case.suffix}"
    path.write_bytes(case.data)
    faulthandler.dump_traceback_later(seconds, exit=True)
    idle, started = _forget_peak(), time.monotonic()
    try:
        outcome = _read(parser, path, case)
    finally:
        faulthandler.cancel_dump_traceback_later()
    outcome = dataclasses.replace(outcome, seconds=time.monotonic() - started, memory=max(_status("VmHWM") - idle, 0))
    if outcome.memory > MOST_MEMORY and not outcome.failed:
        return dataclasses.replace(outcome, kind="memory", signature=f"{parser.name}: memory")
    return outcome


def _read(parser: Parser, path: Path, case: Case) -> Outcome:
    try:
        meaning = parser.read(path)
    except EdgexError as error:
        return _refusal(error, path.name if parser.names_file else "")
    except Exception as error:
        return Outcome("traceback", _last_lines(error), f"{type(error).__name__} at {_innermost(error)}")
    reason = parser.wrong(meaning, case)
    return Outcome("accepted") if reason is None else Outcome("wrong", reason, f"wrong: {reason[:40]}")


def _refusal(error: EdgexError, name: str) -> Outcome:
    """A refusal must read well where people see it."""
    from edgex.cli.console import print_error

    with contextlib.redirect_stderr(io.StringIO()) as shown:
        print_error(error)
    text = shown.getvalue().removesuffix("\n")
    place = _innermost(error)
    if any(isinstance(cause, MemoryError) for cause in _causes(error)):
        return Outcome("memory", text, f"memory at {place}")
    reason = None
    if "\n" in str(error) or "\n" in text:
        reason = "several lines"
    elif unprintable := {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _TURNS}:
        reason = f"unprintable characters {sorted(map(ascii, unprintable))}"
    elif len(text) > _LONGEST:
        reason = f"{len(text)} characters"
    elif name not in text:
        reason = "the file is not named"
    if reason is None:
        return Outcome("refused", text)
    return Outcome("unclear", f"{reason}: {text[:500]}", f"unclear, {reason[:12]} at {place}")


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
"""Characters that turn the direction of text."""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _innermost(error: BaseException) -> str:
    """The last place in edgex that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if _OWN.search(frame.filename)]
    frame = (inside or list(frames))[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.name}"


def _last_lines(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(line[:200] for line in lines[-14:])


def _forget_peak() -> int:
    """The process's memory now, from which its peak counts on."""
    with contextlib.suppress(OSError):
        # proc(5): 5 resets the peak resident set size.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(key: str) -> int:
    """A number of /proc/self/status in bytes; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0
