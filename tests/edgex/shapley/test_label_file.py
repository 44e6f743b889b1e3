"""Labels artefacts: made, read, damaged, moved, and learned from."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import ArtefactError, DataError, MismatchError, UsageError
from edgex.files import tensor_file
from edgex.files.model_file import save_model
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import load_vector
from edgex.inspection import inspect
from edgex.shapley import label_file, labelling
from edgex.shapley.labels import LabelOptions
from edgex.training import vector_training
from edgex.training.learning import LearnOptions
from edgex.training.supervision import VectorData
from pictures import draw

LABELS: dict[str, Any] = {"pairs": 3, "side": 2, "classes": 2, "features": True}
OPTIONS: dict[str, Any] = {"pairs": 3, "players": 4, "classes": 2, "features": True}


@pytest.fixture(scope="module")
def made(random_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, two folders of pictures and their labels."""
    folder = tmp_path_factory.mktemp("labels")
    model, card = random_model("timm/test_vit", classes=4)
    save_model(folder / "model.safetensors", model, card)
    for name, count in (("one", 3), ("two", 4)):
        (folder / name / "class 0").mkdir(parents=True)
        for index in range(count):
            draw("blue disc", index, size=170).save(folder / name / "class 0" / f"{index}.png")
    make(folder)
    return folder


def make(folder: Path, out: str = "labels.safetensors", **change: Any) -> label_file.LabelsCard:
    settings: dict[str, Any] = {"crops": [3, 1], **OPTIONS}
    return labelling.make_labels(
        folder / "model.safetensors",
        [folder / "one", folder / "two"],
        folder / out,
        name="labels",
        cache_dir=folder / "work",
        device="cpu",
        precision="fp32",
        force=True,
        **{**settings, **change},
    )


def test_folders_have_their_own_numbers_of_crops(made: Path) -> None:
    loaded = label_file.load_labels(made / "labels.safetensors")
    labels, card = loaded.labels, loaded.card
    assert labels.crops.picture.tolist() == [0, 1, 2] * 3 + [3, 4, 5, 6]
    assert labels.crops.seeds[:, 3].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 4
    assert [path.parent.parent.name for path in labels.crops.paths] == ["one"] * 3 + ["two"] * 4
    assert [(folder.root.name, folder.crops_per_picture, len(folder.paths)) for folder in loaded.folders] == [
        ("one", 3, 3),
        ("two", 1, 4),
    ]
    assert card.metrics["views"] == 13
    assert -1 <= card.metrics["split_half_cosine"] <= 1
    assert card.predictor["name"] == "random"
    with TensorFile(made / "labels.safetensors") as file:
        values, totals = file.read("values"), file.read("totals")
    assert torch.allclose(values.sum(dim=-1), totals, atol=1e-5), "efficiency"


def test_inspect_reads_labels(made: Path) -> None:
    described = inspect(made / "labels.safetensors")
    assert described["file_kind"] == "labels"
    assert described["metadata"]["options"]["pairs"] == 3


def test_pictures_may_move_but_not_change(made: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(made / name, tmp_path / name)
    roots = [tmp_path / "one", tmp_path / "two"]
    labels = label_file.load_labels(made / "labels.safetensors", roots).labels
    there = label_file.load_labels(made / "labels.safetensors").labels
    assert all(path.is_relative_to(tmp_path) for path in labels.crops.paths)
    assert torch.equal(torch.cat(list(labels.crops.batches(4))), torch.cat(list(there.crops.batches(5))))
    with pytest.raises(UsageError, match="expected 2 folders for the pictures of .*, found 1"):
        label_file.load_labels(made / "labels.safetensors", roots[:1])
    draw("blue disc", 99, size=170).save(tmp_path / "two" / "class 0" / "3.png")
    with pytest.raises(DataError, match=r"3.png was changed after it was labelled"):
        label_file.load_labels(made / "labels.safetensors", roots)
    (tmp_path / "one" / "class 0" / "1.png").unlink()
    with pytest.raises(DataError, match=r"labelled picture .*1.png, found nothing: name its present folder"):
        label_file.load_labels(made / "labels.safetensors", roots)


def learned(folder: Path, out: str, source: VectorData, **change: Any) -> dict[str, torch.Tensor]:
    settings = {"blocks": 2, "steps": 2, "batch_size": 4, "look_every": 1, "device": "cpu", "held_out": 0.4}
    vector_training.train(
        folder / "model.safetensors",
        source,
        folder / out,
        name="v",
        source_name=None,
        options=LearnOptions(**{**settings, **change}),
        evidence_blocks=3,
        part=None,
        alpha=1.0,
        work=folder / f"{out}.work",
        model_out=None,
        dtype=torch.float32,
        force=True,
        report=lambda line: None,
    )
    return load_vector(folder / out).deltas


def test_labels_from_a_file_teach_what_labels_made_on_the_way_teach(made: Path) -> None:
    roots = (made / "one", made / "two")
    first = learned(made, "a.safetensors", VectorData(None, label_file=made / "labels.safetensors"), precision="fp32")
    again = learned(
        made, "b.safetensors", VectorData(roots, labels=LabelOptions(**LABELS), crops=(3, 1)), precision="fp32"
    )
    assert first
    assert all(torch.equal(first[name], again[name]) for name in first | again)
    card = load_vector(made / "a.safetensors").card
    assert card.supervision == "shapley"
    assert [entry["role"] for entry in card.provenance[-1]["inputs"]] == ["predictor", "labels"]
    assert card.provenance[-1]["data"]["crops"] == [3, 1]


def test_labels_of_another_model_are_refused(made: Path, random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit", classes=4, seed=1)
    save_model(tmp_path / "model.safetensors", model, card)
    with pytest.raises(MismatchError, match=r"holds labels of random \[.*learn with the model that made the labels"):
        learned(tmp_path, "v.safetensors", VectorData(None, label_file=made / "labels.safetensors"))


def test_damaged_labels_are_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.safetensors"
    with TensorFile(made / "labels.safetensors") as file:
        metadata, tensors = file.metadata, {name: file.read(name) for name in file.tensors}
    for change, message in (
        ({"picture": tensors["picture"][1:]}, "expected the tensor 'picture' as .*label again"),
        ({"surplus": torch.zeros(1)}, "expected the tensor 'surplus' as None"),
        ({"classes": torch.zeros(3)}, "expected the tensor"),
    ):
        tensor_file.write_tensors(path, metadata, tensors | change)
        with pytest.raises(ArtefactError, match=message):
            label_file.load_labels(path)
    tensor_file.write_tensors(path, {**metadata, "options": {"pairs": 0}}, tensors)
    with pytest.raises(
        ArtefactError, match="options.pairs: expected a whole number of at least 1, found 0; label again"
    ):
        label_file.load_labels(path)
    with pytest.raises(ArtefactError, match="expected an edgex labels, found an edgex model"):
        label_file.load_labels(made / "model.safetensors")


def test_what_cannot_be_labelled_is_refused(made: Path, random_model: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one number of crops, or one for each of 2 folders, found 3"):
        make(made, crops=[1, 2, 3])
    with pytest.raises(UsageError, match="crops of at least 1, found 0"):
        make(made, crops=[0])
    with pytest.raises(UsageError, match="10x10 patch grid does not divide into 3x3"):
        make(made, players=9)
    model, card = random_model("timm/test_vit", classes=4)
    save_model(tmp_path / "model.safetensors", model, dataclasses.replace(card, alpha=1.0))
    with pytest.raises(UsageError, match="expected a predictor to learn from, found .*baked already"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"roots": None}, "expected a folder of pictures, found none"),
        ({"roots": (Path("a"),), "supervision": "boxes"}, "supervision shapley or masks, found 'boxes'"),
        ({"roots": (Path("a"),), "masks": (Path("m"),)}, "expected no masks where Shapley values supervise"),
        (
            {"roots": (Path("a"), Path("b")), "masks": (Path("m"),), "supervision": "masks"},
            "one masks folder for each of 2",
        ),
        ({"roots": (Path("a"),), "label_file": Path("l"), "supervision": "masks"}, "leave them out beside masks"),
    ],
)
def test_sources_that_contradict_themselves_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VectorData(**source)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("picture", 7, "positions from 0 to 6 in the tensor 'picture', found 7 to 7"),
        ("picture", -1, "positions from 0 to 6 in the tensor 'picture', found -1 to -1"),
        ("classes", -1, "positions from 0 in the tensor 'classes', found -1 to -1"),
        ("differences", float("nan"), "tensor 'differences' holds NaN"),
    ],
)
def test_values_beyond_their_range_are_refused(
    made: Path, tmp_path: Path, name: str, value: float, message: str
) -> None:
    with TensorFile(made / "labels.safetensors") as file:
        tensors = {tensor: file.read(tensor) for tensor in file.tensors}
        metadata = file.metadata
    tensors[name].fill_(value)
    tensor_file.write_tensors(tmp_path / "changed.safetensors", metadata, tensors)
    with pytest.raises(ArtefactError, match=message):
        label_file.load_labels(tmp_path / "changed.safetensors")
