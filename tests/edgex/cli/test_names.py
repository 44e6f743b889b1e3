"""Names of every kind through the commands: none leads out of its folder, steers a terminal or stops a run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgex.files import tensor_file
from edgex.files.model_file import load_card, save_model
from pictures import picture_folder
from vectors import fitting

Run = Callable[..., str]
CLASSES = ("\x1b[2J../../x", "C", "C++", "fissur\u202e")


@pytest.fixture
def stranger(random_model: Callable[..., Any], tmp_path: Path) -> Path:
    """Files of a stranger, in "in": "model.safetensors" and "vector.safetensors", which fits it, with hostile names."""
    model, card = random_model("timm/test_vit", classes=4)
    (tmp_path / "in").mkdir()
    save_model(tmp_path / "in" / "model.safetensors", model, dataclasses.replace(card, name="../../x", classes=CLASSES))
    deltas = {"blocks.0.attn.qkv.weight": torch.full((192, 64), 1e-3)}
    tau = fitting(model, card, deltas, name="\x1b[31m../vector")
    tensor_file.write_tensors(tmp_path / "in" / "vector.safetensors", tau.to_metadata(), deltas)
    return tmp_path


def written(folder: Path) -> set[str]:
    """The files below a folder, other than what a stranger gave."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {
        "in/model.safetensors",
        "in/vector.safetensors",
    }


def test_a_models_own_name_leads_nowhere(run: Run, stranger: Path) -> None:
    (stranger / "deep" / "er").mkdir(parents=True)
    os.chdir(stranger / "deep" / "er")
    model, vector = "../../in/model.safetensors", "../../in/vector.safetensors"
    line = run("bake", "--target", model, "--vector", vector, code=2)
    assert line == (
        "edgex: error: --out: expected a target's name that can be that of a file, found '../../x', which has a '/'"
    )
    line = run("export", model, "--onnx", "fp32", code=2)
    assert line.startswith("edgex: error: --out: expected a model's name that can be that of a file, found '../../x'")
    assert written(stranger) == set()
    said = run("bake", "--target", model, "--vector", vector, "--out", "baked.safetensors")
    assert r"baked.safetensors: ../../x + 1.5 x \x1b[31m../vector" in said
    assert said.replace("\n", "").isprintable()
    assert "deep/er/baked.safetensors" in written(stranger)


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".x", "nul", "x\x1b[2J", "x" * 201])
def test_names_that_cannot_be_those_of_files_are_refused_before_work_starts(
    run: Run, name: str, tmp_path: Path, timm_vit: Any
) -> None:
    torch.save(timm_vit.state_dict(), tmp_path / "base.pt")
    picture_folder(tmp_path / "shapes", {"train": 2})
    before = {path.name for path in tmp_path.iterdir()}
    common = ("--name", name)
    for command in (
        ("train", "--data", "shapes", "--base", "timm/test_vit", "--weights", "base.pt", "--out", "out.safetensors"),
        ("import", "base.pt", "--arch", "timm/test_vit", "--classes", "a,b,c"),
        ("vector", "label", "--model", "cars", "--data", "shapes", "--out", "out.safetensors"),
        ("vector", "train", "--model", "cars", "--data", "shapes", "--out", "out.safetensors"),
        ("vector", "combine", "imagenet", "--out", "out.safetensors"),
    ):
        line = run(*command, *common, code=2)
        assert "--name: expected a name that can be that of a file, found " in line
        assert line.isprintable()
    assert {path.name for path in tmp_path.iterdir()} <= {*before, "home"}


def test_hostile_names_of_classes_and_pictures_stop_nothing(
    run: Run, stranger: Path, natural_pictures: Callable[..., np.ndarray]
) -> None:
    names = [os.fsdecode(b"caf\xe9.png"), "a\x1b[2Jb.png", "x" * 250 + ".png", "caf.png"]
    (stranger / "pictures").mkdir()
    for name, pixels in zip(names, natural_pictures(4, (160, 160)), strict=True):
        Image.fromarray(pixels).save(stranger / "pictures" / name)
    said = run("predict", "in/model.safetensors", "pictures", "--overlay", "overlays", "--top", "4")
    assert said.replace("\n", "").isprintable()
    assert r"caf\udce9.png: " in said and r"\x1b[2J../../x" in said and r"fissur\u202e" in said
    assert len(written(stranger / "overlays")) == 4
    found = json.loads(run("predict", "in/model.safetensors", "pictures", "--json", "--top", "4"))
    assert {Path(entry["picture"]).name for entry in found} == set(names)
    assert {label for label, _ in found[0]["top"]} == set(CLASSES)
    for name, component in (("C", "c-1"), ("c++", "c-2"), ("3", "fissur"), ("0", "2j-x")):
        run("predict", "in/model.safetensors", "pictures/caf.png", "--explain", name, "--overlay", f"one-{component}")
        assert written(stranger / f"one-{component}") == {f"caf.{component}.png"}
    for command in (("inspect", "in/model.safetensors"), ("inspect", "in/model.safetensors", "--json")):
        assert run(*command).replace("\n", "").isprintable()


def test_overlays_never_replace_each_other(run: Run, stranger: Path, natural_pictures: Callable[..., Any]) -> None:
    (pixels,) = natural_pictures(1, (160, 160))
    paths = [stranger / folder / name for folder, name in (("a", "p.png"), ("b", "p.png"), ("c", "p.0.png"))]
    for path in paths:
        path.parent.mkdir()
        Image.fromarray(pixels).save(path)
    run("predict", "in/model.safetensors", *map(str, paths), "--explain", "C", "--overlay", "out")
    assert written(stranger / "out") == {"p.0.c-1.png", "p.1.c-1.png", "p.0.2.c-1.png"}


def test_an_imported_model_is_named_by_a_file_that_has_a_name(run: Run, tmp_path: Path, timm_vit: Any) -> None:
    weights = os.fsdecode(b"caf\xe9.pt")
    torch.save(timm_vit.state_dict(), tmp_path / "base.pt")
    (tmp_path / "base.pt").rename(tmp_path / weights)
    line = run("import", weights, "--arch", "timm/test_vit", "--classes", "a,b,c", code=2)
    assert r"--name: expected a name that can be that of a file, found 'caf\udce9'" in line
    run("import", weights, "--arch", "timm/test_vit", "--classes", "a,\ufeffb ,cafe\u0301", "--name", "mine")
    card, _ = load_card(tmp_path / "mine.safetensors")
    assert (card.name, card.classes, card.base.name) == ("mine", ("a", "b", "caf\u00e9"), r"caf\udce9")
    assert run("inspect", "mine.safetensors").replace("\n", "").isprintable()
