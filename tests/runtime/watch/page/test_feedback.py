from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from edgex.runtime import ArtefactError
from edgex.runtime.watch.page import feedback as module
from edgex.runtime.watch.page.feedback import Feedback

ABOUT = {"frame": 3, "source": "door", "name": "frame 3", "label": "caf\u00e9\x9b", "score": 0.5, "heatmap": "no"}


def test_a_line_per_verdict_behind_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "verdicts.jsonl"
    Feedback(path).add(ABOUT, "ok")
    Feedback(str(path)).add({**ABOUT, "decision": "review", "alarms": ["a>0.5"]}, "not-ok")
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert list(first) == ["time", "source", "frame", "name", "label", "score", "verdict"]
    assert {key: first[key] for key in ("source", "frame", "name", "label", "score", "verdict")} == {
        "source": "door",
        "frame": 3,
        "name": "frame 3",
        "label": ABOUT["label"],
        "score": 0.5,
        "verdict": "ok",
    }
    assert (second["decision"], second["alarms"], second["verdict"]) == ("review", ["a>0.5"], "not-ok")
    assert "\x9b" not in path.read_text(encoding="utf-8")


def test_lines_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"

    def write(number: int) -> None:
        judged = Feedback(path)
        for _ in range(50):
            judged.add({**ABOUT, "frame": number}, "ok")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
    assert sorted(frames) == sorted([0, 1, 2, 3] * 50)


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 300)
    judged = Feedback(tmp_path / "verdicts.jsonl")
    judged.add(ABOUT, "ok")
    with pytest.raises(ArtefactError, match="expected at most 0 MB of verdicts, found a full file; move it away"):
        for _ in range(3):
            judged.add(ABOUT, "ok")
    assert (tmp_path / "verdicts.jsonl").stat().st_size <= 300


def test_places_that_cannot_be_written_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "verdicts.jsonl"):
        with pytest.raises(ArtefactError, match="cannot write"):
            Feedback(path)


def test_a_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    judged = Feedback("/dev/full")
    with pytest.raises(ArtefactError, match="cannot write /dev/full .No space left on device"):
        judged.add(ABOUT, "ok")
