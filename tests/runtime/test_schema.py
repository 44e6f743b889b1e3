from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from wrong_values import with_wrong_values

from edgex.errors import DataError, UsageError
from edgex.runtime import ArtefactError, Preprocessing, Session, schema
from edgex.runtime.metadata import Metadata
from small_model import describe, write

POINT: schema.Check[dict[str, Any]] = schema.record(dict, x=schema.number, name=schema.Default(schema.text, "none"))


@pytest.mark.parametrize(
    ("check", "value", "found"),
    [
        (schema.text, "ü", "ü"),
        (schema.any_text, "\udcff.jpg", "\udcff.jpg"),
        (schema.digest, "0a" * 32, "0a" * 32),
        (schema.number, 3, 3.0),
        (schema.positive, 0.5, 0.5),
        (schema.whole(1, 3), 3, 3),
        (schema.flag, False, False),
        (schema.mapping, {"a": [1]}, {"a": [1]}),
        (schema.one_of("a", "b"), "b", "b"),
        (schema.optional(schema.number), None, None),
        (schema.listed(schema.whole()), [1, 2], (1, 2)),
        (schema.row(schema.text, schema.whole()), ["a", 1], ("a", 1)),
        (schema.keyed(schema.listed(schema.number)), {"a b": [1]}, {"a b": (1.0,)}),
        (POINT, {"x": 1, "other": None}, {"x": 1.0, "name": "none"}),
        (schema.object_with(x=schema.number), {"x": 1, "other": None}, {"x": 1, "other": None}),
    ],
)
def test_values_that_fit(check: schema.Check[Any], value: Any, found: Any) -> None:
    assert schema.checked(check, value, "a.json") == found


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (schema.text, 7, "a.json: expected text, found 7"),
        (schema.text, "\ud800", r"found half of a surrogate pair in '\\ud800'"),
        (schema.any_text, None, "expected text, found null"),
        (schema.digest, "0A" * 32, "expected 64 hexadecimal digits, found '0A0A"),
        (schema.number, True, "expected a number, found true"),
        (schema.number, "1", "expected a number, found '1'"),
        (schema.number, 10**400, "expected a finite number, found 10000"),
        (schema.number, math.nan, "expected a finite number, found nan"),
        (schema.positive, 0, "expected a number above 0, found 0"),
        (schema.whole(1), 0, "expected a whole number of at least 1, found 0"),
        (schema.whole(1, 3), 4, "expected a whole number from 1 to 3, found 4"),
        (schema.whole(), 10**400, "expected a whole number of at least 0, found 1000"),
        (schema.whole(), 1.0, "expected a whole number of at least 0, found 1.0"),
        (schema.flag, 1, "expected true or false, found 1"),
        (schema.one_of("a", "b"), ["a"], "expected 'a' or 'b', found a list of 1"),
        (schema.listed(schema.text), "ab", "expected a list, found 'ab'"),
        (schema.listed(schema.text, least=1), [], "expected a list of at least 1, found a list of 0"),
        (schema.listed(schema.text, least=2, most=2), ["a"], "expected a list of 2, found a list of 1"),
        (schema.listed(schema.text, most=2), ["a"] * 3, "expected a list of 0 to 2, found a list of 3"),
        (schema.listed(schema.text), ["a", {}], r"a.json: \[1\]: expected text, found an object of 0"),
        (schema.row(schema.text, schema.whole()), ["a", "b"], r"\[1\]: expected a whole number"),
        (schema.keyed(POINT), {"a": {"x": None}}, "a.json: a.x: expected a number, found null"),
        (schema.keyed(POINT), {"a b\x1b": {"x": None}}, r"a.json: \['a b\\x1b'\].x: expected a number"),
        (schema.listed(POINT), [{}], r"\[0\]: expected its keys, found none of x"),
        (schema.keyed(schema.listed(POINT)), {"a": [{"x": 1, "name": 2}]}, r"a\[0\].name: expected text, found 2"),
    ],
)
def test_values_that_do_not_fit(check: schema.Check[Any], value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        schema.checked(check, value, "a.json", advice="make it again", error=DataError)
    assert str(raised.value).startswith("a.json: ") and str(raised.value).endswith("; make it again")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 200


def test_what_a_constructor_refuses_does_not_fit() -> None:
    def point(x: float) -> float:
        raise UsageError(f"no place at {x}")

    with pytest.raises(ArtefactError, match="a.json: p: no place at 1.0"):
        schema.checked(schema.keyed(schema.record(point, x=schema.number)), {"p": {"x": 1}}, "a.json")


def test_every_wrong_value_of_a_fused_models_metadata_is_refused_or_means_itself() -> None:
    """Equal acceptance: what is taken is what the file says, and nothing else."""
    values = describe(
        tensorrt={"package": "tensorrt_rtx", "version": "1", "compute_capabilities": ["8.9"]},
        provenance=[{"step": "a", "inputs": [{"role": "r", "name": "n", "provenance": [{"step": "b"}]}]}],
    )
    refused = 0
    for what, changed in with_wrong_values(values):
        try:
            found = Metadata.from_dict(changed, "m.onnx")
        except ArtefactError as error:
            refused += 1
            assert str(error).startswith("m.onnx: ") and str(error).isprintable(), what
            continue
        assert found.preprocessing == Preprocessing.from_dict(changed["preprocessing"]), what
        for key in ("classes", "grid", "provenance"):
            assert list(getattr(found, key)) == changed[key], what
        for key in ("pooling", "evidence", "alpha", "architecture", "precision", "max_batch", "gate"):
            assert getattr(found, key) == changed[key], what
    assert refused > 400


def test_a_session_of_metadata_with_wrong_values_gives_one_line_or_runs(tmp_path: Path) -> None:
    for what, changed in with_wrong_values(describe()):
        try:
            path = write(tmp_path / "m.onnx", **{**dict.fromkeys(describe(), ...), **changed})
        except (AssertionError, UnicodeEncodeError):
            continue  # no digest to put in, or text that the format of ONNX cannot hold
        try:
            Session(path, "cpu", threads=1).close()
        except ArtefactError as error:
            assert str(error).startswith(f"{path}: ") and str(error).isprintable(), what
