"""Sends alarms to a receiver without making pictures wait: a queue, a thread, and another attempt where one fails.

Receivers are in `webhook` and `mqtt`. Alarms are sent in their order. While a receiver cannot be reached, they wait;
what a receiver refuses, what finds the queue full and what still waits at the end is handed back as undelivered.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from edgex.runtime.errors import first_line
from edgex.runtime.printable import printable_json

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the next attempt: the first wait, doubled each time up to the longest."""
MOST_WAITING = 1000
"""Alarms in the queue of one receiver."""


class NotDeliveredError(Exception):
    """A receiver does not have an alarm; the text says why, and holds nothing that may be secret.

    refused: the receiver was reached and does not take it, so the same would happen again.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class Receiver(Protocol):
    """Where alarms go. One thread calls all members but `name`."""

    name: str
    """For people, such as "webhook http://10.0.0.2/..."; without anything that may be secret."""

    def open(self) -> None:
        """Called once before the first alarm, to find mistakes early. Raises NotDeliveredError."""

    def send(self, message: bytes) -> None:
        """Returns when the receiver has a message, JSON in UTF-8. Raises NotDeliveredError."""

    def close(self) -> None:
        """Releases what the others took."""


class Delivery:
    """The alarms for one receiver.

    notice: called with one line for each reason why alarms do not arrive, once a reason, from any thread.
    undelivered: called with (the receiver's name, the reason, alarms) for alarms that are given up, from any thread.
    """

    def __init__(
        self,
        receiver: Receiver,
        notice: Callable[[str], None],
        undelivered: Callable[[str, str, list[dict[str, Any]]], None] = lambda *_: None,
    ) -> None:
        self._receiver, self._notice, self._undelivered = receiver, notice, undelivered
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, Any]] = deque()
        self._ending = self._over = self._opened = False
        self._reasons: set[str] = set()
        self._last_reason = "the run ended first"
        self.delivered = self.lost = self.failures = 0
        """Alarms that arrived, alarms that were given up, and attempts that failed."""
        self._thread = threading.Thread(target=self._work, name="edgex alarms", daemon=True)
        self._thread.start()

    def put(self, alarm: dict[str, Any]) -> None:
        """Takes an alarm, JSON-ready; returns at once."""
        with self._changed:
            reason = "the run has ended" if self._over else None
            if reason is None and len(self._waiting) >= MOST_WAITING:
                reason = f"{MOST_WAITING} alarms wait already"
            if reason is None:
                self._waiting.append(alarm)
                self._changed.notify_all()
                return
        self._say(reason)
        self._give_up([alarm], reason)

    def close(self, deadline: float) -> None:
        """Ends it: alarms that wait are sent until the deadline, by `time.monotonic`, and handed back after it."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            while not self._over and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._over = True
            rest = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        if rest:
            self._give_up(rest, self._last_reason)
        # A receiver that does not answer holds the thread until its time-out; do not wait for that.
        self._thread.join(timeout=0.5 if deadline else 0.0)

    def __str__(self) -> str:
        parts = [f"{self.delivered} delivered"]
        if self.lost:
            parts.append(f"{self.lost} not delivered")
        if self.failures:
            parts.append(f"{self.failures} attempt{'' if self.failures == 1 else 's'} failed")
        return f"{self._receiver.name}: {', '.join(parts)}"

    def _work(self) -> None:
        """The thread."""
        wait = FIRST_WAIT
        self._attempt(self._receiver.open)
        while (alarm := self._next()) is not None:
            message = printable_json(json.dumps(alarm, ensure_ascii=False)).encode()
            error = self._attempt(partial(self._receiver.send, message))
            if error is not None and not error.refused:
                self._pause(wait)
                wait = FIRST_WAIT if self._ending else min(2 * wait, LONGEST_WAIT)
                continue
            wait = FIRST_WAIT
            with self._changed:
                if self._over:
                    # It was handed back meanwhile.
                    break
                self._waiting.popleft()
                self.delivered += error is None
            if error is not None:
                self._give_up([alarm], str(error))
        self._receiver.close()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _next(self) -> dict[str, Any] | None:
        """The first alarm that waits; None where there will be none."""
        with self._changed:
            while not (self._waiting or self._ending or self._over):
                self._changed.wait()
            return self._waiting[0] if self._waiting and not self._over else None

    def _attempt(self, call: Callable[[], None]) -> NotDeliveredError | None:
        """Why it failed, which is said and counted."""
        try:
            call()
        except Exception as found:
            # Another error is a library's own; the next alarms may not meet it.
            error = (
                found if isinstance(found, NotDeliveredError) else NotDeliveredError(first_line(found), refused=True)
            )
        else:
            return None
        self.failures += 1
        self._last_reason = str(error)
        self._say(str(error) if error.refused else f"{error}; alarms wait and are sent again")
        return error

    def _pause(self, seconds: float) -> None:
        """Until the next attempt; cut short when the end of the run begins, and when it is over."""
        with self._changed:
            ending = self._ending
            self._changed.wait_for(lambda: self._over or self._ending != ending, seconds)

    def _say(self, reason: str) -> None:
        with self._changed:
            if reason in self._reasons:
                return
            self._reasons.add(reason)
        self._notice(f"{self._receiver.name}: {reason}")

    def _give_up(self, alarms: list[dict[str, Any]], reason: str) -> None:
        with self._changed:
            self.lost += len(alarms)
        self._undelivered(self._receiver.name, reason, alarms)
