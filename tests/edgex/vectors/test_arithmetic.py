"""Vector arithmetic against entry-by-entry computations, and the files that `combine` makes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.errors import MismatchError, UsageError
from edgex.files.model_file import BaseWeights
from edgex.files.vector_file import VectorCard, load_vector, load_vector_card, save_vector
from edgex.models.backbones import architecture
from edgex.vectors import arithmetic
from edgex.vectors.arithmetic import CombineOptions, combine

pytestmark = pytest.mark.usefixtures("tiny_clips")

Save = Callable[..., Path]


@pytest.fixture
def save(random_model: Callable[..., Any], tmp_path: Path) -> Save:
    """Writes a vector over the last blocks of timm's smallest ViT."""
    model, card = random_model("timm/test_vit")
    tensors = model.backbone.tensors()

    def write(name: str, seed: int, blocks: tuple[int, ...] = (4, 5), **change: Any) -> Path:
        generator = torch.Generator().manual_seed(seed)
        changed = [key for key in tensors if key.startswith(("norm", *(f"blocks.{b}." for b in blocks)))]
        deltas = {key: 0.01 * torch.randn(tensors[key].shape, generator=generator) for key in changed}
        described = VectorCard(
            name=name,
            architecture=card.architecture,
            base=card.base,
            source=name,
            supervision="shapley",
            evidence=dataclasses.replace(card.evidence, scale=0.4 + 0.1 * seed),
            alpha=1.0 + seed,
            unchanged=tuple(key for key in tensors if key not in deltas),
            provenance=({"step": "vector", "seed": seed},),
            metrics={"best_step": 7},
        )
        path = tmp_path / f"{name}.safetensors"
        save_vector(path, deltas, dataclasses.replace(described, **change), dtype=torch.float32)
        return path

    return write


def numbers(*rows: list[float]) -> list[dict[str, torch.Tensor]]:
    return [{"w": torch.tensor(row)} for row in rows]


def test_ties_elects_a_sign_and_averages_what_agrees() -> None:
    generator = np.random.default_rng(3)
    vectors = [{"a": generator.normal(size=(7, 5)), "b": generator.normal(size=9)} for _ in range(3)]
    kept = [
        arithmetic.trim({n: torch.from_numpy(v).float() for n, v in vector.items()}, 0.4, scope="vector")
        for vector in vectors
    ]
    merged = arithmetic.merge_ties(kept)
    for name in ("a", "b"):
        for place in np.ndindex(vectors[0][name].shape):
            entries = []
            for vector in vectors:
                border = sorted(abs(x) for part in vector.values() for x in part.flat)[-round(0.4 * 44)]
                entries.append(float(vector[name][place]) if abs(vector[name][place]) >= border else 0.0)
            sign = np.sign(sum(entries))
            agreeing = [entry for entry in entries if entry != 0 and np.sign(entry) == sign]
            expected = sum(agreeing) / len(agreeing) if agreeing else 0.0
            assert float(merged[name][place]) == pytest.approx(expected, abs=1e-6)


def test_ties_by_hand() -> None:
    merged = arithmetic.merge_ties(numbers([1.0, -2.0, 0.0, 1.0], [3.0, 1.0, 0.0, -1.0], [-1.0, 0.0, 5.0, 0.0]))
    assert merged["w"].tolist() == [2.0, -2.0, 5.0, 0.0]


def test_trimming_keeps_the_largest_magnitudes() -> None:
    deltas = {"a": torch.tensor([1.0, -9.0, 2.0, 8.0]), "b": torch.tensor([[0.1, -0.3]])}
    each = arithmetic.trim(deltas, 0.5)
    assert each["a"].tolist() == [0.0, -9.0, 0.0, 8.0]
    assert each["b"][0].tolist() == pytest.approx([0.0, -0.3])
    whole = arithmetic.trim(deltas, 0.5, scope="vector")
    assert whole["a"].tolist() == [0.0, -9.0, 2.0, 8.0]
    assert whole["b"].tolist() == [[0.0, 0.0]]
    assert all(torch.equal(arithmetic.trim(deltas, 1.0)[name], deltas[name]) for name in deltas)
    assert (arithmetic.trim(deltas, 1e-9)["a"] != 0).sum() == 1


def test_sums_take_a_missing_tensor_as_zeros() -> None:
    total = arithmetic.weighted_sum([{"a": torch.ones(2)}, {"a": torch.ones(2), "b": torch.ones(1)}], [2.0, -0.5])
    assert total["a"].tolist() == [1.5, 1.5]
    assert total["b"].tolist() == [-0.5]


@pytest.mark.parametrize(
    ("name", "block", "inside"),
    [("timm/test_vit", 4, "blocks.4.mlp.fc1.weight"), ("open_clip/tiny-token", 1, "transformer.resblocks.1.ln_1.bias")],
)
def test_block_factors_reach_their_block_alone(name: str, block: int, inside: str) -> None:
    built = architecture(name)
    blocks = arithmetic.blocks_of(built)
    deltas = {key: torch.ones(1) for key in [*blocks, "norm.weight"]}
    scaled = arithmetic.scale_blocks(deltas, {block: 0.25}, built)
    assert scaled[inside].item() == 0.25
    assert {key for key, delta in scaled.items() if delta.item() != 1} == {k for k, b in blocks.items() if b == block}
    with pytest.raises(UsageError, match=r"expected blocks 0 to \d+ of .*, found block 99"):
        arithmetic.scale_blocks(deltas, {99: 1.0}, built)


def test_block_factors_are_read_from_text() -> None:
    assert arithmetic.parse_block_alpha("6=0.5, 7=-1") == {6: 0.5, 7: -1.0}
    assert arithmetic.parse_block_alpha("8..11=0.5..2") == {8: 0.5, 9: 1.0, 10: 1.5, 11: 2.0}
    assert arithmetic.parse_block_alpha("0..1=3") == {0: 3.0, 1: 3.0}
    for text, message in (
        ("6", "block factors like"),
        ("", "block factors like"),
        ("6=x", "found '6=x'"),
        ("7..6=1", "rising range of blocks, found 7..6"),
        ("5..6=1,6=2", "block 6 has two factors"),
        ("6=0..1", "one factor for block 6, found the ramp 0..1"),
    ):
        with pytest.raises(UsageError, match=message):
            arithmetic.parse_block_alpha(text)


def test_a_combination_is_a_vector_that_says_where_it_came_from(save: Save, tmp_path: Path) -> None:
    first, second = save("one", 1), save("two", 2, blocks=(3, 5))
    out = tmp_path / "out.safetensors"
    options = CombineOptions("average", block_alpha={5: 0.5})
    card = combine([first, second], out, name="both", weights=[3.0, 1.0], options=options)
    deltas, read = load_vector(out)
    assert read == card
    (one, one_card), (two, _) = load_vector(first), load_vector(second)
    for name, delta in deltas.items():
        expected = torch.zeros_like(delta)
        for part, weight in ((one, 0.75), (two, 0.25)):
            expected += weight * part.get(name, torch.zeros_like(delta))
        assert torch.allclose(delta, expected * (0.5 if name.startswith("blocks.5.") else 1.0), atol=1e-8)
    assert set(deltas) == set(one) | set(two)
    assert set(deltas) | set(card.unchanged) == set(one) | set(one_card.unchanged)
    assert card.evidence.scale == pytest.approx(0.75 * 0.5 + 0.25 * 0.6)
    assert card.alpha == pytest.approx(0.75 * 2 + 0.25 * 3)
    assert (card.source, card.supervision) == ("one+two", "shapley")
    inputs = card.provenance[-1]["inputs"]
    assert [entry["sha256"] for entry in inputs] == [load_vector_card(path)[1] for path in (first, second)]
    assert [entry["weight"] for entry in inputs] == [3.0, 1.0]
    assert inputs[0]["provenance"] == [{"step": "vector", "seed": 1}]
    assert "best_step" not in card.metrics


@pytest.mark.parametrize(("store", "bound"), [("fp32", 0.0), ("fp16", 5e-4), ("int8", 0.02)])
def test_storing_otherwise_keeps_what_was_measured_and_says_what_it_lost(
    save: Save, tmp_path: Path, store: str, bound: float
) -> None:
    path, out = save("one", 1), tmp_path / "out.safetensors"
    card = combine([path], out, name="one", dtype=store)
    before, after = load_vector(path).deltas, load_vector(out).deltas
    distance = math.sqrt(sum(float((after[n].double() - before[n].double()).square().sum()) for n in before))
    length = math.sqrt(sum(float(before[n].double().square().sum()) for n in before))
    assert card.metrics["storage"] == {"as": store, "relative_error": pytest.approx(distance / length)}
    assert distance / length <= bound
    assert card.metrics["best_step"] == 7
    assert (card.alpha, card.evidence) == (load_vector_card(path)[0].alpha, load_vector_card(path)[0].evidence)


def test_a_tensor_that_cancels_is_unchanged(save: Save, tmp_path: Path) -> None:
    path = save("one", 1)
    card = combine([path, path], tmp_path / "out.safetensors", name="none", weights=[1.0, -1.0])
    assert load_vector(tmp_path / "out.safetensors").deltas == {}
    assert set(card.unchanged) == set(load_vector(path).deltas) | set(load_vector_card(path)[0].unchanged)


def test_vectors_that_do_not_belong_together_are_refused(save: Save, tmp_path: Path) -> None:
    card = load_vector_card(save("one", 1))[0]
    first, out = tmp_path / "one.safetensors", tmp_path / "out.safetensors"
    for change, message in (
        ({"base": BaseWeights("beit", "cd" * 32)}, r"learned from beit \[cdcdcdcdcdcd\].*combine vectors of one base"),
        ({"architecture": dataclasses.replace(card.architecture, name="timm/another")}, "learned on timm/another"),
        ({"evidence": dataclasses.replace(card.evidence, blocks=2)}, "heatmap of the same blocks"),
    ):
        other = save("other", 2, **change)
        with pytest.raises(MismatchError, match=message):
            combine([first, other], out, name="both")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paths": []}, "at least one vector"),
        ({"weights": [1.0, 2.0]}, "one weight for each of 1 vectors, found 2"),
        ({"weights": [0.0]}, "not all 0"),
        ({"weights": [math.nan]}, "finite weights"),
        ({"alpha": math.inf}, "finite alpha"),
        ({"dtype": "int4"}, "expected fp32, fp16, int8, found 'int4'"),
    ],
)
def test_bad_arguments_are_refused(save: Save, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        combine(**{"paths": [save("one", 1)], "out": tmp_path / "out", "name": "x", **arguments})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "median"}, "sum, average, ties"),
        ({"scope": "row"}, "tensor or vector"),
        ({"keep": 0.0}, "share to keep"),
        ({"keep": 1.1}, "share to keep"),
        ({"block_alpha": {1: math.nan}}, "finite block factors"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CombineOptions(**options)
