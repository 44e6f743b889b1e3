"""Transfer records: what counts as a failure, their place in a vector file, the warnings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import ArtefactError
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import load_vector_card, save_vector
from edgex.vectors.transfer import TransferRecord, records_of, warnings_for, write_records
from vectors import CARD

GOOD = TransferRecord("flowers", 0.03, 0.006, 50, -0.4, 1.0)
WORSE = TransferRecord("dtd", -0.01, 0.004, 50, 0.0, 1.0, similarity=0.2)
COSTLY = TransferRecord("Cars", 0.02, 0.004, 50, -1.2, 2.0)


def test_a_failure_is_a_loss_beyond_doubt_or_more_than_a_point_of_accuracy() -> None:
    assert GOOD.failure is None
    assert dataclasses.replace(WORSE, standard_error=0.006).failure is None
    assert dataclasses.replace(WORSE, n=4).failure is None, "four pictures leave more doubt than fifty"
    assert dataclasses.replace(WORSE, n=1).failure is None
    # Student's t with 49 degrees of freedom: 2.0096.
    assert WORSE.interval == (pytest.approx(-0.01804, abs=2e-5), pytest.approx(-0.00196, abs=2e-5))
    assert "heatmaps got worse (gain -0.0100 ± 0.0040, n = 50)" in str(WORSE.failure)
    assert COSTLY.failure == "accuracy changed by -1.20 points"
    assert dataclasses.replace(COSTLY, accuracy_change=-1.0).failure is None


def test_round_trip_through_a_dictionary() -> None:
    assert [TransferRecord.from_dict(record.to_dict()) for record in (GOOD, WORSE)] == [GOOD, WORSE]
    assert "similarity" not in GOOD.to_dict()
    assert records_of({"best_step": 3}) == ()
    for broken, message in (
        ({"target": "x"}, "transfer record: expected its keys, found none of gain, .*; measure the transfer again"),
        ({**GOOD.to_dict(), "gain": math.nan}, "gain: expected a finite number, found nan"),
        ({**GOOD.to_dict(), "n": "many"}, "n: expected a whole number of at least 1, found 'many'"),
    ):
        with pytest.raises(ArtefactError, match=message):
            TransferRecord.from_dict(broken)
    with pytest.raises(ArtefactError, match="transfer records: expected a list, found an object"):
        records_of({"transfer": {}})


def test_warnings_are_for_failed_targets_of_the_same_name(random_model: Callable[..., Any]) -> None:
    _, card = random_model("timm/test_vit")
    records = (GOOD, WORSE, COSTLY)
    for name, data, expected in (
        ("flowers", "flowers", []),
        ("DTD", "elsewhere", ["dtd"]),
        ("mine", "cars", ["Cars"]),
        ("dtd", "cars", ["dtd", "Cars"]),
        ("scenes", "scenes", []),
    ):
        step = {"step": "train", "data": {"name": data}}
        target = dataclasses.replace(card, name=name, provenance=({"step": "import"}, step))
        found = warnings_for(records, target)
        assert len(found) == len(expected)
        assert all(f"fail on '{name}'" in text for name, text in zip(expected, found, strict=True))


def test_records_change_the_header_and_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    save_vector(path, {"w": torch.randn(4, 4), "b": torch.tensor([-0.0, 1.0])}, CARD, dtype=torch.int8)

    def contents() -> dict[str, bytes]:
        with TensorFile(path) as file:
            file.verify()
            return {name: bytes(file.read_bytes(name)) for name in file.tensors}

    before = contents()
    digest = write_records(path, [GOOD])
    assert write_records(path, [GOOD, WORSE]) != digest
    assert contents() == before
    read, _ = load_vector_card(path)
    assert records_of(read.metrics) == (GOOD, WORSE)
    assert dataclasses.replace(read, metrics=CARD.metrics) == CARD
    assert read.metrics["pair_error"] == 0.866


def test_a_damaged_vector_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"not a vector")
    with pytest.raises(ArtefactError, match="not a whole safetensors file"):
        write_records(path, [GOOD])
    assert path.read_bytes() == b"not a vector"
