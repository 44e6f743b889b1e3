"""Progress where there is no terminal: lines for whoever asked for them, silence for everybody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgex.utils import progress
from edgex.utils.progress import Progress
from edgex.utils.text import duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time in seconds, which the test moves on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now
    progress.show()


def test_a_line_a_minute_with_the_time_that_is_left(clock: list[float]) -> None:
    lines: list[str] = []
    progress.show(line=lines.append)
    with Progress("labelling", total=1000, done=100, unit="crops") as work:
        for _ in range(18):
            clock[0] += 10
            work.advance("loss 0.5", steps=10)
    assert lines == [
        "labelling: 160 of 1000 crops, 16%, 14 min left; loss 0.5",
        "labelling: 220 of 1000 crops, 22%, 13 min left; loss 0.5",
        "labelling: 280 of 1000 crops, 28%, 12 min left; loss 0.5",
    ]


def test_without_a_unit_the_share_counts(clock: list[float]) -> None:
    lines: list[str] = []
    progress.show(line=lines.append)
    with Progress("learning", total=8) as work:
        clock[0] += 90
        work.advance()
    assert lines == ["learning: 12%, 10 min 30 s left"]


def test_work_that_makes_no_step_has_no_time_left(clock: list[float]) -> None:
    lines: list[str] = []
    progress.show(line=lines.append)
    with Progress("learning", total=8) as work:
        clock[0] += 61
        work.advance(steps=0)
    assert lines == ["learning: 0%"]


def test_other_processes_and_short_work_say_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    progress.show(line=lines.append)
    for shown, seconds in ((False, 600), (True, 59)):
        with Progress("learning", total=8, shown=shown) as work:
            clock[0] += seconds
            work.advance()
    assert not lines
    progress.show()
    with Progress("learning", total=8) as work:
        clock[0] += 600
        work.advance()
    assert not lines and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (65, "1 min 5 s"),
        (3600, "1 h"),
        (11_460, "3 h 11 min"),
        (-3, "0 s"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
