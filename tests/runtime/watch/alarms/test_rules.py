from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgex.runtime import ImageError, Result, Session, UsageError
from edgex.runtime.classes import ClassIndex
from edgex.runtime.regions import Box
from edgex.runtime.view import View
from edgex.runtime.watch.alarms.rules import DecisionRule, ProbabilityRule, Regions, read_rule
from small_model import CLASSES
from streams import coloured


@pytest.mark.parametrize(
    "text, index, sign, level",
    [
        ("red thing>0.8", 0, ">", 0.8),
        ("  GREEN thing >=  0.5 ", 1, ">=", 0.5),
        ("'nothing'<.25", 3, "<", 0.25),
        ('"blue thing" <= 1e-1', 2, "<=", 0.1),
        ("2>0", 2, ">", 0.0),
    ],
)
def test_texts_that_are_rules(session: Session, text: str, index: int, sign: str, level: float) -> None:
    assert read_rule(text, session) == ProbabilityRule(text, index, sign, level)


@pytest.mark.parametrize("name", ["a>0.5", "<b>", "c>=d", '"quoted"', "decision"])
def test_names_with_signs_in_them(make_model: Callable[..., Path], name: str) -> None:
    session = Session(make_model(classes=[*CLASSES[:3], name]), "cpu", threads=1)
    assert read_rule(f"{name}>=0.5", session) == ProbabilityRule(f"{name}>=0.5", 3, ">=", 0.5)
    assert read_rule(f'"{name}">0.5', session) == ProbabilityRule(f'"{name}">0.5', 3, ">", 0.5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "a class, a comparison and a probability"),
        ("red thing", "a class, a comparison and a probability"),
        (">0.5", "a class, a comparison and a probability"),
        ("red thing=0.5", "a class, a comparison and a probability"),
        ("red thing>80", "from 0 to 1 after >, found '80'"),
        ("red thing>80%", "from 0 to 1 after >, found '80%'"),
        ("red thing>nan", "from 0 to 1"),
        ("red thing>-0.1", "from 0 to 1"),
        ("red thing>1", "a probability can fulfil, found >1"),
        ("red thing<0", "a probability can fulfil, found <0"),
        ("redthing>0.5", "did you mean 'red thing'"),
        ("decision", "calibrated with alarm classes"),
    ],
)
def test_texts_that_are_none(session: Session, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as found:
        read_rule(text, session)
    assert found.value.argument == "alarm"


@given(st.text(max_size=30) | st.from_regex(r"(red thing|2|\"a\")? ?[<>]=? ?[0-9.e-]{0,6}", fullmatch=True))
def test_any_text_is_a_rule_or_one_error(text: str) -> None:
    session: Any = SimpleNamespace(
        class_number=ClassIndex(CLASSES).number, metadata=SimpleNamespace(calibration=None), path="model.onnx"
    )
    try:
        rule = read_rule(text, session)
    except UsageError as error:
        assert error.argument == "alarm"
        assert str(error).startswith("expected ")
    else:
        assert isinstance(rule, ProbabilityRule)
        assert 0 <= rule.index < len(CLASSES)
        assert 0 <= rule.level <= 1


def result_of(probabilities: Any) -> Result:
    """With these probabilities of the small model's classes, and heat in the grid's first column."""
    view = View((64, 96), (32, 48), (0, 0), (32, 48))
    logits = np.log(np.maximum(np.array(probabilities, np.float32), 1e-30))
    return Result(logits, np.array([[1, 0, 0], [1, 0, 0]], np.float32), 0.0, classes=tuple(CLASSES), view=view)


@pytest.mark.parametrize(
    "sign, fulfilled", [(">", [False, False, True]), (">=", [False, True, True]), ("<", [True, False, False])]
)
def test_comparisons(sign: str, fulfilled: list[bool]) -> None:
    rule = ProbabilityRule("", 0, sign, 0.5)
    found = [rule.holds(result_of([share, 1 - share, 0, 0])) for share in (0.25, 0.5, 0.75)]
    assert found == fulfilled


def test_whose_heat_shows_where() -> None:
    """That of the rule's class, or where that is to be rare, that of what is there instead."""
    result = result_of([0.1, 0.6, 0.2, 0.1])
    assert ProbabilityRule("", 2, ">", 0.1).heat_class(result) == 2
    assert ProbabilityRule("", 2, "<", 0.3).heat_class(result) == 1
    assert ProbabilityRule("", 2, "<", 0.3).subject(result) == 2


def test_the_decision_of_a_calibrated_file(make_model: Callable[..., Path]) -> None:
    calibration = {
        "data": "validation",
        "pictures": 9,
        "thresholds": [0.5, 0.5, 0.9, 0.5],
        "alarm_classes": ["green thing", "blue thing"],
    }
    session = Session(make_model(calibration=calibration), "cpu", threads=1)
    rule = read_rule(" decision ", session)
    assert isinstance(rule, DecisionRule)
    found = [session(coloured(number)) for number in range(3)]
    assert [rule.holds(result) for result in found] == [False, True, True]
    assert [rule.subject(result) for result in found[1:]] == [1, 2]
    # By how much a threshold is exceeded, not by the probability.
    assert rule.subject(result_of([0, 0.45, 0.55, 0])) == 1


def test_where_the_heat_lies() -> None:
    """The small model's left column of patches is 0..32 of 96 pixels wide; its box reaches half a patch further."""
    result = result_of([1, 0, 0, 0])
    (box,) = result.boxes()
    assert (box.top, box.left, box.bottom) == (0, 0, 64)
    assert 30 <= box.right <= 50
    inside = {
        "most of the box": (0, 0, 96, 64),
        "less than half of the box": (0, 0, 10, 60),
        "a small region that the box covers": (4, 4, 12, 12),
        "elsewhere": (60, 0, 96, 64),
    }
    found = {name: Regions(value).hold(result) for name, value in inside.items()}
    # A region of 10 x 60 lies in the box, which covers it.
    assert found == {
        "most of the box": True,
        "less than half of the box": True,
        "a small region that the box covers": True,
        "elsewhere": False,
    }
    assert Regions([(60, 0, 96, 64), (0, 0, 0.5, 1)]).hold(result)
    assert not Regions([[(0.6, 0), (1, 0), (1, 1)]]).hold(result)


@pytest.mark.parametrize("right, fulfilled", [(59, False), (60, True), (61, True)])
def test_half_of_the_smaller_one(right: int, fulfilled: bool) -> None:
    """Counted in pixels: a box of 20 x 10 from x = 50 on, in a larger region that ends at `right`."""

    class Boxed(Result):
        def boxes(self, *_: Any, **__: Any) -> list[Box]:
            return [Box(10, 50, 20, 70, 1.0, 1.0)]

    view = View((64, 96), (32, 48), (0, 0), (32, 48))
    result = Boxed(np.zeros(4), np.zeros((2, 3)), 0.0, classes=tuple(CLASSES), view=view)
    assert Regions((0, 0, right, 64)).hold(result) is fulfilled


def test_no_heat_lies_nowhere() -> None:
    result = result_of([1, 0, 0, 0])
    result.heatmap = np.full((2, 3), -1, np.float32)
    assert not Regions((0, 0, 1, 1)).hold(result)


def test_regions_that_are_none() -> None:
    with pytest.raises(UsageError) as found:
        Regions((0, 0, 0, 1))
    assert found.value.argument == "inside"
    with pytest.raises(ImageError, match="inside the frame of 96x64 pixels"):
        Regions((0, 0, 200, 20)).hold(result_of([1, 0, 0, 0]))
