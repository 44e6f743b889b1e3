"""Cards with the right digest and wrong values: one line or equal acceptance, for every field of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from wrong_values import with_wrong_values

from edgex.cli.inspect import show
from edgex.errors import ArtefactError, EdgexError
from edgex.files import tensor_file, zoo
from edgex.files.model_file import ModelCard, load_model, save_model
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import VectorCard, load_vector, save_vector
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.label_file import LabelsCard
from edgex.shapley.labels import LabelOptions
from vectors import CARD

STEP = {"step": "bake", "inputs": [{"role": "target", "name": "n", "sha256": "0" * 64, "provenance": [{"step": "a"}]}]}
LABELS = LabelsCard(
    name="labels",
    architecture=CARD.architecture,
    predictor={"name": "p", "sha256": "0" * 64},
    preprocessing=Preprocessing((160, 160), 160, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    options=LabelOptions(pairs=3),
    folders=(("pictures", 1),),
    pictures=((0, "a.jpg", "0" * 16),),
    metrics={"split_half_cosine": 0.5},
)


def stored(card: Any, **changes: Any) -> dict[str, Any]:
    """A card as its file holds it."""
    whole = {"format": tensor_file.FORMAT, "sha256": "0" * 64}
    return json.loads(json.dumps({**whole, **card.to_metadata(), **changes}))


@contextmanager
def one_line(what: str, path: Path) -> Iterator[None]:
    """Lets an EdgexError pass that is one line with the file's name; anything else is the test's failure."""
    try:
        yield
    except EdgexError as error:
        assert str(path) in str(error) and "\n" not in str(error), f"{what}: {error}"


def written(path: Path, metadata: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bool:
    """Writes the file with its right digest, unless the metadata is nothing that a file can hold."""
    try:
        tensor_file.write_tensors(path, metadata, tensors)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("card", "values"),
    [(VectorCard, stored(CARD, provenance=[STEP])), (LabelsCard, stored(LABELS, provenance=[STEP]))],
    ids=["vector", "labels"],
)
def test_wrong_values_are_refused_or_mean_themselves(card: Any, values: dict[str, Any]) -> None:
    check_card(card, values)


def check_card(card: Any, values: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Tries every wrong value; returns those that a network is built from, and a few of the refused ones."""
    kept = []
    assert _within(values, card.from_metadata(values, Path("a.safetensors")).to_metadata())
    refused = 0
    for what, changed in with_wrong_values(values):
        try:
            found = card.from_metadata(changed, Path("a.safetensors"))
        except EdgexError as error:
            refused += 1
            kept += [(what, changed)] if refused % 40 == 0 else []
            assert "a.safetensors" in str(error) and str(error).isprintable(), f"{what}: {error}"
            continue
        assert _within(changed, found.to_metadata()), what
        kept += [(what, changed)] if what.startswith(("architecture", "head", "evidence.", "preprocessing")) else []
    assert refused > 250
    return kept


def _within(given: Any, found: Any) -> bool:
    """Whether every value that was given was taken as it is; objects may have got defaults."""
    if isinstance(given, dict) and isinstance(found, dict):
        return all(key not in found or _within(value, found[key]) for key, value in given.items())
    if isinstance(given, list) and isinstance(found, (list, tuple)):
        return len(given) == len(found) and all(_within(a, b) for a, b in zip(given, found, strict=True))
    return given is found or (given == found and isinstance(given, bool) == isinstance(found, bool))


@pytest.fixture
def model_path(random_model: Callable[..., Any], tmp_path: Path) -> Path:
    model, card = random_model("timm/test_vit", classes=2, alpha=0.5)
    save_model(tmp_path / "m.safetensors", model, card)
    return tmp_path / "m.safetensors"


@pytest.fixture
def vector_path(tmp_path: Path) -> Path:
    save_vector(tmp_path / "v.safetensors", {"norm.weight": torch.ones(64)}, CARD, dtype=torch.int8)
    return tmp_path / "v.safetensors"


@pytest.mark.parametrize("kind", ["model", "vector"])
def test_files_with_wrong_values(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a card lets pass, the rest of the program takes or refuses: loading, showing, listing."""
    path: Path = request.getfixturevalue(f"{kind}_path")
    (path.parent / "home").mkdir()
    (path.parent / "home" / "zoo").symlink_to(path.parent)
    monkeypatch.setenv("EDGEX_HOME", str(path.parent / "home"))
    load: Any = load_model if kind == "model" else load_vector
    with TensorFile(path) as file:
        values = {**file.metadata, "provenance": [STEP], "metrics": {"a": {"value": 0.5, "n": 2}, "history": [{}]}}
        tensors = {name: file.read(name) for name in file.tensors}
    for what, changed in check_card(ModelCard if kind == "model" else VectorCard, values):
        if not written(path, changed, tensors):
            continue
        with one_line(what, path):
            show(path, as_json=False)
        with one_line(what, path):
            load(path)
        assert "imagenet" in {entry.name for entry in zoo.entries()}


def test_labels_that_name_pictures_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"expected pictures\[0\] in one of 1 folders, found 5; label again"):
        LabelsCard.from_metadata(stored(LABELS, pictures=[[5, "a.jpg", "0" * 16]]), tmp_path)
