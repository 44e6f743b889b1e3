"""Vector artefacts: differences, round trips and damaged metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex import artefact
from edgex.artefact import TensorFile
from edgex.backbones import Architecture
from edgex.checkpoint import Base
from edgex.errors import ArtefactError
from edgex.model import Evidence
from edgex.vector import VectorCard, difference, load_vector_card, save_vector

CARD = VectorCard(
    name="imagenet",
    architecture=Architecture("timm/test_vit", (160, 160), "token"),
    base=Base("deit", "ab" * 32),
    source="imagenet",
    supervision="shapley",
    evidence=Evidence("class-attention", 4, 0.45),
    alpha=1.5,
    unchanged=("cls_token", "pos_embed"),
    provenance=({"step": "vector", "seed": 0},),
    metrics={"pair_error": 0.866},
)


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
    with TensorFile(tmp_path / "v.safetensors") as file:
        file.verify()
        for name, delta in deltas.items():
            assert torch.equal(file.read(name), delta.to(dtype))


def test_nan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="tensor 'w' holds NaN"):
        save_vector(tmp_path / "v", {"w": torch.tensor([math.nan])}, CARD, dtype=torch.float16)
    with pytest.raises(ArtefactError, match=r"stored as torch.float16: tensor 'w' holds NaN or infinite"):
        save_vector(tmp_path / "v", {"w": torch.tensor([1e6])}, CARD, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "model"}, "expected an edgex vector, found an edgex model at"),
        ({"alpha": None}, "its vector metadata is incomplete"),
        ({"base": {"name": "x"}}, "its vector metadata is incomplete"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    metadata = {**json.loads(json.dumps(CARD.to_metadata())), **change}
    artefact.write_tensors(tmp_path / "v.safetensors", metadata, {"w": torch.zeros(1)})
    with pytest.raises(ArtefactError, match=message):
        load_vector_card(tmp_path / "v.safetensors")
