"""Several streams that share a session: none holds another, and what ends one or all."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from edgex.runtime import Session, SourceError, Stream
from edgex.runtime.watch.together import run_together
from streams import Script


def streams_of(session: Session, *sources: Any, **options: Any) -> list[Stream]:
    return [Stream(session, source, **options) for source in sources]


def test_all_results_of_all_streams(session: Session) -> None:
    found: dict[int, list[str]] = {0: [], 1: [], 2: []}
    threads: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}

    def handle(number: int, frame: Any) -> None:
        found[number].append(frame.result.label)
        threads[number].add(threading.get_ident())

    run_together(streams_of(session, Script([0, 1]), Script([2]), Script([1, 1, 0])), handle)
    assert found == {
        0: ["red thing", "green thing"],
        1: ["blue thing"],
        2: ["green thing", "green thing", "red thing"],
    }
    assert threads[0] == {threading.get_ident()}
    assert len(set.union(*threads.values())) == 3


def test_a_slow_source_and_a_slow_sink_hold_no_other(session: Session) -> None:
    ended: dict[int, float] = {}
    begin = time.monotonic()

    def handle(number: int, frame: Any) -> None:
        if number == 1:
            time.sleep(0.5)
        ended[number] = time.monotonic() - begin

    run_together(streams_of(session, Script([0] * 3, interval=0.5), Script([0] * 3), Script([0] * 10)), handle)
    assert ended[2] < 0.5 < 1 < min(ended[0], ended[1])


def test_a_source_that_breaks_leaves_the_others(session: Session) -> None:
    seen: list[int] = []
    broken: list[tuple[int, str]] = []
    sources = (Script(["closed"]), Script([0] * 4, interval=0.05), Script([0, "broken"]))
    with pytest.raises(SourceError, match="^2 of 3 sources broke$"):
        run_together(
            streams_of(session, *sources),
            lambda number, _: seen.append(number),
            lambda number, error: broken.append((number, str(error))),
        )
    assert seen.count(1) == 4
    assert sorted(broken) == [
        (0, "script: expected a source that answers, found none"),
        (2, "script: unplugged"),
    ]


def test_one_stream_breaks_with_its_own_words(session: Session) -> None:
    with pytest.raises(SourceError, match="^script: unplugged$"):
        run_together(streams_of(session, Script([0, "broken"])), lambda *_: None)


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_sink_that_fails_ends_all(session: Session, culprit: int) -> None:
    def handle(number: int, _: Any) -> None:
        if number == culprit:
            raise OSError("full")

    before = threading.active_count()
    streams = streams_of(session, Script([0, 1]), Script([0, 1]), stay=True)
    begin = time.monotonic()
    with pytest.raises(OSError, match="full"):
        run_together(streams, handle)
    assert time.monotonic() - begin < 5
    assert [stream.state for stream in streams] == ["ended", "ended"]
    assert threading.active_count() == before
