"""`edgex vector ...` and the warning of `edgex bake`, run as commands in this process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.files.model_file import load_model, save_model
from edgex.files.vector_file import load_vector
from edgex.vectors.transfer import TransferRecord, write_records
from pictures import picture_folder

Run = Callable[..., str]
SMALL = ("--steps", "3", "--batch-size", "8", "--evidence-blocks", "3", "--precision", "fp32")
WEIGHTS = (*SMALL, "--learn", "weights", "--blocks", "2")
FEW = ("--pairs", "3", "--players", "25")
BY_LABELS = ("--class-loss", "labels", "--learning-rate", "1e-3", "--cache-dir", "kept")


@pytest.fixture
def source(random_model: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder with a model "model.safetensors" and pictures in class folders that it knows."""
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, name="shapes", classes=("blue disc", "green square", "red disc"))
    save_model(tmp_path / "model.safetensors", model, card)
    return picture_folder(tmp_path / "pictures", {"": 5})


def test_labels_teach_a_vector_twice_the_same(run: Run, source: Path, tmp_path: Path) -> None:
    label = ("vector", "label", "--model", "model.safetensors", "--data", "pictures", "--out", "labels.safetensors")
    # What is said on standard error comes after it.
    made, _ = json.JSONDecoder().raw_decode(run(*label, "--pairs", "3", "--players", "25", "--json"))
    assert (made["views"], made["pictures"]) == (15, 15)
    assert "split-half cosine" in run(*label, "--force", "--pairs", "3", "--players", "25")
    assert "labels.safetensors exists" in run(*label, code=2)
    shown = run("inspect", "labels.safetensors")
    assert "pairs 3, side 5" in shown
    train = ("vector", "train", "--model", "model.safetensors", "--labels", "labels.safetensors", *WEIGHTS)
    for out in ("a", "b"):
        run(*train, "--class-loss", "labels", "--learning-rate", "1e-3", "--out", f"{out}.safetensors")
    (first, card), (again, _) = (load_vector(tmp_path / f"{out}.safetensors") for out in ("a", "b"))
    assert first
    assert all(torch.equal(first[name], again[name]) for name in first | again)
    assert card.provenance[-1]["twin"] == "trained on the same batches"
    assert card.source == "pictures"
    assert "--pairs: the labels of" in run(*train, "--pairs", "3", "--out", "c.safetensors", code=2)
    assert "--limit: the labels of" in run(*train, "--limit", "3", "--out", "c.safetensors", code=2)


def test_a_readout_is_learned_unless_weights_are_asked_for(run: Run, source: Path, tmp_path: Path) -> None:
    train = ("vector", "train", "--model", "model.safetensors", *SMALL, "--out", "v.safetensors")
    label = ("vector", "label", "--model", "model.safetensors", "--data", "pictures", "--precision", "fp32", *FEW)
    run(*label, "--out", "labels.safetensors")
    said = run(*train, "--labels", "labels.safetensors", "--learning-rate", "1e-3", "--model-out", "m.safetensors")
    assert "class-attention of the last 3 blocks with a readout" in said
    deltas, card = load_vector(tmp_path / "v.safetensors")
    assert deltas
    assert all(".attn." in name for name in deltas)
    assert card.evidence.readout
    bake = ("bake", "--target", "model.safetensors", "--vector", "v.safetensors", "--out", "b.safetensors")
    run(*bake, "--val", "pictures", "--alpha", "auto")
    assert "with a readout" in run("inspect", "b.safetensors")
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    (baked, _), (learned, _), (plain, _) = (load_model(tmp_path / f"{n}.safetensors") for n in ("b", "m", "model"))
    assert torch.equal(baked(images).heatmap, learned(images).heatmap)
    assert torch.equal(baked(images).logits, plain(images).logits)
    assert not torch.equal(baked(images).heatmap, plain(images).heatmap)

    run(*label, "--no-features", "--out", "few.safetensors")
    assert "found none" in run(*train, "--labels", "few.safetensors", "--force", code=2)
    labels = ("--data", "pictures", "--pairs", "3", "--players", "25", "--force")
    assert "--blocks: blocks is for learning weights" in run(*train, *labels, "--blocks", "2", code=2)
    assert "expected to learn readout or weights" in run(*train, *labels, "--learn", "head", code=2)
    assert "--class-loss: class_loss is for learning weights" in run(*train, *labels, "--class-loss", "labels", code=2)
    small = ("--model", "model.safetensors", "--data", "pictures", *SMALL, "--learning-rate", "1e-3")
    run("vector", "train", *small, "--pairs", "3", "--players", "25", "--out", "whole.safetensors")
    again, whole = load_vector(tmp_path / "whole.safetensors")
    assert all(torch.equal(again[name], deltas[name]) for name in again | deltas), "labels made on the way"
    assert whole.provenance[-1]["learned"] == "readout"
    assert "blocks" not in whole.provenance[-1]["options"]


def test_a_run_that_only_got_worse_is_said_to_have_learned_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    small = ("--model", "model.safetensors", "--data", str(source), *SMALL, "--pairs", "3", "--players", "25")
    train = ("vector", "train", *small, "--learning-rate", "1e3", "--out", "v.safetensors")
    said = run(*train)
    assert "(step 0)" in said
    assert "warning: no step was better than the start, so this vector changes nothing" in said
    assert "verdict: not learned" in said
    assert "next: edgex bake --target YOUR-MODEL --vector v.safetensors --check YOUR-PICTURES" in said
    assert not any(delta.any() for delta in load_vector(tmp_path / "v.safetensors").deltas.values())


def test_masks_teach_the_heatmaps_shape(run: Run, source: Path, tmp_path: Path) -> None:
    names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*.png"))]
    boxes = {name: [[20, 20, 70, 70]] for name in names[:-2]}
    (source / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    train = ("vector", "train", "--model", "model.safetensors", "--data", "pictures", "--supervision", "masks")
    said = run(
        *train, "--learn", "weights", "--blocks", "3", "--evidence-blocks", "3", "--steps", "24", "--batch-size", "8",
        "--crops", "2",
        "--learning-rate", "3e-3", "--class-weight", "0", "--precision", "fp32", "--out", "v.safetensors",
    )  # fmt: skip
    assert "masks: 26 crops of 13 pictures, 2 pictures without a mask left out" in said
    _, card = load_vector(tmp_path / "v.safetensors")
    assert card.supervision == "masks"
    assert card.evidence.scale == 1.0, "a shape says nothing of size"
    assert card.provenance[-1]["masks"] == {"crop_scale": 0.4, "seed": 0}
    errors = [row["held_out"] for row in card.metrics["history"]]
    assert min(errors) < errors[0] - 0.05
    assert "--pairs: pairs is for Shapley labels" in run(*train, "--pairs", "3", "--out", "w.safetensors", code=2)
    assert "masks folder for each" in run(*train, "--masks", "a", "--masks", "b", "--out", "w.safetensors", code=2)
    assert "folder of masks at absent" in run(*train, "--masks", "absent", "--out", "w.safetensors", code=1)
    (source / "boxes.json").unlink()
    assert "expected masks or boxes" in run(*train, "--out", "w.safetensors", code=1)


def test_what_programs_read_is_json(run: Run) -> None:
    """A vector's history begins with a step that has no training error yet."""
    found = json.loads(run("vector", "info", "imagenet", "--json"), parse_constant=pytest.fail)
    assert found["metadata"]["metrics"]["history"][0]["train"] is None


def test_combine_scales_trims_and_stores(run: Run, tmp_path: Path) -> None:
    assert "add --keep, or leave it out" in run(
        "vector", "combine", "imagenet", "--scope", "vector", "--out", "o.safetensors", code=2
    )
    done = run("vector", "combine", "imagenet", "--dtype", "int8", "--out", "small.safetensors", "--json")
    assert json.loads(done)["relative_error"] < 0.01
    trim = ("--method", "ties", "--keep", "0.2", "--scope", "vector", "--weight", "2", "--weight", "0.5")
    combine = ("vector", "combine", "imagenet", "small.safetensors")
    said = run(*combine, *trim, "--block-alpha", "6..11=0.5..1", "--alpha", "1.5", "--out", "merged.safetensors")
    assert "alpha 1.5" in said
    merged, card = load_vector(tmp_path / "merged.safetensors")
    kept = sum(int((delta != 0).sum()) for delta in merged.values()) / sum(d.numel() for d in merged.values())
    assert 0.1 < kept < 0.45
    assert card.provenance[-1]["options"]["block_alpha"]["6"] == 0.5
    assert "combine" in run("vector", "info", "merged.safetensors")
    run("bake", "--target", "cars", "--vector", "small.safetensors", "--out", "baked.safetensors")
    for arguments, message in (
        (("--keep", "2"), "--keep: expected a share to keep above 0"),
        (("--method", "mean"), "expected the method sum, average, ties"),
        (("--block-alpha", "six=1"), "block factors like"),
        (("--block-alpha", "12=1"), "blocks 0 to 11"),
        (("--weight", "1"), "--weight: expected one weight for each of 2 vectors"),
        (("--dtype", "int4"), "--dtype: expected fp32, fp16, int8"),
    ):
        assert message in run(*combine, *arguments, "--out", "x.safetensors", code=2)
    assert not (tmp_path / "x.safetensors").exists()


def test_bake_warns_of_a_target_that_the_vector_failed_on(run: Run, tmp_path: Path) -> None:
    run("vector", "combine", "imagenet", "--out", "v.safetensors")
    worse = TransferRecord("cars", -0.02, 0.005, 100, -0.34, 1.0)
    write_records(tmp_path / "v.safetensors", [worse, TransferRecord("flowers", 0.04, 0.006, 24, 0.42, 1.0)])
    shown = run("vector", "info", "v.safetensors")
    assert "  cars: gain -0.0200 [-0.0299, -0.0101], n 100, accuracy -0.34 points, alpha 1 - FAILED" in shown
    assert "  flowers: gain +0.0400 [+0.0276, +0.0524]" in shown
    said = run("bake", "--target", "cars", "--vector", "v.safetensors", "--out", "baked.safetensors")
    assert "warning: the vector was measured to fail on 'cars': heatmaps got worse" in said
    bake = ("bake", "--target", "cars", "--vector", "imagenet", "--out", "other.safetensors", "--json")
    assert json.loads(run(*bake))["warnings"] == []


def test_names_work_folders_and_half_precision_are_what_was_asked_for(run: Run, source: Path, tmp_path: Path) -> None:
    label = ("vector", "label", "--model", "model.safetensors", "--data", "pictures", "--precision", "fp32", *FEW)
    made = []
    for out, options in (("a", ("--cache-dir", "kept")), ("b", ("--cache-dir", "kept", "--name", "mine"))):
        run(*label, *options, "--out", f"{out}.safetensors")
        made.append([(path, path.stat().st_mtime_ns) for path in sorted((tmp_path / "kept" / "labels").iterdir())])
    assert made[0]
    assert made[0] == made[1], "labels that lie there are used, not made again"
    assert not list(tmp_path.glob("*.work"))
    names = [json.loads(run("inspect", f"{out}.safetensors", "--json"))["metadata"]["name"] for out in ("a", "b")]
    assert names == ["a", "mine"]

    train = ("vector", "train", "--model", "model.safetensors", "--labels", "b.safetensors", *WEIGHTS, *BY_LABELS)
    run(*train, "--out", "whole.safetensors")
    run(*train, "--dtype", "fp16", "--name", "small", "--out", "half.safetensors")
    assert not list(tmp_path.glob("*.work"))
    shown = json.loads(run("vector", "info", "half.safetensors", "--json"))
    assert (shown["metadata"]["name"], shown["dtypes"]) == ("small", ["float16"])
    assert json.loads(run("vector", "info", "whole.safetensors", "--json"))["dtypes"] == ["float32"]
    (whole, card), (stored, _) = (load_vector(tmp_path / f"{out}.safetensors") for out in ("whole", "half"))
    assert card.name == "whole"
    assert whole.keys() == stored.keys()
    assert all(torch.equal(stored[name], delta.half().float()) for name, delta in whole.items())


@pytest.mark.parametrize("command", ["label", "train"])
@pytest.mark.parametrize("device", ["abacus", "meta", "cuda:x"])
def test_devices_that_are_none_are_refused(run: Run, source: Path, tmp_path: Path, command: str, device: str) -> None:
    asked = ("vector", command, "--model", "model.safetensors", "--data", "pictures", "--out", "o.safetensors")
    message = run(*asked, "--device", device, code=2)
    assert f"expected device auto, cpu or cuda[:<n>], found '{device}'" in message
    if not torch.cuda.is_available():
        assert "torch sees no GPU here: use 'cpu'" in run(*asked, "--device", "cuda", code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "pictures"]
