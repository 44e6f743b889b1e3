"""Model artefacts: round trips, strict tensors, fingerprints and damaged files."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import edgex
from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files import model_file, tensor_file
from edgex.files.model_file import BaseWeights, ModelCard, check_finite, fingerprint, load_card, load_model, save_model
from edgex.files.tensor_file import TensorFile

pytestmark = pytest.mark.usefixtures("tiny_clips")


FAMILIES = ["timm/test_vit", "timm/test_vit2", "open_clip/tiny-token", "open_clip/tiny-avg"]


@pytest.fixture
def saved(random_model: Callable[..., Any], tmp_path: Path) -> Path:
    model, card = random_model("timm/test_vit")
    save_model(tmp_path / "m.safetensors", model, card)
    return tmp_path / "m.safetensors"


def changed(
    path: Path,
    *,
    tensors: Callable[[dict[str, torch.Tensor]], None] = lambda _: None,
    metadata: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Writes the file again with other tensors or metadata, and the digest that belongs to them."""
    with TensorFile(path) as file:
        content = {name: file.read(name) for name in file.tensors}
        described = json.loads(json.dumps(file.metadata))
    tensors(content)
    metadata(described)
    tensor_file.write_tensors(path, described, content)
    return path


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip(random_model: Callable[..., Any], tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    model, card = random_model(name, alpha=0.5)
    card = dataclasses.replace(card, metrics={"accuracy_val": {"value": 0.9, "n": 10}})
    digest = save_model(tmp_path / "m.safetensors", model, card, dtype=dtype)
    read = load_model(tmp_path / "m.safetensors")
    loaded, found = read
    assert loaded is read.network
    assert found is read.card
    assert (read.card, read.sha256, read.path) == (card, digest, tmp_path / "m.safetensors")
    assert load_card(tmp_path / "m.safetensors") == (card, digest)
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor.to(dtype).float())
    images, backbone = torch.randn(2, 3, *card.architecture.image_size), model.backbone.tensors()
    stored = ({key: t.to(dtype).float() for key, t in part.items()} for part in (backbone, model.head.state_dict()))
    rounded = model_file.assemble_model(card, *stored, source="rounded").freeze()
    assert all(torch.equal(a, b) for a, b in zip(loaded(images), rounded(images), strict=True))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_path_may_be_a_string(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, card = random_model("timm/test_vit")
    digest = save_model("x.safetensors", model, card)
    loaded = edgex.load_model("x.safetensors")
    assert (loaded.card, loaded.path, loaded.sha256) == (card, Path("x.safetensors"), digest)
    assert load_card("x.safetensors") == (card, digest)
    with pytest.raises(ArtefactError, match="expected a safetensors file at absent, found nothing"):
        edgex.load_model("absent")


def test_card_metadata_round_trip(random_model: Callable[..., Any]) -> None:
    card = random_model("timm/test_vit")[1]
    stored = {**json.loads(json.dumps(card.to_metadata())), "format": tensor_file.FORMAT, "sha256": "0" * 64}
    assert ModelCard.from_metadata(stored, Path("m")) == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("backbone.norm.bias"), "missing tensor 'backbone.norm.bias' that timm/test_vit"),
        (lambda t: [t.pop("backbone.norm.bias"), t.pop("backbone.norm.weight")], r"\(and 1 more\)"),
        (lambda t: t.update({"backbone.extra": torch.zeros(1)}), "extra tensor 'backbone.extra'"),
        (lambda t: t.update({"": torch.zeros(1)}), "extra tensor '' belongs to none of"),
        (lambda t: t.update({"backbone.": torch.zeros(1)}), "extra tensor 'backbone.'"),
        (lambda t: t.update({"stray": torch.zeros(1)}), "extra tensor 'stray' belongs to none of"),
        (
            lambda t: t.update({"backbone.cls_token": torch.zeros(64)}),
            r"'backbone.cls_token' has shape \[64\].*\[1, 1, 64\]",
        ),
        (lambda t: t.pop("head.weight"), "missing tensor 'head.weight'"),
        (lambda t: t.update({"head.weight": torch.zeros(4, 64)}), "4 rows of class weights for 5 classes"),
        (lambda t: t.update({"head.weight": torch.zeros(5, 64, 1)}), r"'head.weight' has shape \[5, 64, 1\]"),
        (lambda t: t.update({"head.bias": torch.zeros(5, 1)}), r"'head.bias' has shape \[5, 1\]"),
        (lambda t: t.update({"head.surplus": torch.zeros(5)}), "extra tensor 'head.surplus'"),
        (lambda t: t["backbone.norm.bias"].fill_(math.nan), "'backbone.norm.bias' holds NaN or infinite"),
        (lambda t: t["head.weight"][0, :1].fill_(-math.inf), "'head.weight' holds NaN or infinite"),
    ],
)
def test_wrong_tensors_are_named(saved: Path, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message) as caught:
        load_model(changed(saved, tensors=change))
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(kind="vector"), "expected an edgex model, found an edgex vector at"),
        (lambda m: m.pop("base"), "expected its keys, found none of base; make the file again"),
        (lambda m: m.update(evidence=None), "evidence: expected an object, found null; make the file again"),
        (lambda m: m.update(preprocessing={}), "preprocessing"),
        (
            lambda m: m["architecture"].update(image_size=[1]),
            "architecture.image_size: expected a list of 2, found a list",
        ),
        (
            lambda m: m["architecture"].update(image_size=[96, 96]),
            r"architecture's size \(96, 96\), found preprocessing",
        ),
        (lambda m: m["evidence"].update(blocks=99), "evidence of 99 blocks, but the model has"),
        (lambda m: m["evidence"].update(kind="guess"), "token pooling is explained by .*, not by guess"),
        (lambda m: m["architecture"].update(name="timm/none"), "m.safetensors: .*make the file again"),
        (lambda m: m["classes"].append("one more"), "5 rows of class weights for 6 classes"),
    ],
)
def test_wrong_metadata_is_refused(saved: Path, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        load_model(changed(saved, metadata=change))


def _rewrite_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["edgex"])
    change(described)
    header["__metadata__"]["edgex"] = json.dumps(described)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])


def test_other_formats_and_removed_digests_are_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    _rewrite_header(saved, lambda described: described.update(format="edgex/9"))
    with pytest.raises(ArtefactError, match="has format 'edgex/9', this edgex .* reads 'edgex/1'"):
        load_model(saved)
    saved.write_bytes(whole)
    _rewrite_header(saved, lambda described: described.pop("sha256"))
    for load in (load_model, load_card):
        with pytest.raises(ArtefactError, match="records no sha256 of its data"):
            load(saved)


def test_tampered_data_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-5] ^= 0x10
    saved.write_bytes(content)
    with pytest.raises(ArtefactError, match="was changed or damaged"):
        load_model(saved)


def test_foreign_files_point_to_import(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ArtefactError, match="without edgex metadata .*'edgex import'"):
        load_model(tmp_path / "w.safetensors")


class TestFiniteness:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_one_bad_value_anywhere_is_found(self, dtype: torch.dtype, value: float) -> None:
        for size in (1, 7, 64, 1003):
            for index in {0, size // 2, size - 1}:
                tensor = torch.randn(size).to(dtype)
                check_finite(tensor, "w", source="file")
                tensor[index] = value
                with pytest.raises(ArtefactError, match="file: tensor 'w' holds NaN or infinite values"):
                    check_finite(tensor, "w", source="file")

    def test_large_finite_values_are_fine(self) -> None:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            check_finite(torch.full((1000,), torch.finfo(dtype).max, dtype=dtype), "w", source="file")

    def test_integers_and_empty_tensors_are_fine(self) -> None:
        check_finite(torch.arange(3), "w", source="file")
        check_finite(torch.zeros(0), "w", source="file")


class TestFingerprint:
    def test_survives_storage_in_half_precision(self) -> None:
        tensors = {"a": torch.randn(5, 3), "n": torch.tensor(4)}
        half = {name: t.half().float() if t.is_floating_point() else t for name, t in tensors.items()}
        assert fingerprint(half) == fingerprint(tensors)

    def test_depends_on_names_shapes_and_values_but_not_on_order(self) -> None:
        tensors = {"a": torch.arange(6.0), "b": torch.zeros(2)}
        own = fingerprint(tensors)
        assert fingerprint(dict(reversed(tensors.items()))) == own
        others = [
            {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)},
            {"a": torch.arange(6.0) + 1, "b": torch.zeros(2)},
            {"c": torch.arange(6.0), "b": torch.zeros(2)},
            {"a": torch.arange(6.0)},
        ]
        assert len({own, *(fingerprint(other) for other in others)}) == 5

    def test_base_shows_name_and_a_short_print(self) -> None:
        assert str(BaseWeights("deit", "0123456789abcdef" * 4)) == "deit [0123456789ab]"


def test_saving_does_not_change_the_model(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit")
    before = copy.deepcopy(model.state_dict())
    save_model(tmp_path / "m.safetensors", model, card, dtype=torch.float16)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_overflow_the_storage_type_are_not_written(
    random_model: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit")
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    with pytest.raises(UsageError, match="tensor 'head.weight' holds values that float16 cannot: store it in float32"):
        save_model(tmp_path / "m.safetensors", model, card, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_a_mismatch_is_an_artefact_error() -> None:
    assert issubclass(MismatchError, ArtefactError)
    model_file.match_shapes({"a": (1,)}, {"a": (1,)}, source="s", target="t")
