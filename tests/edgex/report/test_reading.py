from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from edgex.errors import DataError
from edgex.report import reading
from edgex.report.reading import SHOWN, Evenly, read_run


def line(frame: int, **more: Any) -> dict[str, Any]:
    return {"frame": frame, "source": "door", "name": f"{frame}.png", "label": "a", "score": 0.9, **more}


def write(path: Path, *lines: dict[str, Any] | str, end: str = "\n") -> Path:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + end)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def test_counts(run: Path) -> None:
    lines = [line(n, label="ab"[n % 2], latency_ms=float(n), decision="review" if n < 3 else "ok") for n in range(10)]
    lines[4] |= {"alarms": ["a>0.5", "b>0.1"], "decision": "alarm"}
    lines[5] |= {"alarms": None}
    found = read_run(write(run, *lines))
    assert found.frames == 10 and found.remarks == []
    assert found.classes == {"a": 5, "b": 5} and found.sources == {"door": 10}
    assert found.decisions == {"review": 3, "ok": 6, "alarm": 1}
    assert found.alarms == {"a>0.5": 1, "b>0.1": 1} and list(found.alarm_positions) == [4]
    assert list(found.times["latency_ms"]) == [float(n) for n in range(10)]
    assert json.loads(json.dumps(found.to_dict()))["frames"] == 10


def test_drift_in_spans(run: Path) -> None:
    def warned(n: int) -> dict[str, Any]:
        return {"drift": [{"quantity": "score", "message": f"lower {n}"}]} if 3 <= n < 6 or n >= 12 else {}

    found = read_run(write(run, *[line(n, **warned(n)) for n in range(20)]))
    assert [(span.first, span.last, span.message) for span in found.drift] == [(3, 5, "lower 5"), (12, 19, "lower 19")]


def test_drift_of_two_sources(run: Path) -> None:
    """Their lines come in turn; only one drifts."""
    lines = [line(n // 2, source="ab"[n % 2]) for n in range(20)]
    for one in lines[::2]:
        one["drift"] = [{"quantity": "score", "message": "lower"}]
    found = read_run(write(run, *lines))
    assert [(span.first, span.last) for span in found.drift] == [(0, 18)]
    assert found.remarks == []


def test_a_bounded_choice(run: Path) -> None:
    lines = [line(n, score=round(0.5 + (n * 7919 % 1000) / 2000, 4), decision="ok") for n in range(1000)]
    for n in range(100, 300):
        lines[n] |= {"decision": "alarm", "alarms": ["a>0.5"]}
    for n in range(500, 600):
        lines[n]["decision"] = "review"
    found = read_run(write(run, *lines))
    assert len(found.chosen) <= sum(SHOWN.values())
    why = [reason for reason, _ in found.chosen]
    assert why.count("alarm") == SHOWN["alarm"] and why.count("review") == SHOWN["review"]
    positions = [frame.position for _, frame in found.chosen]
    assert positions == sorted(set(positions))
    alarms = [frame.position for reason, frame in found.chosen if reason == "alarm"]
    assert alarms[0] == 100 and alarms[-1] > 270
    lowest = sorted(range(1000), key=lambda n: lines[n]["score"])[: SHOWN["low"]]
    assert set(lowest) <= set(positions)
    assert (found.candidates["alarm"], found.candidates["review"], found.candidates["even"]) == (200, 100, 1000)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 12, 13, 100, 12_345])
def test_evenly(count: int) -> None:
    even = Evenly(6)
    for value in range(count):
        even.add(value)
    kept = even.values
    assert len(kept) == min(count, 6) and kept == sorted(set(kept))
    if count > 12:
        gaps = [b - a for a, b in itertools.pairwise(kept)]
        assert kept[0] == 0 and kept[-1] >= 0.7 * count and max(gaps) <= 2.1 * min(gaps)


def test_a_last_line_that_is_cut_off(run: Path) -> None:
    found = read_run(write(run, line(0), line(1), '{"frame": 2, "sco', end=""))
    assert found.frames == 2
    assert found.remarks == ["The last line (3) is cut off, as by a run that was killed or still goes on."]
    # A whole line counts, also without its end.
    assert read_run(write(run, line(0), line(1), end="")).remarks == []


def test_lines_that_are_no_results(run: Path) -> None:
    bad = ["[1]", "{}", '{"frame": 1, "label": "a", "score": 7}', "nan", '{"frame": -1, "label": "a", "score": 0.5}']
    found = read_run(write(run, line(0), *bad, "", line(1)))
    assert found.frames == 2
    (remark,) = found.remarks
    assert remark.startswith("Lines that are no results and are left out: 5; line 2: expected an object")


def test_several_runs_in_one_file(run: Path) -> None:
    found = read_run(write(run, line(0), line(1), line(0), line(1), line(0)))
    assert found.frames == 5
    assert found.remarks == [
        "The frame numbers begin again in line 3: these are lines of several runs, counted together."
    ]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "found an empty file"),
        (b"\n\n", "found an empty file"),
        (b"hello\n", "found line 1: expected JSON"),
        (b"\x89PNG\r\n\x1a\n\0\0", "found line 1: expected text in UTF-8"),
        (b"[" * 5000, "deeper nesting"),
    ],
)
def test_files_that_are_no_run(run: Path, content: bytes, words: str) -> None:
    run.write_bytes(content)
    with pytest.raises(DataError, match="expected lines of JSON as `edgex watch --jsonl FILE` writes them") as error:
        read_run(run)
    assert words in str(error.value) and error.value.argument == "run"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="expected a file that can be read"):
            read_run(path)


def test_a_line_without_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never held as a whole."""
    monkeypatch.setattr(reading, "LONGEST_LINE", 1000)
    found = read_run(write(run, line(0), line(1, name="x" * 5000), line(2)))
    assert found.frames == 2 and "no results" in found.remarks[0]


def test_names_are_bounded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_NAMES", 3)
    found = read_run(write(run, *[line(n, label=str(n), source=str(n)) for n in range(10)]))
    assert found.classes == {"0": 1, "1": 1, "2": 1, "(others)": 7}
