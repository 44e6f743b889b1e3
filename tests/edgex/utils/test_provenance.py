"""Provenance steps: what every step records, in which order."""

from __future__ import annotations

import datetime
import json

import edgex
from edgex.utils import provenance


def test_a_step_has_its_name_first_and_version_and_date_last() -> None:
    before = datetime.datetime.now(datetime.UTC).date()
    taken = provenance.step("bake", alpha=0.5, inputs=[{"role": "target"}])
    after = datetime.datetime.now(datetime.UTC).date()
    assert list(taken) == ["step", "alpha", "inputs", "edgex", "date"]
    date = taken.pop("date")
    assert taken == {"step": "bake", "alpha": 0.5, "inputs": [{"role": "target"}], "edgex": edgex.__version__}
    assert before <= datetime.date.fromisoformat(date) <= after
    assert json.loads(json.dumps(taken)) == taken


def test_a_step_without_a_date_is_the_same_on_any_day() -> None:
    assert provenance.step("resize", dated=False, size=[32, 32]) == {
        "step": "resize",
        "size": [32, 32],
        "edgex": edgex.__version__,
    }


def test_names_of_files_in_a_step_are_printable() -> None:
    taken = provenance.step("x", inputs=[{"name": "caf\udce9\x1b[2J", "sizes": (1, 2)}], data={"name": "a\u202e"})
    assert taken["inputs"] == [{"name": r"caf\udce9\x1b[2J", "sizes": (1, 2)}]
    assert taken["data"] == {"name": r"a\u202e"}
