"""Names of artefacts, the built-in ones, and which bake is the newest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex import samples
from edgex.data import image_folders
from edgex.errors import ArtefactError, UsageError
from edgex.files import tensor_file, zoo
from edgex.files.home import record_bake
from edgex.files.model_file import load_card, load_model, save_model
from edgex.files.vector_file import load_vector_card
from edgex.models.self_explaining import normalise


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_built_in_zoo_holds_real_models_of_one_base() -> None:
    names = {entry.name: entry.kind for entry in zoo.entries() if entry.origin == "built in"}
    assert names == {"cars": "model", "imagenet": "vector", "imagenet-1k": "model"}
    cars, _ = load_card(zoo.resolve("cars", "model"))
    source, _ = load_card(zoo.resolve("imagenet-1k", "model"))
    vector, _ = load_vector_card(zoo.resolve("imagenet", "vector"))
    assert len(cars.classes) == 196
    assert len(source.classes) == 1000
    assert len(set(source.classes)) == 1000
    assert cars.base.fingerprint == vector.base.fingerprint == source.base.fingerprint
    assert cars.alpha is None
    assert source.alpha == vector.alpha
    assert source.evidence == vector.evidence
    assert cars.metrics["accuracy_test"]["n"] == 1176


@pytest.mark.parametrize("name", ["cars", "imagenet-1k"])
def test_built_in_models_load_and_are_small_enough_to_ship(name: str) -> None:
    path = zoo.resolve(name, "model")
    assert path.stat().st_size < 13_000_000
    model, _ = load_model(path)
    assert model.backbone.grid == (14, 14)


def test_a_local_artefact_comes_before_a_built_in_one(random_model: Callable[..., Any], home: Path) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    save_model(zoo.local_path("cars"), model, card)
    assert zoo.resolve("cars", "model") == home / "zoo" / "cars.safetensors"


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="no model named 'carz' in the zoo; did you mean cars"):
        zoo.resolve("carz", "model")
    with pytest.raises(UsageError, match="no vector named 'xyz' in the zoo; known vectors: imagenet"):
        zoo.resolve("xyz", "vector")
    with pytest.raises(UsageError, match="nothing named 'xyz' in the zoo; known names: cars, imagenet, imagenet-1k"):
        zoo.resolve("xyz")
    with pytest.raises(UsageError, match="nothing named 'imagnet' in the zoo; did you mean imagenet"):
        zoo.resolve("imagnet")
    with pytest.raises(ArtefactError, match=r"expected an edgex model file at absent\.safetensors, found nothing"):
        zoo.resolve("absent.safetensors", "model")
    for path in (Path("folder/absent"), "folder/absent"):
        with pytest.raises(ArtefactError, match="expected a file at folder/absent, found nothing"):
            zoo.resolve(path)


def test_names_are_found_by_kind() -> None:
    assert zoo.resolve("imagenet") == zoo.resolve("imagenet", "vector") == zoo.BUILT_IN / "imagenet.safetensors"
    with pytest.raises(UsageError, match="no model named 'imagenet' in the zoo; did you mean imagenet-1k"):
        zoo.resolve("imagenet", "model")


def test_an_existing_file_stands_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cars").write_bytes(b"of another kind")
    for name in ("cars", Path("cars"), str(tmp_path / "cars")):
        assert zoo.resolve(name) == zoo.resolve(name, "model") == Path(name)


def test_a_local_name_may_hold_a_dot(random_model: Callable[..., Any]) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    save_model(zoo.local_path("vit.augreg-baked"), model, card)
    assert zoo.resolve("vit.augreg-baked", "model") == zoo.local_path("vit.augreg-baked")


def test_the_newest_bake_is_remembered(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no baked model yet from this folder: run 'edgex bake"):
        zoo.newest_bake()
    model, card = random_model("timm/test_vit", classes=3)
    digest = save_model("first.safetensors", model, card)
    record_bake("first.safetensors", digest)
    record_bake("second.safetensors", save_model("second.safetensors", model, dataclasses.replace(card, name="second")))
    assert zoo.newest_bake() == tmp_path / "second.safetensors"
    loaded = zoo.load_newest_bake()
    assert (loaded.card.name, loaded.path) == ("second", tmp_path / "second.safetensors")
    record_bake("first.safetensors", digest)
    assert zoo.newest_bake() == tmp_path / "first.safetensors"
    Path("first.safetensors").unlink()
    for newest in (zoo.newest_bake, zoo.load_newest_bake):
        with pytest.raises(UsageError, match=r"first\.safetensors, is gone"):
            newest()


def test_the_newest_bake_belongs_to_the_working_directory(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        digest = save_model("model.safetensors", model, dataclasses.replace(card, name=name))
        record_bake("model.safetensors", digest)
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        assert zoo.load_newest_bake().card.name == name
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"the one from {tmp_path / 'b'} is {tmp_path / 'b' / 'model.safetensors'}"):
        zoo.newest_bake()


def test_a_bake_that_another_one_replaced_is_refused(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, card = random_model("timm/test_vit", classes=3)
    digest = save_model(zoo.local_path("cars-baked"), model, card)
    record_bake(zoo.local_path("cars-baked"), digest)
    save_model(zoo.local_path("cars-baked"), model, dataclasses.replace(card, alpha=0.25))
    for newest in (zoo.newest_bake, zoo.load_newest_bake):
        with pytest.raises(UsageError, match="has been replaced by another model since: bake again or name a model"):
            newest()


def test_a_damaged_file_in_the_local_zoo_does_not_hide_the_rest(home: Path) -> None:
    (home / "zoo").mkdir(parents=True)
    (home / "zoo" / "torn.safetensors").write_bytes(b"not a model")
    assert "cars" in {entry.name for entry in zoo.entries()}


def test_labels_in_the_local_zoo_are_neither_model_nor_vector(home: Path) -> None:
    (home / "zoo").mkdir(parents=True)
    tensor_file.write(home / "zoo" / "labels.safetensors", {"kind": "labels"}, {}, [])
    assert {entry.name for entry in zoo.entries()} == {"cars", "imagenet", "imagenet-1k"}


@pytest.mark.parametrize("name", ["hf://", "hf://organisation", "hf://organisation/repository"])
def test_incomplete_hub_names_are_refused(name: str) -> None:
    for kind in ("model", None):
        with pytest.raises(UsageError, match="expected hf://organisation/repository/file"):
            zoo.resolve(name, kind)


@pytest.mark.parametrize("name", ["cars", "imagenet-1k"])
def test_heatmaps_of_built_in_models_add_up(name: str) -> None:
    """Real weights, real pictures: the identity of the forward pass, for the predicted and for another class."""
    model, card = load_model(zoo.resolve(name, "model"))
    images = torch.from_numpy(image_folders.load_batch(samples.paths(), card.preprocessing))
    pixels = normalise(images, card.preprocessing.mean, card.preprocessing.std)
    found = []
    for asked in (-1, 7):
        explained = model(pixels, torch.full((len(images),), asked))
        chosen = explained.logits.argmax(dim=1) if asked < 0 else torch.full((len(images),), asked)
        centred = explained.logits.gather(1, chosen[:, None])[:, 0] - explained.logits.mean(dim=1)
        assert torch.allclose(explained.heatmap.sum(dim=(1, 2)) + explained.base, centred, atol=1e-4)
        found.append(explained.heatmap)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert not torch.allclose(found[0][0], found[0][1], atol=1e-3)
