"""The strip of the page: the last frames that were alarms or that somebody should look at, and the verdicts on them.

A frame belongs there where its JSON has `alarms`, or a `decision` of "alarm" or "review". Of a source whose frames have
times, or that is live, an event that lasts is one entry every few seconds, not one a frame; so is one that comes and
goes. Each picture of a folder or a pipe is another thing, as for `Alarms`, and an entry of its own.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgex.runtime.printable import printable_values
from edgex.runtime.watch.page.feedback import moment

if TYPE_CHECKING:
    from edgex.runtime.watch.stream import FrameResult

KEPT = 24
"""Entries of the strip, of all streams together."""
PAUSE = 2.0
"""Seconds between two entries of one stream for the same reason, where its frames follow one another in time."""
_WORTH_SEEING = ("alarm", "review")
_SHOWN = ("frame", "source", "name", "time", "label", "score", "labels", "decision", "alarms")


@dataclass
class Event:
    """One entry."""

    number: int
    """Counts from 1 while the program runs."""
    feed: int
    about: dict[str, Any]
    """Of the frame's `to_dict` what the strip shows and verdicts repeat, and `arrived`."""
    part: bytes
    """The picture and what is said about it, see `feed`."""
    verdict: str | None = field(default=None)


class Events:
    """The last `KEPT` entries. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Event] = deque(maxlen=KEPT)
        self._count = 0
        self._last: dict[tuple[object, ...], float] = {}
        self.version = 0
        """Counts the changes."""

    def consider(self, feed: int, frame: FrameResult, part: Callable[[], bytes], *, live: bool = False) -> None:
        """Takes a frame that belongs to the strip.

        feed: position of its stream. part: makes the entry's `part`. live: whether the stream's source is.
        """
        about = frame.to_dict()
        alarms, decision = about.get("alarms"), about.get("decision")
        if not alarms and decision not in _WORTH_SEEING:
            return
        reason, now = (feed, decision, *(alarms or ())), time.monotonic()
        follows = live or frame.source_frame.time is not None
        if follows and now - self._last.get(reason, -math.inf) < PAUSE:
            return
        self._last[reason] = now
        made = part()
        with self._lock:
            self._count += 1
            self.version += 1
            said = {key: about[key] for key in _SHOWN if key in about}
            self._entries.append(Event(self._count, feed, {**said, "arrived": moment()}, made))

    def entry(self, number: int) -> Event:
        """Raises LookupError for one that is not there, or no longer."""
        with self._lock:
            return {event.number: event for event in self._entries}[number]

    def judge(self, event: Event, verdict: str) -> None:
        """Keeps a verdict for all viewers."""
        with self._lock:
            event.verdict = verdict
            self.version += 1

    def to_dicts(self) -> list[dict[str, Any]]:
        """JSON-ready, newest first."""
        with self._lock:
            entries = list(self._entries)
        return [
            {
                "id": event.number,
                "feed": event.feed,
                **printable_values(event.about),
                "verdict": event.verdict,
            }
            for event in reversed(entries)
        ]
