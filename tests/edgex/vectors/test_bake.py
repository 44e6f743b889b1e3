"""Bake: exact sums, byte-for-byte copies, strict fits, and nothing written where it fails."""

from __future__ import annotations

import dataclasses
import math
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files import tensor_file
from edgex.files.model_file import BaseWeights, load_card, load_model, save_model
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import VectorCard, load_vector, save_vector
from edgex.models.self_explaining import Evidence
from edgex.vectors.bake import add_vector, check
from vectors import fitting

pytestmark = pytest.mark.usefixtures("tiny_clips")

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@dataclasses.dataclass
class Pair:
    """A target and a vector that fit together, in files."""

    target: Path
    vector: Path
    out: Path
    model: Any
    card: Any
    tau: VectorCard
    deltas: dict[str, torch.Tensor]

    def rewrite_vector(self, *, dtype: torch.dtype = torch.float32, **changes: Any) -> None:
        """Writes the vector again with another card or other deltas."""
        deltas = changes.pop("deltas", self.deltas)
        stored = {name: delta.to(dtype) for name, delta in deltas.items()}
        card = dataclasses.replace(self.tau, **changes)
        tensor_file.write_tensors(self.vector, card.to_metadata(), stored)

    def bake(self, alpha: float = 0.7, **options: Any) -> Any:
        card, sha256 = add_vector(self.target, self.vector, self.out, alpha=alpha, **options)
        assert load_card(self.out) == (card, sha256)
        return card

    def assert_refused(self, error: type[Exception], message: str, alpha: float = 0.7, **options: Any) -> None:
        """The bake is refused in one line, and the folder holds the two inputs alone."""
        with pytest.raises(error, match=message) as caught:
            self.bake(alpha, **options)
        assert "\n" not in str(caught.value)
        assert {path.name for path in self.out.parent.iterdir()} == {self.target.name, self.vector.name}


@pytest.fixture
def pair(random_model: Callable[..., Any], tmp_path: Path) -> Pair:
    return make_pair(random_model, tmp_path)


def make_pair(
    random_model: Callable[..., Any],
    folder: Path,
    *,
    name: str = "timm/test_vit",
    target_dtype: torch.dtype = torch.float32,
    vector_dtype: torch.dtype = torch.float32,
) -> Pair:
    model, card = random_model(name, alpha=None)
    generator = torch.Generator().manual_seed(5)
    tensors = model.backbone.tensors()
    # The last blocks change, everything else stays.
    changed = [key for key in tensors if "blocks.4" in key or "blocks.2" in key or key.startswith(("norm", "ln_post"))]
    deltas = {key: 0.01 * torch.randn(tensors[key].shape, generator=generator) for key in changed}
    evidence = dataclasses.replace(card.evidence, scale=0.4)
    provenance = ({"step": "vector", "seed": 5},)
    tau = fitting(model, card, deltas, evidence=evidence, alpha=1.0, provenance=provenance)
    target, vector = folder / "target.safetensors", folder / "vector.safetensors"
    save_model(target, model, card, dtype=target_dtype)
    save_vector(vector, deltas, tau, dtype=vector_dtype)
    return Pair(target, vector, folder / "out.safetensors", model, card, tau, deltas)


def stored(path: Path) -> dict[str, bytes]:
    with TensorFile(path) as file:
        file.verify()
        return {name: bytes(file.read_bytes(name)) for name in file.tensors}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.tensors}


@pytest.mark.parametrize("target_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vector_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [1.0, 0.7, -2.5])
def test_sums_are_exact_in_float32(
    random_model: Callable[..., Any],
    tmp_path: Path,
    target_dtype: torch.dtype,
    vector_dtype: torch.dtype,
    alpha: float,
) -> None:
    pair = make_pair(random_model, tmp_path, target_dtype=target_dtype, vector_dtype=vector_dtype)
    pair.bake(alpha)
    target, vector, baked = tensors_of(pair.target), tensors_of(pair.vector), tensors_of(pair.out)
    assert list(baked) == list(target)
    for name, tensor in target.items():
        assert baked[name].dtype == target_dtype
        delta = vector.get(name.removeprefix("backbone."))
        if delta is None or not name.startswith("backbone."):
            assert torch.equal(baked[name], tensor)
            continue
        # numpy's float32: product and sum rounded one after the other, then stored in the target's type.
        total = tensor.float().numpy() + np.float32(alpha) * delta.float().numpy()
        assert torch.equal(baked[name], torch.from_numpy(total).to(target_dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_alpha_zero_is_the_target_bit_for_bit(
    random_model: Callable[..., Any], tmp_path: Path, dtype: torch.dtype
) -> None:
    pair = make_pair(random_model, tmp_path, target_dtype=dtype)
    with torch.no_grad():
        pair.model.backbone.tensors()["norm.bias"][:3] = torch.tensor([-0.0, 0.0, -0.0])
    save_model(pair.target, pair.model, pair.card, dtype=dtype)
    card = pair.bake(0.0)
    before, after = stored(pair.target), stored(pair.out)
    assert before == after
    assert list(before) == list(after)
    assert after["backbone.norm.bias"][dtype.itemsize - 1] == 0x80, "the sign of zero is kept"
    assert card.alpha == 0.0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_baking_and_unbaking_returns_within_rounding(
    random_model: Callable[..., Any], tmp_path: Path, dtype: torch.dtype
) -> None:
    pair = make_pair(random_model, tmp_path, target_dtype=dtype, vector_dtype=torch.float16)
    pair.bake(0.8)
    card, _ = add_vector(pair.out, pair.vector, tmp_path / "back.safetensors", alpha=-0.8)
    assert card.alpha == 0.0
    assert [step["alpha"] for step in card.provenance[-2:]] == [0.8, -0.8]
    # Each of the two sums is rounded once, by half a unit in the last place of the larger value.
    spacing = torch.finfo(dtype).eps
    target, baked, back = (tensors_of(p) for p in (pair.target, pair.out, tmp_path / "back.safetensors"))
    for name, tensor in target.items():
        largest = torch.maximum(tensor.float().abs(), baked[name].float().abs())
        assert ((back[name].float() - tensor.float()).abs() <= spacing * largest + 1e-12).all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm/test_vit", "open_clip/tiny-token", "open_clip/tiny-avg"])
def test_the_baked_model_is_the_sum(random_model: Callable[..., Any], tmp_path: Path, name: str) -> None:
    pair = make_pair(random_model, tmp_path, name=name)
    pair.bake(0.7)
    loaded, card = load_model(pair.out)
    assert card.evidence == pair.tau.evidence
    for key, tensor in pair.model.backbone.tensors().items():
        total = tensor + 0.7 * pair.deltas[key] if key in pair.deltas else tensor
        assert torch.allclose(loaded.backbone.tensors()[key], total, atol=1e-6)
    images = torch.randn(2, 3, *card.architecture.image_size)
    logits, heatmap, base = loaded(images)
    best = (logits - logits.mean(-1, keepdim=True)).max(-1).values
    assert (heatmap.sum((1, 2)) + base - best).abs().max() < 1e-4
    assert not torch.allclose(logits, pair.model(images).logits)


def test_card_and_provenance(pair: Pair) -> None:
    card = pair.bake(0.7, metrics={"accuracy_baked": 0.5})
    assert load_card(pair.out)[0] == card
    assert card.alpha == 0.7
    assert card.metrics["accuracy_baked"] == 0.5
    assert (card.classes, card.base, card.preprocessing) == (pair.card.classes, pair.card.base, pair.card.preprocessing)
    assert card.provenance[:-1] == pair.card.provenance
    step = card.provenance[-1]
    assert (step["step"], step["alpha"], step["forced"]) == ("bake", 0.7, False)
    target, vector = step["inputs"]
    with TensorFile(pair.target) as model_file, TensorFile(pair.vector) as vector_file:
        assert target["sha256"] == model_file.metadata["sha256"]
        assert vector["sha256"] == vector_file.metadata["sha256"]
    assert vector["name"] == "imagenet"
    assert vector["provenance"] == [{"step": "vector", "seed": 5}]


def test_a_vector_of_another_base_names_both(pair: Pair) -> None:
    pair.rewrite_vector(base=BaseWeights("beit", "cd" * 32))
    message = rf"started from random \[{pair.card.base.fingerprint[:12]}\].*learned from beit \[cdcdcdcdcdcd\].*force"
    pair.assert_refused(MismatchError, message)
    with pytest.raises(MismatchError, match="learned from beit"):
        check(pair.target, pair.vector)
    check(pair.target, pair.vector, force=True)
    assert pair.bake(force=True).provenance[-1]["forced"] is True


def test_a_vector_of_another_architecture_names_both(pair: Pair, random_model: Callable[..., Any]) -> None:
    other, card = random_model("timm/test_vit2")
    deltas = {"norm.weight": torch.zeros(64)}
    unchanged = tuple(name for name in other.backbone.tensors() if name not in deltas)
    pair.rewrite_vector(architecture=card.architecture, deltas=deltas, unchanged=unchanged, evidence=card.evidence)
    pair.assert_refused(MismatchError, r"is timm/test_vit \(160.*learned on timm/test_vit2 \(160")
    # Forced, the tensors still have to agree.
    pair.assert_refused(MismatchError, r"missing tensor 'cls_token'.* that target", force=True)


def test_force_bakes_where_every_shape_agrees(pair: Pair) -> None:
    architecture = dataclasses.replace(pair.card.architecture, name="timm/another_vit")
    pair.rewrite_vector(architecture=architecture)
    pair.assert_refused(MismatchError, "learned on timm/another_vit")
    pair.bake(force=True)
    load_model(pair.out)


def test_force_does_not_mix_poolings(random_model: Callable[..., Any], tmp_path: Path) -> None:
    """Towers with equal tensors and different pooling would make a model that cannot be explained."""
    pair = make_pair(random_model, tmp_path, name="open_clip/tiny-token")
    other = dataclasses.replace(pair.card.architecture, name="open_clip/tiny-avg-norm-first", pooling="avg")
    pair.rewrite_vector(architecture=other, evidence=Evidence("patch-tokens", 0, 1.0))
    pair.assert_refused(MismatchError, "explains by patch-tokens: take a vector of the same pooling", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_missing_extra_and_misshapen_deltas_are_named(pair: Pair, force: bool) -> None:
    some = next(iter(pair.deltas))
    less = {name: delta for name, delta in pair.deltas.items() if name != some}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"deltas": less}, f"missing tensor '{some}' that target"),
        ({"deltas": {**pair.deltas, "surplus": torch.zeros(1)}}, "extra tensor 'surplus' that target .* does not have"),
        ({"deltas": {**pair.deltas, some: torch.zeros(3)}}, rf"tensor '{some}' has shape \[3\], target"),
        ({"unchanged": (*pair.tau.unchanged, "surplus")}, "extra tensor 'surplus'"),
        ({"unchanged": pair.tau.unchanged[1:]}, f"missing tensor '{pair.tau.unchanged[0]}'"),
        ({"unchanged": (*pair.tau.unchanged, some)}, f"'{some}' has a delta and is listed as unchanged"),
    ]
    for changes, message in cases:
        pair.rewrite_vector(**changes)
        pair.assert_refused(MismatchError, message, force=force)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(pair: Pair, alpha: float, value: float) -> None:
    some = next(iter(pair.deltas))
    broken = pair.deltas[some].clone()
    broken.view(-1)[-1] = value
    pair.rewrite_vector(deltas={**pair.deltas, some: broken})
    pair.assert_refused(ArtefactError, rf"vector.safetensors: tensor '{some}' holds NaN or infinite", alpha)
    pair.rewrite_vector()
    tensors = tensors_of(pair.target)
    tensors["head.weight"][0, 0] = value
    tensor_file.write_tensors(pair.target, pair.card.to_metadata(), tensors)
    pair.assert_refused(ArtefactError, r"target.safetensors: tensor 'head.weight' holds NaN or infinite", alpha)


def test_sums_that_overflow_the_targets_type_are_refused(random_model: Callable[..., Any], tmp_path: Path) -> None:
    pair = make_pair(random_model, tmp_path, target_dtype=torch.float16)
    message = r"expected an alpha that keeps the weights within float16, found 1e\+07, .*: choose a smaller one"
    pair.assert_refused(UsageError, message, alpha=1e7)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_alpha_must_be_finite(pair: Pair, alpha: float) -> None:
    pair.assert_refused(UsageError, "expected a finite alpha", alpha)


@pytest.mark.parametrize("which", ["target", "vector"])
def test_damaged_inputs_are_refused(pair: Pair, which: str) -> None:
    path: Path = getattr(pair, which)
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    for damaged in (whole[:-4], whole[: length // 2], b"", b"something else"):
        path.write_bytes(damaged)
        pair.assert_refused(ArtefactError, rf"{which}.safetensors is not a whole safetensors file")
    # A changed mantissa bit keeps every value finite: only the digest tells.
    for position in (8 + length + 1, len(whole) - 3):
        tampered = bytearray(whole)
        tampered[position] ^= 0x04
        path.write_bytes(tampered)
        pair.assert_refused(ArtefactError, rf"{which}.safetensors: its sha256 is .* changed or damaged")


def test_exchanged_inputs_are_named(pair: Pair) -> None:
    pair.target, pair.vector = pair.vector, pair.target
    pair.assert_refused(ArtefactError, "expected an edgex model, found an edgex vector at .*vector.safetensors")


def test_missing_inputs_are_named(pair: Pair) -> None:
    pair.target.unlink()
    with pytest.raises(ArtefactError, match="expected a safetensors file at .*target.safetensors, found nothing"):
        pair.bake()


def test_an_output_that_cannot_be_written(pair: Pair) -> None:
    with pytest.raises(ArtefactError, match="cannot write .*choose a folder"):
        add_vector(pair.target, pair.vector, pair.target / "out.safetensors", alpha=1.0)


def test_a_full_disk_leaves_the_old_file(pair: Pair) -> None:
    """A limit on file sizes stands in for the disk: the kernel refuses the write half-way."""
    pair.out.write_bytes(b"older")
    script = f"""
import resource, signal, sys
from pathlib import Path
from edgex.vectors.bake import add_vector
from edgex.errors import ArtefactError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({pair.target.stat().st_size // 2},) * 2)
try:
    add_vector(*map(Path, sys.argv[1:]), alpha=1.0)
except ArtefactError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(pair.target), str(pair.vector), str(pair.out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.startswith(f"cannot write {pair.out} (File too large): nothing was written")
    assert pair.out.read_bytes() == b"older"
    assert {p.name for p in pair.out.parent.iterdir()} == {pair.target.name, pair.vector.name, pair.out.name}


def test_a_target_can_be_baked_in_place(pair: Pair) -> None:
    expected = pair.bake(0.7)
    assert add_vector(pair.target, pair.vector, pair.target, alpha=0.7)[0] == expected
    assert stored(pair.target) == stored(pair.out)


def test_a_vector_in_eight_bits_streams_like_any_other(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair(random_model, tmp_path, vector_dtype=torch.int8)
    deltas, _ = load_vector(pair.vector)
    read: list[tuple[Path, str]] = []
    original = TensorFile.read_bytes
    monkeypatch.setattr(
        TensorFile, "read_bytes", lambda self, name: read.append((self.path, name)) or original(self, name)
    )
    pair.bake(0.7)
    assert len(read) == len(set(read)), "hashed while it is summed: nothing is read twice"
    target, baked = tensors_of(pair.target), tensors_of(pair.out)
    for name, tensor in target.items():
        delta = deltas.get(name.removeprefix("backbone."))
        total = tensor.numpy() if delta is None else tensor.numpy() + np.float32(0.7) * delta.numpy()
        assert torch.equal(baked[name], torch.from_numpy(total))
    for name, delta in pair.deltas.items():
        error = (baked[f"backbone.{name}"] - target[f"backbone.{name}"] - 0.7 * delta).abs().max()
        assert error <= 0.7 * delta.abs().max() / 254 + 1e-6


def test_the_order_of_the_vectors_tensors_does_not_matter(pair: Pair) -> None:
    pair.bake()
    first = stored(pair.out)
    pair.rewrite_vector(deltas=dict(reversed(pair.deltas.items())))
    pair.bake()
    assert stored(pair.out) == first


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (Evidence("class-attention", 99, 1.0), "does not fit target .*: evidence of 99 blocks, but the model has"),
        (
            Evidence("guess", 2, 1.0),
            "does not fit target .*: token pooling is explained by class-attention, not by guess",
        ),
    ],
)
def test_evidence_that_the_target_cannot_give_is_refused(pair: Pair, evidence: Evidence, message: str) -> None:
    pair.rewrite_vector(evidence=evidence)
    pair.assert_refused(MismatchError, message)
