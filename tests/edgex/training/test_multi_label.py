"""A multi-label model from pictures and a table of labels to the device: trained, measured, baked, exported, run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.data import image_folders
from edgex.data.multi_label import for_model
from edgex.errors import DataError, UsageError
from edgex.evaluation import classification
from edgex.evaluation.multi_label import best_thresholds
from edgex.evaluation.workflow import evaluate
from edgex.export.workflow import export_onnx
from edgex.files.model_file import load_model
from edgex.files.vector_file import save_vector
from edgex.prediction import predict
from edgex.runtime import Session
from edgex.training.workflow import train
from edgex.vectors.workflow import bake
from pictures import labelled_pictures
from vectors import fitting


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small ViT as timm would save them."""
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "base.pt"
    torch.save(timm.create_model("test_vit", num_classes=7).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_pictures(tmp_path_factory.mktemp("data"), {"train": 64, "test": 16})


def trained(table: Path, base: Path, out: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "epochs": 12,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "crop_scale": 0.9,
        "val_fraction": 0.25,
    }
    settings |= {"multi_label": True, "labels": table, "precision": "fp32", "device": "cpu"}
    return train(
        table.parent,
        "timm/test_vit",
        out,
        weights=base,
        **settings | options,
    )


@pytest.fixture(scope="module")
def model(table: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(table, base, tmp_path_factory.mktemp("trained") / "shapes.safetensors").path


def test_training_learns_labels_and_thresholds(model: Path, table: Path) -> None:
    network, card = load_model(model)
    assert card.classes == ("blue disc", "green square", "red disc") and card.head_activation == "sigmoid"
    assert card.provenance[0]["data"]["labels"] == "labels.csv"
    measured = card.metrics["labels_test"]
    assert measured["n"] == 16 and measured["mean_average_precision"] > 0.8
    # Measured again from the file, with the thresholds of the highest F1 on what was held out.
    pictures = for_model(table.parent / "test", card.classes, _relative(table, "test"), multi_label=True)
    found = classification.classified(network, pictures, card.preprocessing, thresholds=card.thresholds)
    assert found.labels is not None and found.labels.to_dict() == pytest.approx(measured)
    train_set = for_model(table.parent / "train", card.classes, _relative(table, "train"), multi_label=True)
    _, held = train_set.split(0.25, 0)
    scores = classification.probabilities(network, held, card.preprocessing)
    assert card.thresholds == pytest.approx(best_thresholds(scores, held.targets))
    assert card.metrics["labels_val"]["n"] == len(held)


def _relative(table: Path, split: str) -> Path:
    """The same table, as JSON, for the pictures of one split alone."""
    rows = [line.split(",") for line in table.read_text("utf-8").splitlines()[1:]]
    chosen = {
        file.removeprefix(f"{split}/"): [n for n in names.split(";") if n] for file, names in rows if split in file
    }
    path = table.with_name(f"{split}.json")
    path.write_text(json.dumps(chosen), encoding="utf-8")
    return path


def test_an_interrupted_training_goes_on_with_the_same_labels_only(
    table: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(table, base, tmp_path / "whole.safetensors", epochs=3).card

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(table, base, tmp_path / "resumed.safetensors", epochs=3, report=stop)
    assert trained(table, base, tmp_path / "resumed.safetensors", epochs=3).card.metrics == whole.metrics


def test_evaluation_reports_labels(model: Path, table: Path, tmp_path: Path) -> None:
    found = evaluate(
        model,
        table.parent / "test",
        labels=_relative(table, "test"),
        num_images=2,
        fill="mean",
        steps=4,
        cache_dir=tmp_path,
        device="cpu",
    )
    card = load_model(model).card
    (measured,) = found.to_dict()["models"].values()
    assert measured["labels"] == pytest.approx(card.metrics["labels_test"])
    assert 0.5 < measured["label_accuracy"]["mean"] <= 1
    (row,) = found.heatmaps
    assert row.values["sum_error"].max() < 1e-4


@pytest.fixture(scope="module")
def baked(model: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model with a small vector, whose alpha was chosen on the test pictures."""
    folder = tmp_path_factory.mktemp("baked")
    network, card = load_model(model)
    generator = torch.Generator().manual_seed(5)
    deltas = {
        name: 0.01 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.backbone.tensors().items()
        if name.startswith("blocks.5.attn")
    }
    vector = folder / "vector.safetensors"
    save_vector(vector, deltas, fitting(network, card, deltas), dtype=torch.float32)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEX_HOME", str(folder / "home"))
        result = bake(
            model,
            vector,
            alpha="auto",
            val=table.parent / "test",
            labels=_relative(table, "test"),
            max_drop=20,
            out=folder / "baked.safetensors",
            device="cpu",
            report=said.append,
        )
    return result, said


def test_alpha_is_chosen_by_mean_average_precision(baked: Any, model: Path) -> None:
    result, said = baked
    assert said[0].startswith("mean average precision on 16 pictures of")
    assert result.curve[0][1] == pytest.approx(load_model(model).card.metrics["labels_test"]["mean_average_precision"])
    assert result.card.metrics["bake"]["mean_average_precision_curve"][0] == list(result.curve[0])
    assert result.card.thresholds == load_model(model).card.thresholds and result.card.head_activation == "sigmoid"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_device_gives_the_same_labels(baked: Any, table: Path, tmp_path: Path, precision: Any) -> None:
    result, _ = baked
    path = tmp_path / f"{precision}.onnx"
    pictures = image_folders.list_images([table.parent / "test"])
    export_onnx(result.path, precision=precision, out=path, pictures=table.parent / "train", max_batch=4)
    session = Session(path, "cpu")
    card = load_model(result.path).card
    assert session.metadata.activation == "sigmoid"
    assert session.metadata.thresholds == pytest.approx(card.thresholds)
    exact = dict(predict(result.path, pictures).results)
    same = 0
    for picture in pictures:
        found, wanted = session(picture), exact[picture]
        same += {label for label, _ in found.labels()} == {label for label, _ in wanted.labels()}
        for one in session.explain_labels(picture):
            own = float(one.logits[one.explained_index])
            assert float(one.heatmap.sum()) + one.base == pytest.approx(own, abs=1e-3)
        np.testing.assert_allclose(
            found.probabilities, wanted.probabilities, atol=0.15 if precision == "int8" else 0.02
        )
    assert same >= 0.8 * len(pictures)


def test_what_does_not_go_together(table: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(UsageError, match="a file of labels is for multi_label") as raised:
        trained(table, base, out, multi_label=False)
    assert raised.value.argument == "labels"
    with pytest.raises(UsageError, match="expected a .csv or .json file of the pictures' labels for multi_label"):
        trained(table, base, out, labels=None)
    other = tmp_path / "columns.csv"
    other.write_text("file,red disc,unicorn\ntrain/0.png,1,0\n", encoding="utf-8")
    with pytest.raises(DataError, match="no picture of .*train has the label 'unicorn'"):
        trained(table, base, out, labels=other)
    other.write_text("train/0.png,red disc\ntrain/absent.png,red disc\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"names 2 pictures of .*train, of which 1 are not there: .*absent\.png"):
        trained(table, base, out, labels=other)
    assert not out.exists()
