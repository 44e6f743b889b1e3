from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgex.runtime.watch.alarms import delivery as module
from edgex.runtime.watch.alarms.delivery import Delivery, NotDeliveredError


class Scripted:
    """A receiver that does what a list says for each attempt: None takes the message, an exception is raised."""

    name = "test receiver"

    def __init__(self, *attempts: Exception | None, opening: Exception | None = None) -> None:
        self.attempts, self.opening = list(attempts), opening
        self.taken: list[Any] = []
        self.times: list[float] = []
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.opening is not None:
            raise self.opening

    def send(self, message: bytes) -> None:
        self.times.append(time.monotonic())
        error = self.attempts.pop(0) if len(self.attempts) > 1 else (self.attempts or [None])[0]
        if error is not None:
            raise error
        self.taken.append(json.loads(message))

    def close(self) -> None:
        self.closed += 1


AWAY = NotDeliveredError("connection refused")
REFUSED = NotDeliveredError("it answers 400", refused=True)


class Ledger:
    """Runs a delivery, and keeps what it says and gives up."""

    def __init__(self, receiver: Any) -> None:
        self.notices: list[str] = []
        self.lost: list[tuple[str, str, Any]] = []
        self.delivery = Delivery(receiver, self.notices.append, self.give_up)

    def give_up(self, name: str, reason: str, alarms: list[Any]) -> None:
        self.lost += [(name, reason, alarm) for alarm in alarms]

    def end(self, seconds: float = 5.0) -> None:
        self.delivery.close(time.monotonic() + seconds)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while any(thread.name == "edgex alarms" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Scripted()
    ledger = Ledger(receiver)
    for number in range(50):
        ledger.delivery.put({"number": number, "name": "Füchse \ud800"})
    ledger.end()
    assert [alarm["number"] for alarm in receiver.taken] == list(range(50))
    assert (receiver.opened, receiver.closed) == (1, 1)
    assert (ledger.notices, ledger.lost) == ([], [])
    assert str(ledger.delivery) == "test receiver: 50 delivered"


def test_a_receiver_that_is_away_gets_them_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.1)
    receiver = Scripted(AWAY, AWAY, AWAY, AWAY, None)
    ledger = Ledger(receiver)
    ledger.delivery.put({"number": 1})
    while len(receiver.taken) < 1:
        time.sleep(0.01)
    ledger.delivery.put({"number": 2})
    ledger.end()
    assert [alarm["number"] for alarm in receiver.taken] == [1, 2]
    waits = [after - before for before, after in zip(receiver.times[:5], receiver.times[1:5], strict=False)]
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.1, 0.1), strict=True))
    assert ledger.notices == ["test receiver: connection refused; alarms wait and are sent again"]
    assert ledger.lost == []
    assert str(ledger.delivery) == "test receiver: 2 delivered, 4 attempts failed"


def test_what_is_refused_is_not_sent_again() -> None:
    receiver = Scripted(REFUSED, None)
    ledger = Ledger(receiver)
    ledger.delivery.put({"number": 1})
    ledger.delivery.put({"number": 2})
    ledger.end()
    assert [alarm["number"] for alarm in receiver.taken] == [2]
    assert ledger.lost == [("test receiver", "it answers 400", {"number": 1})]
    assert ledger.notices == ["test receiver: it answers 400"]
    assert str(ledger.delivery) == "test receiver: 1 delivered, 1 not delivered, 1 attempt failed"


def test_the_end_waits_for_its_deadline_only() -> None:
    """And tries again at once, however long the pause would have been."""
    receiver = Scripted(AWAY)
    ledger = Ledger(receiver)
    for number in range(3):
        ledger.delivery.put({"number": number})
    begin = time.monotonic()
    ledger.end(0.7)
    assert 0.6 < time.monotonic() - begin < 3
    assert len(receiver.times) >= 2
    assert [(reason, alarm["number"]) for _, reason, alarm in ledger.lost] == [
        ("connection refused", number) for number in range(3)
    ]
    assert len(ledger.notices) == 1


def test_the_end_of_a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 60.0)
    receiver = Scripted(AWAY, None)
    ledger = Ledger(receiver)
    ledger.delivery.put({"number": 1})
    while not receiver.times:
        time.sleep(0.01)
    ledger.end()
    assert receiver.taken == [{"number": 1}]


def test_a_full_queue_is_said_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    busy = threading.Event()

    class Busy(Scripted):
        def send(self, message: bytes) -> None:
            busy.wait(20)
            super().send(message)

    receiver = Busy()
    ledger = Ledger(receiver)
    begin = time.monotonic()
    for number in range(5):
        ledger.delivery.put({"number": number})
    assert time.monotonic() - begin < 1
    busy.set()
    ledger.end()
    assert [alarm["number"] for alarm in receiver.taken] == [0, 1, 2]
    assert [alarm["number"] for _, _, alarm in ledger.lost] == [3, 4]
    assert ledger.notices == ["test receiver: 3 alarms wait already"]


def test_what_is_wrong_from_the_start_is_said_at_the_start() -> None:
    ledger = Ledger(Scripted(opening=NotDeliveredError("it refuses the connection", refused=True)))
    while not ledger.notices:
        time.sleep(0.01)
    ledger.end()
    assert ledger.notices == ["test receiver: it refuses the connection"]
    assert ledger.lost == []


def test_an_error_of_a_library_ends_nothing() -> None:
    receiver = Scripted(ZeroDivisionError("in a\nlibrary"), None)
    ledger = Ledger(receiver)
    ledger.delivery.put({"number": 1})
    ledger.delivery.put({"number": 2})
    ledger.end()
    assert receiver.taken == [{"number": 2}]
    assert ledger.notices == ["test receiver: in a"]


def test_an_alarm_that_comes_after_the_end_is_not_lost() -> None:
    ledger = Ledger(Scripted())
    ledger.end()
    ledger.delivery.put({"number": 1})
    assert [alarm for _, _, alarm in ledger.lost] == [{"number": 1}]
