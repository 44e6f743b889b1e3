from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.data import image_folders
from edgex.errors import ArtefactError, DataError, MismatchError, UsageError
from edgex.files.model_file import ModelCard, load_model
from edgex.runtime.view import Fit
from edgex.training import predictor
from edgex.training.fine_tuning import TrainOptions, warmup_cosine
from edgex.training.resume import TrainingCheckpoint
from pictures import draw, picture_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small ViT as timm would save them."""
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "base.pt"
    torch.save(timm.create_model("test_vit", num_classes=7).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("data"), {"train": 12, "test": 6})


def run(
    folder: Path,
    base: Path,
    out: Path,
    report: Callable[[str], None] = lambda _: None,
    *,
    resize: int | None = None,
    fit: Fit | None = None,
    image_size: int | tuple[int, int] | None = None,
    **change: Any,
) -> ModelCard:
    options = TrainOptions(
        **{"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "crop_scale": 0.8, **change}
    )
    return predictor.train(
        folder,
        "timm/test_vit",
        base,
        out,
        options,
        name="shapes",
        resize=resize,
        fit=fit,
        image_size=image_size,
        val_fraction=0.25,
        dtype=torch.float32,
        report=report,
    )


def test_training_learns_and_records_what_it_did(folder: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "shapes.safetensors"
    card = run(folder, base, out, epochs=8)
    assert card.metrics["accuracy_test"] == {"value": pytest.approx(card.metrics["accuracy_test"]["value"]), "n": 18}
    assert card.metrics["accuracy_test"]["value"] > 0.6
    assert card.metrics["accuracy_val"]["n"] == 9
    assert card.base.name == "base"
    assert card.alpha is None
    (step,) = card.provenance
    assert step["data"]["pictures"] == 27
    assert step["inputs"][0]["fingerprint"] == card.base.fingerprint
    model, stored = load_model(out)
    assert stored == card
    assert model.head.weight.shape == (3, 64)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_the_fit_is_the_trained_models_own(folder: Path, base: Path, tmp_path: Path, fit: Fit) -> None:
    card = run(folder, base, tmp_path / "m.safetensors", epochs=1, fit=fit)
    assert (card.preprocessing.fit, card.preprocessing.resize) == (fit, (160, 160))
    assert load_model(tmp_path / "m.safetensors").card.preprocessing == card.preprocessing


def test_a_wide_input_starts_from_a_square_base(folder: Path, base: Path, tmp_path: Path) -> None:
    card = run(folder, base, tmp_path / "m.safetensors", epochs=1, image_size=(96, 176))
    assert (card.architecture.image_size, card.preprocessing.image_size) == ((96, 176), (96, 176))
    # Crops cover the input, whatever the picture's shape.
    assert (card.preprocessing.fit, card.preprocessing.resize) == ("crop", (101, 185))
    network = load_model(tmp_path / "m.safetensors").network
    assert network.backbone.grid == (6, 11)
    square = run(folder, base, tmp_path / "s.safetensors", epochs=1)
    assert card.base.fingerprint == square.base.fingerprint
    # A model of edgex's own is a base as well.
    again = run(folder, tmp_path / "s.safetensors", tmp_path / "t.safetensors", epochs=1, image_size=96)
    assert (again.architecture.image_size, again.base.fingerprint) == ((96, 96), square.base.fingerprint)
    with pytest.raises(MismatchError, match="expected weights of .*160x160 px"):
        run(folder, tmp_path / "m.safetensors", tmp_path / "u.safetensors")


def test_a_resize_goes_with_crop_and_squash(folder: Path, base: Path, tmp_path: Path) -> None:
    squashed = run(folder, base, tmp_path / "m.safetensors", epochs=1, fit="squash", resize=176)
    assert squashed.preprocessing.resize == (176, 176)
    with pytest.raises(UsageError, match="a padded picture is scaled to the input itself") as caught:
        run(folder, base, tmp_path / "n.safetensors", fit="pad", resize=176)
    assert caught.value.argument == "resize"


def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    folder: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, base, tmp_path / "whole.safetensors")
    original = TrainingCheckpoint.save

    def save_then_stop(self: TrainingCheckpoint, parts: dict[str, Any], position: int) -> None:
        original(self, parts, position)
        if position == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingCheckpoint, "save", save_then_stop)
    out = tmp_path / "torn.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(folder, base, out)
    assert not out.exists()
    monkeypatch.setattr(TrainingCheckpoint, "save", original)
    with pytest.raises(UsageError, match="checkpoint of another run"):
        run(folder, base, out, seed=1)
    run(folder, base, out)
    whole, _ = load_model(tmp_path / "whole.safetensors")
    resumed, _ = load_model(out)
    for name, tensor in whole.backbone.tensors().items():
        assert torch.equal(tensor, resumed.backbone.tensors()[name]), name


@pytest.mark.parametrize("damage", ["flipped", "cut off", "foreign", "of an earlier edgex"])
def test_a_checkpoint_that_cannot_be_used_is_made_anew(folder: Path, base: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "a.safetensors"
    said: list[str] = []
    checkpoint = tmp_path / "a.safetensors.checkpoint"
    whole = run(folder, base, tmp_path / "whole.safetensors", epochs=1)
    TrainingCheckpoint(checkpoint, {}).save({}, 1)
    data = bytearray(checkpoint.read_bytes())
    if damage == "flipped":
        data[100] ^= 1
    if damage == "of an earlier edgex":
        torch.save({"identity": {}, "position": 1, "state": {}, "rng": torch.get_rng_state()}, checkpoint)
    else:
        contents: dict[str, bytes] = {"flipped": bytes(data), "cut off": bytes(data[:-30]), "foreign": b"some notes"}
        checkpoint.write_bytes(contents[damage])
    card = run(folder, base, out, report=said.append, epochs=1)
    (line,) = [line for line in said if line.startswith(f"{checkpoint} is ")]
    assert line.endswith(": the training begins at its start")
    assert card.metrics == whole.metrics
    assert not checkpoint.exists()


def test_warmup_rises_then_the_cosine_falls_to_zero() -> None:
    factor = warmup_cosine(100, 0.1)
    rates = [factor(step) for step in range(101)]
    assert rates[9] == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)


def test_bad_options_are_refused(folder: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected epochs of at least 1, found 0"):
        TrainOptions(epochs=0)
    with pytest.raises(UsageError, match="precision auto, fp32 or bf16"):
        run(folder, base, tmp_path / "x.safetensors", precision="int4")
    with pytest.raises(UsageError, match="device auto, cpu or cuda"):
        run(folder, base, tmp_path / "x.safetensors", device="toaster")


def test_a_single_class_is_refused_before_the_training(folder: Path, base: Path, tmp_path: Path) -> None:
    one = tmp_path / "data" / "train"
    one.mkdir(parents=True)
    first = next(path for path in sorted((folder / "train").iterdir()) if path.is_dir())
    (one / first.name).symlink_to(first)
    with pytest.raises(DataError, match=f"found '{first.name}' alone: the score of a single class is 100%"):
        run(tmp_path / "data", base, tmp_path / "out.safetensors")


def test_a_test_class_that_train_lacks_is_refused_before_the_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = picture_folder(tmp_path / "data", {"train": 3, "test": 1})
    (root / "test" / "red disc").rename(root / "test" / "unheard of")
    monkeypatch.setattr(predictor.fine_tuning, "fit", lambda *_, **__: pytest.fail("it was trained first"))
    with pytest.raises(DataError, match="class 'unheard of' that .*train does not have"):
        run(root, base, tmp_path / "x.safetensors")


def test_class_folders_and_pictures_that_are_no_utf8(base: Path, tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"daten\xe4")
    for name in (b"fissur\xe9", b"ok"):
        (folder := data / os.fsdecode(name)).mkdir(parents=True)
        for index in range(2):
            draw("red disc", index).save(folder / os.fsdecode(b"%d\xe9.png" % index))
    with pytest.raises(ArtefactError, match="expected a path in UTF-8; rename the file"):
        run(data, base, tmp_path / os.fsdecode(b"model\xe9.safetensors"))
    out = tmp_path / "model.safetensors"
    card = run(data, base, out, epochs=1)
    assert card.classes == (r"fissur\udce9", "ok")
    loaded = load_model(out).card
    assert loaded.classes == card.classes
    assert loaded.provenance[0]["data"]["name"] == r"daten\udce4"
    again = image_folders.remap_labels(image_folders.labelled(data), loaded.classes, data)
    assert again.labels == (0, 0, 1, 1)
