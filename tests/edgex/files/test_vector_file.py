"""Vector artefacts: differences, round trips and damaged metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import edgex
from edgex.errors import ArtefactError, UsageError
from edgex.files import tensor_file
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import difference, load_vector, load_vector_card, save_vector
from vectors import CARD


def test_difference_is_exact_and_names_what_stayed() -> None:
    twin = {"a": torch.randn(4), "b": torch.randn(3), "c": torch.tensor([0.0, 1.0])}
    trained = {"a": twin["a"] + 0.5, "b": twin["b"].clone(), "c": torch.tensor([-0.0, 1.0])}
    deltas, unchanged = difference(trained, twin)
    assert list(deltas) == ["a"]
    assert torch.equal(deltas["a"], trained["a"] - twin["a"])
    assert unchanged == ("b", "c")


def test_difference_of_half_precision_weights_is_in_float32() -> None:
    twin, trained = torch.tensor([1.0]).half(), torch.tensor([1.0009765625]).half()
    deltas, _ = difference({"a": trained}, {"a": twin})
    assert deltas["a"].dtype == torch.float32
    assert deltas["a"].item() == 2**-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    deltas = {"norm.weight": torch.tensor([1e-3, -2e-3]), "norm.bias": torch.tensor([0.5, -0.0])}
    digest = save_vector(tmp_path / "v.safetensors", deltas, CARD, dtype=dtype)
    assert load_vector_card(tmp_path / "v.safetensors") == (CARD, digest)
    read = load_vector(tmp_path / "v.safetensors")
    assert (read.card, read.sha256, read.path) == (CARD, digest, tmp_path / "v.safetensors")
    assert list(read) == [read.deltas, CARD]
    assert {name: delta.dtype for name, delta in read.deltas.items()} == dict.fromkeys(deltas, torch.float32)
    assert all(torch.equal(read.deltas[name], delta.to(dtype).float()) for name, delta in deltas.items())
    with TensorFile(tmp_path / "v.safetensors") as file:
        file.verify()
        for name, delta in deltas.items():
            assert torch.equal(file.read(name), delta.to(dtype))


def test_a_path_may_be_a_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digest = save_vector("v.safetensors", {"w": torch.ones(2)}, CARD, dtype=torch.float32)
    assert edgex.load_vector("v.safetensors").sha256 == digest
    assert load_vector_card("v.safetensors") == (CARD, digest)


def test_a_vector_is_read_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.safetensors"
    save_vector(path, {"a": torch.ones(2, 3), "b": torch.ones(2)}, CARD, dtype=torch.int8)
    read: list[str] = []
    original = TensorFile.read_bytes
    monkeypatch.setattr(TensorFile, "read_bytes", lambda file, name: read.append(name) or original(file, name))
    load_vector(path)
    assert read == ["a", "a:scale", "b"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="was changed or damaged"):
        load_vector(path)


def test_nan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="tensor 'w' holds NaN"):
        save_vector(tmp_path / "v", {"w": torch.tensor([math.nan])}, CARD, dtype=torch.float16)
    with pytest.raises(UsageError, match="tensor 'w' holds values that float16 cannot: store it in float32"):
        save_vector(tmp_path / "v", {"w": torch.tensor([1e6])}, CARD, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "model"}, "expected an edgex vector, found an edgex model at"),
        ({"alpha": None}, "alpha: expected a number, found null; make the file again"),
        ({"base": {"name": "x"}}, "base: expected its keys, found none of fingerprint; make the file again"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    metadata = {**json.loads(json.dumps(CARD.to_metadata())), **change}
    tensor_file.write_tensors(tmp_path / "v.safetensors", metadata, {"w": torch.zeros(1)})
    with pytest.raises(ArtefactError, match=message):
        load_vector_card(tmp_path / "v.safetensors")


def test_eight_bits_lose_at_most_half_a_step_of_each_row(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    deltas = {
        "proj.weight": torch.randn(6, 3, 4, 4, generator=generator) * torch.logspace(-6, 2, 6)[:, None, None, None],
        "mlp.weight": torch.cat([torch.zeros(1, 50), torch.randn(3, 50, generator=generator)]),
        "norm.bias": torch.randn(50, generator=generator),
        "scale": torch.tensor(0.3),
    }
    path = tmp_path / "v.safetensors"
    save_vector(path, deltas, CARD, dtype=torch.int8)
    with TensorFile(path) as file:
        assert [file.tensors[name].dtype for name in deltas] == [torch.int8, torch.int8, torch.float32, torch.float32]
        assert file.tensors["proj.weight:scale"].shape == (6,)
    found, card = load_vector(path)
    assert card == CARD
    assert list(found) == list(deltas)
    for name in ("norm.bias", "scale"):
        assert torch.equal(found[name], deltas[name])
    for name in ("proj.weight", "mlp.weight"):
        rows, again = deltas[name].flatten(1), found[name].flatten(1)
        largest = rows.abs().amax(dim=1, keepdim=True)
        assert ((again - rows).abs() <= largest / 254 * (1 + 1e-5)).all()
        assert torch.equal(again.abs().argmax(1), rows.abs().argmax(1))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.ones(2, 2, dtype=torch.int8)}, "2 rows of int8 tensor 'w', found none"),
        ({"w": torch.ones(2, 2, dtype=torch.int8), "w:scale": torch.ones(3)}, r"int8 tensor 'w', found shape \[3\]"),
        ({"w": torch.ones(2, 2), "w:scale": torch.ones(2)}, "tensor 'w:scale' scales no int8 tensor"),
        ({"w": torch.ones(1, 1, dtype=torch.int8), "w:scale": torch.tensor([math.inf])}, "'w' holds NaN or infinite"),
    ],
)
def test_eight_bits_without_their_scales_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    tensor_file.write_tensors(tmp_path / "v.safetensors", CARD.to_metadata(), tensors)
    with pytest.raises(ArtefactError, match=message):
        load_vector(tmp_path / "v.safetensors")
