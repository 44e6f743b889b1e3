"""Runs a session over a source: which picture is next, which are dropped, when a broken source is opened again.

One thread reads, the caller's thread runs the model. Between them lies a short queue:

| policy | queue | when the model is slower than the source |
|---|---|---|
| latest | one picture | a newer picture replaces the waiting one; drops are counted. For live sources |
| every | two pictures | the source waits. For files, folders and pipes |

What a source is, is in `source`; what is done with results, in `sinks` and `page`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from edgex.runtime.drift import DriftMonitor, DriftWarning
from edgex.runtime.errors import ImageError, SourceError, UsageError
from edgex.runtime.view import Remarks
from edgex.runtime.watch.metrics import StreamMetrics

if TYPE_CHECKING:
    import numpy as np

    from edgex.runtime.drawing.options import Drawing
    from edgex.runtime.result import Result
    from edgex.runtime.session import Session
    from edgex.runtime.watch.sources.source import Source, SourceFrame

Policy = Literal["latest", "every"]
POLICIES = ("latest", "every")

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a broken source is opened again: the first wait, doubled each time up to the longest."""
_TICK = 0.1
"""Seconds between looks at the stop flag, which a signal handler may set without taking a lock."""


@dataclass(eq=False)
class FrameResult:
    """One picture and what the model says about it."""

    number: int
    """Position among the pictures that went through the model, from 0."""
    source_frame: SourceFrame
    result: Result
    latency: float
    """Seconds from the picture's arrival to its result."""
    model: float
    """Seconds of preprocessing and inference."""
    is_rerun: bool = False
    """Whether it is the last picture again, since another class was asked for."""
    source: str = ""
    """Name of the source, for people."""
    drift: tuple[DriftWarning, ...] = ()
    """In what the pictures up to this one differ from those of validation, see `edgex.runtime.drift`."""
    alarms: tuple[str, ...] | None = None
    """The rules that raised an alarm, see `edgex.runtime.watch.alarms.alarms`; None where there are no rules."""

    @property
    def queue(self) -> float:
        """Seconds that the picture waited for the model."""
        return self.latency - self.model

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """JSON-ready: which picture, when, and `Result.to_dict`. time in seconds of the source, or null.

        alarms is there only where there are rules, drift while there are warnings: a list of `DriftWarning.to_dict`.
        """
        return {
            "frame": self.number,
            "source": self.source,
            "name": self.source_frame.name,
            "time": self.source_frame.time,
            "latency_ms": round(1000 * self.latency, 3),
            "queue_ms": round(1000 * self.queue, 3),
            "model_ms": round(1000 * self.model, 3),
            **({} if self.alarms is None else {"alarms": list(self.alarms)}),
            **self.result.to_dict(top),
            **({"drift": [warning.to_dict() for warning in self.drift]} if self.drift else {}),
        }

    def explained_as(self, result: Result) -> FrameResult:
        """The same picture with another class explained."""
        return replace(self, result=result, is_rerun=True, _drawn=None)

    def pixels(self) -> np.ndarray:
        """The picture: uint8 [H, W, 3] RGB."""
        return self.source_frame.frame.rgb()

    def captioned(self, drawing: Drawing) -> np.ndarray:
        """The picture with heatmap and caption, uint8 [H, W, 3] RGB: see `Drawing`; drawn once for several sinks."""
        if self._drawn is None or self._drawn[0] != drawing:
            self._drawn = drawing, drawing.captioned(self.result, self.source_frame.frame)
        return self._drawn[1]

    _drawn: tuple[Drawing, np.ndarray] | None = None


class Stream:
    """Iterate over it to run the model over a source.

        stream = Stream(session, open_source("camera:0"))
        for frame in stream:
            print(frame.result.label)

    policy: "latest" or "every", see the module. Defaults to "latest" for live sources.
    explain: class to explain, by name or position; None for the predicted one. May be changed while it runs.
    fps: at most so many pictures a second. Defaults to as many as come.
    limit: pictures to run. Defaults to all.
    retries: attempts to open a broken live source again, one after the other, before giving up. A source that never
        gave a picture is given up at once.
    loop: begin again at the end of a video or folder.
    stay: at the end, wait until `stop` and run the last picture again whenever `explain` changes.
    notice: called with one line when a picture cannot be read, a source breaks, the model does not see a part of the
        frame (once for each size that loses more than those before), or results drift from those of validation that
        the file holds (see `edgex.runtime.drift`); from either thread.
    failure: called instead when a picture cannot be read. Defaults to `notice`.

    Iterating raises SourceError where the source cannot be opened, holds no picture or broke for good, after all
    pictures that came before; not for what lies behind the `limit` or a `stop`. A stream runs once: UsageError.
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        *,
        policy: Policy | None = None,
        explain: str | int | None = None,
        fps: float | None = None,
        limit: int | None = None,
        retries: int = 10,
        loop: bool = False,
        stay: bool = False,
        notice: Callable[[str], None] = lambda _: None,
        failure: Callable[[str], None] | None = None,
    ) -> None:
        self.policy: Policy = policy or ("latest" if source.live else "every")
        if self.policy not in POLICIES:
            raise UsageError(f"expected {' or '.join(POLICIES)}, found {policy!r}", argument="policy")
        if fps is not None and not 0 < fps < float("inf"):
            raise UsageError(f"expected a rate above 0 pictures a second, found {fps!r}", argument="fps")
        if limit is not None and limit < 1:
            raise UsageError(f"expected at least 1 picture, found {limit!r}", argument="limit")
        if retries < 0:
            raise UsageError(f"expected 0 or more attempts, found {retries!r}", argument="retries")
        if loop and source.live:
            raise UsageError(f"expected a source that ends, found {source.name}", argument="loop")
        self.session = session
        self.source = source
        self.metrics = StreamMetrics()
        self.state = "starting"
        """"starting", "running", "reconnecting" or "ended"."""
        self._limit, self._retries, self._loop, self._stay = limit, retries, loop, stay
        self._interval = 0.0 if fps is None else 1 / fps
        self._notice, self._failure = notice, failure or notice
        self._explain = None if explain is None else session.class_number(explain)
        self._stopped = False
        self._redo = False
        self._changed = threading.Condition()
        self._waiting: deque[tuple[SourceFrame | ImageError, float]] = deque()
        self._exhausted = False
        self._tried = False
        self._remarked = False
        self._remarks = Remarks()
        self._drift: DriftMonitor | None = None
        self._error: Exception | None = None
        self._due = 0.0
        self._last: SourceFrame | None = None
        self._reader = threading.Thread(target=self._read, name="edgex source", daemon=True)

    @property
    def explain(self) -> int | None:
        """Position of the class that is explained from the next picture on; None for the predicted one.

        Set it from any thread, by name or position; UsageError for an unknown class.
        """
        return self._explain

    @explain.setter
    def explain(self, name: str | int | None) -> None:
        number = None if name is None else self.session.class_number(name)
        with self._changed:
            self._explain, self._redo = number, True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the iteration after the picture at hand; safe in a signal handler."""
        self._stopped = True

    def __iter__(self) -> Generator[FrameResult]:
        if self._reader.ident is not None:
            raise UsageError("expected a stream that has not run yet, found one that has; make another")
        self._drift = DriftMonitor.of(self.session, self._warn)
        self._reader.start()
        number = 0
        try:
            while (found := self._next(number)) is not None:
                source_frame, arrival, is_rerun = found
                result = self._run(source_frame, arrival, number - 1 if is_rerun else number, is_rerun)
                if result is not None:
                    number += not is_rerun
                    yield result
        finally:
            self.stop()
            self.metrics.stop()
            getattr(self.source, "cancel", lambda: None)()
            # A silent network blocks the reader until its time-out; do not wait for that.
            self._reader.join(timeout=1.0)
            self.state = "ended"
        if self._error is not None:
            raise self._error

    def _next(self, number: int) -> tuple[SourceFrame, float, bool] | None:
        """(picture, its arrival, whether it is the last one again), or None at the end."""
        with self._changed:
            while not self._stopped:
                over = number == self._limit or (self._exhausted and not self._waiting)
                wait = self._due - time.monotonic()
                if not over and wait <= 0 and self._waiting:
                    found, arrival = self._waiting.popleft()
                    self._changed.notify_all()
                    if isinstance(found, ImageError):
                        self._unusable(found)
                        continue
                    self._due = max(self._due, time.monotonic()) + self._interval
                    self._last, self._redo = found, False
                    return found, arrival, False
                if self._redo and self._last is not None:
                    self._redo = False
                    return self._last, time.monotonic(), True
                if over:
                    if number == self._limit:
                        self._error = None
                    self._finish()
                    if not self._stay or self._last is None or self._error is not None:
                        return None
                self._changed.wait(min(max(wait, 0.0) or _TICK, _TICK))
        return None

    def _run(self, source_frame: SourceFrame, arrival: float, number: int, is_rerun: bool) -> FrameResult | None:
        begin = time.monotonic()
        explain = self._explain
        try:
            result = self.session(source_frame.frame, explain=explain)
        except ImageError as error:
            if error.argument is not None and number == 0:
                # Tiles or regions that do not fit the first picture are a mistake of the call.
                raise UsageError(str(error), argument=error.argument) from error
            self._unusable(error)
            return None
        end = time.monotonic()
        if result.remark is not None and (remark := self._remarks(result.view)) is not None:
            self._warn(remark)
        if not is_rerun:
            self.metrics.done(end - arrival, end - begin)
        drift = self._drifted(source_frame, result, arrival, is_rerun)
        times = end - arrival, end - begin
        return FrameResult(number, source_frame, result, *times, is_rerun, self.source.name, drift)

    def _drifted(
        self, source_frame: SourceFrame, result: Result, arrival: float, is_rerun: bool
    ) -> tuple[DriftWarning, ...]:
        """The warnings that are not over, after this result."""
        if self._drift is None or is_rerun:
            return self._drift.warnings if self._drift else ()
        clock = arrival if self.source.live else None
        warnings = self._drift.add(result, clock if source_frame.time is None else source_frame.time)
        self.metrics.drift_warnings = self._drift.raised
        return warnings

    def _warn(self, text: str) -> None:
        self._notice(f"{self.source.name}: {text}")

    def _finish(self) -> None:
        """No further picture is wanted or will come."""
        if self.state == "ended":
            return
        self._exhausted = True
        self._waiting.clear()
        self.metrics.stop()
        self.state = "ended"
        if self._stay and self._error is None:
            self._notice(f"{self.source.name}: ended; its last picture stays")

    def _over(self) -> bool:
        return self._stopped or self._exhausted

    def _read(self) -> None:
        """The reading thread."""
        try:
            self._read_and_reconnect()
        except Exception as error:
            # The iterating thread raises it; where that has stopped already, it is dropped.
            with self._changed:
                self._error = None if self._over() else error
        with self._changed:
            self._exhausted = True
            self._changed.notify_all()

    def _read_and_reconnect(self) -> None:
        failures, delivered = 0, 0
        while not self._over():
            before = delivered
            try:
                self.source.open()
                self._say_remark()
                if before:
                    self.metrics.reconnected() if self.source.live else None
                for source_frame in self._source_frames():
                    failures, delivered = 0, delivered + 1
                    self.state = "ended" if self._over() else "running"
                    self._put(source_frame)
                if self.source.live and not self._over():
                    raise SourceError(f"{self.source.name}: ended")
                if not self._tried and not self._over():
                    raise SourceError(f"{self.source.name}: expected pictures, found none")
                if not self._loop or delivered == before:
                    return
            except SourceError as error:
                if not self.source.live or delivered == 0 or failures == self._retries:
                    raise
                if self._over():
                    return
                wait = min(FIRST_WAIT * 2**failures, LONGEST_WAIT)
                failures += 1
                self.state = "reconnecting"
                self._notice(f"{error}; opening it again in {wait:g} s ({failures} of {self._retries})")
                self._pause(wait)
            finally:
                self.source.close()

    def _say_remark(self) -> None:
        """Once, where a source has something to say, such as which files a folder passes over."""
        if not self._remarked and (remark := getattr(self.source, "remark", "")):
            self._remarked = True
            self._notice(f"{self.source.name}: {remark}")

    def _source_frames(self) -> Iterator[SourceFrame]:
        """Usable pictures until the source ends or the stream stops."""
        begin: float | None = None
        while not self._over():
            try:
                source_frame = self.source.read()
            except ImageError as error:
                self._tried = True
                self._put_bad(error)
                continue
            if source_frame is None:
                return
            self._tried = True
            self._say_remark()
            if self.policy == "latest" and not self.source.live and source_frame.time is not None:
                # A video plays at its own speed, as a camera would; otherwise all but the last would be dropped.
                begin = time.monotonic() - source_frame.time if begin is None else begin
                self._pause(begin + source_frame.time - time.monotonic())
            self.metrics.arrived()
            yield source_frame

    def _put(self, source_frame: SourceFrame) -> None:
        arrival = time.monotonic()
        with self._changed:
            if self.policy == "latest":
                if self._waiting:
                    self._waiting.clear()
                    self.metrics.dropped()
                self._append(source_frame, arrival)
            else:
                self._append_in_turn(source_frame, arrival)

    def _put_bad(self, error: ImageError) -> None:
        """Reports an unreadable picture: at once, or with policy "every" in its turn, which may lie past the limit."""
        with self._changed:
            if self.policy == "every":
                self._append_in_turn(error, time.monotonic())
            elif not self._over():
                self._unusable(error)

    def _append_in_turn(self, found: SourceFrame | ImageError, arrival: float) -> None:
        while len(self._waiting) >= 2 and not self._over():
            self._changed.wait(_TICK)
        self._append(found, arrival)

    def _append(self, found: SourceFrame | ImageError, arrival: float) -> None:
        if not self._over():
            self._waiting.append((found, arrival))
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._over() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _TICK))

    def _unusable(self, error: ImageError) -> None:
        self.metrics.unusable()
        self._failure(str(error))
