"""The benchmark that learns readouts by several recipes runs on a CPU: a small model, drawn pictures, a few seconds."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pictures import draw

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_vectors.py"
RECIPES = ("all-blocks", "own-held", "own-and-boxes-0.1")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pack_gpu_vectors.py` writes, of a small base and drawn discs."""
    import timm

    folder = tmp_path_factory.mktemp("pack")
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=1000).state_dict(), folder / "weights.safetensors")
    places = [f"source/varied/{index}.png" for index in range(6)]
    for root in ("neu/train", "neu/tune", "neu/test", "marked/learn", "marked/tune"):
        places += [f"{root}/{colour} disc/{index}.png" for colour in ("red", "blue") for index in range(2)]
    pictures = folder / "pictures"
    for index, place in enumerate(places):
        path = pictures / place
        path.parent.mkdir(parents=True, exist_ok=True)
        draw("blue disc" if "blue" in place else "red disc", index, size=170).save(path)
    for root in ("neu/tune", "neu/test", "marked/learn", "marked/tune"):
        boxes = {
            path.relative_to(pictures / root).as_posix(): [[40, 40, 130, 120]] for path in pictures.glob(f"{root}/*/*")
        }
        (pictures / root / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    with tarfile.open(folder / "pictures.tar", "w") as archive:
        for path in sorted(pictures.rglob("*")):
            if path.is_file():
                archive.add(path, path.relative_to(pictures).as_posix())
    return folder


def test_recipes_are_learned_and_measured(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--pack", pack, "--out", tmp_path, "--base", "timm/test_vit", "--targets", "neu", "--device", "cpu")
    small = ("--seconds", 0.5, "--predictor-seconds", 0.5, "--pictures", 2, "--coalitions", 64, "--batch-size", 4)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, (*arguments, *small, "--recipes", *RECIPES))])
    spec = importlib.util.spec_from_file_location("gpu_vectors", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_vectors", module)
    spec.loader.exec_module(module)
    module.main()
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["kind"] == "done"
    learned: dict[str, Any] = {line["recipe"]["name"]: line for line in lines if line["kind"] == "learned"}
    assert tuple(learned) == RECIPES
    assert learned["all-blocks"]["factors"] == learned["own-held"]["factors"] == {}
    assert set(learned["own-and-boxes-0.1"]["factors"]) == {"weight", "blur"}
    assert "blocks.0.attn.qkv.weight" in load_file(tmp_path / "own-held.safetensors")
    measured = [line for line in lines if line["kind"] == "heatmaps" and line["recipe"] == "own-held"]
    assert {(line["alpha"], line["pictures"]) for line in measured} == {
        (alpha, name) for alpha in module.ALPHAS for name in ("imagenet", "neu:tune", "neu:test")
    }
    wanted = {"difference", "gain", "iou", "centred_mass", "relevance_mass", "relevance_mass_without_correction"}
    assert all(wanted <= line.keys() for line in measured)
