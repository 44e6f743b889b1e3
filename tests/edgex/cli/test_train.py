"""The options of `edgex train`, run as a command in this process on tiny pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgex.files.model_file import load_card, load_model
from edgex.files.tensor_file import TensorFile
from pictures import labelled_pictures, picture_folder

Run = Callable[..., str]
BASE = ("--base", "timm/test_vit", "--weights", "base.pt")
QUICK = ("--epochs", "1", "--batch-size", "8", "--learning-rate", "1e-3", "--precision", "fp32")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Eight pictures of each of three classes, and beside them weights to start from."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=2).state_dict(), tmp_path / "base.pt")
    return picture_folder(tmp_path / "shapes", {"train": 8})


def test_options_do_what_they_say(run: Run, shapes: Path, tmp_path: Path) -> None:
    train = ("train", "--data", "shapes", *BASE, *QUICK, "--val-fraction", "0.25")
    weights = {}
    for name, options in (
        ("default", ()),
        ("again", ()),
        ("plain", ("--no-mirror",)),
        ("whole", ("--crop-scale", "1")),
        ("half", ("--dtype", "fp16", "--name", "small")),
    ):
        said = run(*train, *options, "--out", f"{name}.safetensors")
        assert "of 6 pictures" in said, "a quarter of eight, of each of three classes"
        model, _ = load_model(tmp_path / f"{name}.safetensors")
        weights[name] = torch.cat([tensor.flatten() for tensor in model.backbone.tensors().values()])
    assert torch.equal(weights["default"], weights["again"])
    assert not torch.equal(weights["default"], weights["plain"])
    assert not torch.equal(weights["default"], weights["whole"])
    assert torch.equal(weights["default"].half(), weights["half"].half())
    for name, mirror, scale in (("default", True, 0.35), ("plain", False, 0.35), ("whole", True, 1.0)):
        card, _ = load_card(tmp_path / f"{name}.safetensors")
        (step,) = card.provenance
        assert (step["options"]["mirror"], step["options"]["crop_scale"]) == (mirror, scale)
        assert (step["data"]["pictures"], step["data"]["val_fraction"]) == (18, 0.25)
        assert (card.name, card.metrics["accuracy_val"]["n"]) == (name, 6)
    assert load_card(tmp_path / "half.safetensors")[0].name == "small"
    with TensorFile(tmp_path / "half.safetensors") as file:
        assert {spec.dtype for spec in file.tensors.values()} == {torch.float16}


def test_several_labels_a_picture(run: Run, shapes: Path, tmp_path: Path) -> None:
    table = labelled_pictures(tmp_path / "several", {"train": 16, "test": 8})
    train = ("train", "--data", "several", *BASE, *QUICK, "--multi-label", "--out", "several.safetensors")
    said = run(*train, "--labels", str(table))
    assert "several.safetensors: 3 classes" in said and "labels on val: mAP " in said
    assert "labels on test: mAP " in said and "macro F1" in said and "of 8 pictures" in said
    shown = run("inspect", "several.safetensors")
    assert "3: blue disc, green square, red disc; several may be present, from a probability of 0." in shown
    measured = run("eval", "several.safetensors", "--data", "several", "--labels", str(table), "--num-images", "2")
    assert "several.safetensors: mAP " in measured and "of 24 pictures" in measured
    for command, message in (
        (train, "--labels: expected a .csv or .json file of the pictures' labels for multi_label"),
        ((*train[:-3], *train[-2:], "--force", "--labels", "x.csv"), "--labels: a file of labels is for multi_label"),
        ((*train, "--force", "--labels", "x.txt"), "--labels: expected labels in a .csv or .json file, found x.txt"),
        (("eval", "several.safetensors", "--data", "several"), "--labels: the model gives a picture several labels"),
    ):
        assert message in run(*command, code=2 if "x.txt" not in command else 1)


def test_what_cannot_be_is_one_line(run: Run, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No hub, and none of its files in a cache: port 9 (discard) is closed.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    before = sorted(tmp_path.rglob("*"))
    train = ("train", "--data", "shapes", "--out", "o.safetensors")
    for options, message, code in (
        ((*BASE, "--crop-scale", "0"), "expected a crop scale in (0, 1], found 0.0", 2),
        ((*BASE, "--crop-scale", "nan"), "expected a crop scale in (0, 1], found nan", 2),
        ((*BASE, "--val-fraction", "0"), "expected a validation fraction between 0 and 1, found 0.0", 2),
        ((*BASE, "--val-fraction", "1"), "expected a validation fraction between 0 and 1, found 1.0", 2),
        ((*BASE, "--device", "abacus"), "expected device auto, cpu or cuda[:<n>], found 'abacus'", 2),
        ((*BASE, "--pretrained"), "--weights: expected the base's weights from one place", 2),
        (("--base", "timm/test_vit"), "--weights: expected the base's weights from one place", 2),
        (("--base", "timm/test_vit", "--pretrained"), "cannot get hf://timm/test_vit.r160_in1k/model.safetensors", 1),
    ):
        assert message in run(*train, *options, code=code)
    assert sorted(tmp_path.rglob("*")) == before
