"""Judges the pictures of a stream by rules, and acts where one is fulfilled: pictures are written, receivers are told.

Rules and regions are in `rules`, the pictures of alarms in `snapshots`, the sending in `delivery`.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from edgex.runtime.errors import ImageError, UsageError
from edgex.runtime.watch.alarms.delivery import Delivery, Receiver
from edgex.runtime.watch.alarms.rules import Alarm, Regions, Rule, read_rule
from edgex.runtime.watch.together import stop_all

if TYPE_CHECKING:
    from edgex.runtime.watch.alarms.snapshots import SnapshotFolder
    from edgex.runtime.watch.stream import FrameResult, Stream

REPEAT = 10.0
"""Seconds between two alarms of one rule, of sources whose pictures have times."""
GRACE = 5.0
"""Seconds that alarms which wait at the end of a run have to be delivered."""
MOST_PICTURES = 8
"""Alarms whose pictures wait to be written."""


class Alarms:
    """Judges the pictures of streams, each with one of its `judges`, and acts where a rule is fulfilled.

    rules: see `read_rule`.
    inside: regions as `read_rois` takes them; the heat has to lie in one of them, see `Regions`.
    after: pictures of a stream in a row that have to fulfil a rule.
    every: seconds from one alarm of a rule to its next one of the same stream, in the source's own time where it is a
        recording. Defaults to 10 for sources whose pictures have times, and to 0 for others, such as folders: each of
        their pictures is taken for another thing.
    once: stop all streams at the first picture with an alarm.
    snapshots: writes the alarms' pictures, and keeps alarms that a receiver does not have.
    receivers: get the alarms, each in a thread of its own, see `edgex.runtime.watch.alarms.delivery`.
    notice: called with a stream's position and one line where something is to be said, from any thread.

    Raises UsageError for values that are none.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        rules: Sequence[str],
        *,
        inside: Any = None,
        after: int = 1,
        every: float | None = None,
        once: bool = False,
        snapshots: SnapshotFolder | None = None,
        receivers: Sequence[Receiver] = (),
        notice: Callable[[int, str], None] = lambda *_: None,
    ) -> None:
        if not rules:
            raise UsageError("expected at least one rule, such as 'scratch>0.8', found none", argument="alarm")
        if after < 1:
            raise UsageError(f"expected at least 1 picture in a row, found {after!r}", argument="alarm_after")
        if every is not None and not 0 <= every < math.inf:
            raise UsageError(f"expected seconds of at least 0, found {every!r}", argument="alarm_every")
        self._streams, self._once, self._snapshots = tuple(streams), once, snapshots
        self.ended_run = False
        """Whether an alarm has stopped the streams."""
        self.judges = [
            Judge(
                stream,
                [read_rule(text, stream.session) for text in dict.fromkeys(rules)],
                self._act,
                regions=None if inside is None else Regions(inside),
                after=after,
                every=every,
                notice=partial(notice, number),
            )
            for number, stream in enumerate(streams)
        ]
        """A `Sink` for each stream, in their order."""
        self._queue: queue.Queue[Alarm | None] = queue.Queue(MOST_PICTURES)
        self._at_hand: Alarm | None = None
        self._taking = threading.Lock()
        self._writer = threading.Thread(target=self._work, name="edgex snapshots", daemon=True)
        if snapshots is not None:
            self._writer.start()
        lost = {} if snapshots is None else {"undelivered": snapshots.undelivered}
        self._deliveries = [Delivery(receiver, partial(notice, 0), **lost) for receiver in receivers]

    @property
    def counts(self) -> dict[str, int]:
        """Alarms so far, by rule."""
        found: dict[str, int] = {}
        for judge in self.judges:
            for text, count in judge.counts.items():
                found[text] = found.get(text, 0) + count
        return found

    def close(self) -> None:
        """Ends it: writes the pictures that wait, and then gives alarms that wait `GRACE` seconds to be delivered.

        What is not delivered is kept beside the snapshots.
        """
        try:
            if self._snapshots is not None:
                with contextlib.suppress(queue.Full):
                    self._queue.put(None, timeout=GRACE)
                # A disk may hang.
                self._writer.join(GRACE)
            deadline = time.monotonic() + GRACE
            for delivery in self._deliveries:
                delivery.close(deadline)
        finally:
            # A second Ctrl-C ends the waiting, and loses nothing.
            self._write_no_more()
            for delivery in self._deliveries:
                delivery.close(0.0)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        by_rule = ", ".join(f"{text}: {count}" for text, count in self.counts.items() if count)
        parts = [f"{total} alarm{'' if total == 1 else 's'}" + (f" ({by_rule})" if by_rule else "")]
        parts += [str(part) for part in (self._snapshots, *self._deliveries) if part is not None]
        return "; ".join(parts)

    def _act(self, alarm: Alarm, live: bool) -> None:
        if self._snapshots is None:
            self._send(alarm)
        else:
            try:
                # A source that is not live waits for the pictures, as it does for the model.
                self._queue.put(alarm, block=not live)
            except queue.Full:
                self._snapshots.skip("alarms come faster than their pictures are written; some are without")
                self._send(alarm)
        if self._once:
            self.ended_run = True
            stop_all(self._streams)

    def _work(self) -> None:
        """The thread that writes pictures; receivers get their names."""
        while (alarm := self._queue.get()) is not None:
            self._at_hand = alarm
            if self._snapshots is not None:
                self._snapshots.write(alarm)
            self._send_what_is_at_hand()

    def _write_no_more(self) -> None:
        """Sends alarms whose pictures still wait without them, and lets the writer end."""
        if self._snapshots is None:
            return
        with contextlib.suppress(queue.Empty):
            while True:
                if (alarm := self._queue.get_nowait()) is not None:
                    self._snapshots.skip("the run ended before all pictures of alarms were written")
                    self._send(alarm)
        self._queue.put(None)
        self._writer.join(1.0)
        # A disk that hangs has it still.
        self._send_what_is_at_hand()

    def _send_what_is_at_hand(self) -> None:
        with self._taking:
            alarm, self._at_hand = self._at_hand, None
        if alarm is not None:
            self._send(alarm)

    def _send(self, alarm: Alarm) -> None:
        message = alarm.to_dict()
        for delivery in self._deliveries:
            delivery.put(message)


class Judge:
    """Judges the pictures of one stream: a `Sink`, the first one of all.

    It sets `FrameResult.alarms` for the sinks behind it. For the other parameters see `Alarms`.

    act: called with each alarm, and whether the source is live.
    """

    def __init__(
        self,
        stream: Stream,
        rules: Sequence[Rule],
        act: Callable[[Alarm, bool], None],
        *,
        regions: Regions | None,
        after: int,
        every: float | None,
        notice: Callable[[str], None],
    ) -> None:
        self._stream, self._act, self._notice = stream, act, notice
        self._regions, self._after, self._every = regions, after, every
        self._outside: set[tuple[int, int]] = set()
        self._last: tuple[str, ...] = ()
        self._states = [_State(rule) for rule in rules]

    @property
    def counts(self) -> dict[str, int]:
        """Alarms so far, by rule."""
        return {state.rule.text: state.count for state in self._states}

    def write(self, frame: FrameResult) -> None:
        """See `Sink`. Judges the picture; UsageError where regions do not lie in the first one."""
        if frame.is_rerun:
            frame.alarms = self._last
            return
        if frame.number == 0:
            self._check_regions(frame)
        alarms = list(self._raised(frame))
        frame.alarms = self._last = tuple(alarm.rule.text for alarm in alarms)
        for alarm in alarms:
            alarm.frame.alarms = frame.alarms
            self._act(alarm, self._stream.source.live)

    def close(self) -> None:
        """Nothing is open: see `Alarms.close`."""

    def _raised(self, frame: FrameResult) -> Iterator[Alarm]:
        now, every = self._clock(frame)
        seen = {frame.result.explained_index: frame}
        for state in self._states:
            fulfilled = state.rule.holds(frame.result)
            if fulfilled and self._regions is not None:
                fulfilled = self._is_inside(self._explained(frame, state.rule, seen))
            if state.is_due(fulfilled, now, self._after, every):
                yield Alarm(state.rule, self._explained(frame, state.rule, seen))

    def _explained(self, frame: FrameResult, rule: Rule, seen: dict[int, FrameResult]) -> FrameResult:
        """The picture with the heatmap of the class that the rule asks for: another pass where it is another one."""
        index = rule.heat_class(frame.result)
        if index not in seen:
            result = self._stream.session(frame.source_frame.frame, explain=index)
            seen[index] = frame.explained_as(result)
        return seen[index]

    def _check_regions(self, first: FrameResult) -> None:
        """Regions that do not fit the first picture are a mistake of the call."""
        try:
            if self._regions is not None:
                self._regions.check(first.result.view.frame_size)
        except ImageError as error:
            raise UsageError(str(error), argument="inside") from error

    def _is_inside(self, frame: FrameResult) -> bool:
        assert self._regions is not None
        try:
            return self._regions.hold(frame.result)
        except ImageError as error:
            # An alarm too many is better than none.
            if frame.result.view.frame_size not in self._outside:
                self._outside.add(frame.result.view.frame_size)
                self._notice(f"{frame.source_frame.name}: {error}; alarms of pictures of this size need no region")
            return True

    def _clock(self, frame: FrameResult) -> tuple[float, float]:
        """(now in seconds, seconds between two alarms of a rule)."""
        moment, live = frame.source_frame.time, self._stream.source.live
        every = self._every
        if every is None:
            every = 0.0 if moment is None and not live else REPEAT
        return time.monotonic() if moment is None or live else moment, every


@dataclass
class _State:
    """What a rule remembers from picture to picture."""

    rule: Rule
    in_a_row: int = 0
    last: float | None = None
    count: int = 0

    def is_due(self, fulfilled: bool, now: float, after: int, every: float) -> bool:
        """Takes note of a picture; whether it is an alarm."""
        self.in_a_row = self.in_a_row + 1 if fulfilled else 0
        # A recording that begins again counts from 0 again.
        if self.in_a_row < after or (self.last is not None and 0 <= now - self.last < every):
            return False
        self.last = now
        self.count += 1
        return True
