"""The command line as a user meets it: exit codes, one-line errors, results on stdout, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex import samples
from pictures import picture_folder

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `edgex ...` in a folder of its own with a home of its own."""

    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "EDGEX_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", "from edgex.cli import main; main()", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        return done

    return call


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgex: error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_the_main_job_as_the_readme_has_it(run: Run, tmp_path: Path) -> None:
    baked = run("bake", "--target", "cars", "--vector", "imagenet")
    assert "cars-baked.safetensors" in baked.stdout
    exported = run("export", "--onnx", "fp32")
    assert "exporting the newest bake" in exported.stderr
    assert (tmp_path / "cars.onnx").is_file()
    again = run("export", "--onnx", "fp32", code=2)
    assert "--force" in error_line(again)

    car = samples.paths("cars")[0]
    found = json.loads(run("predict", "cars.onnx", str(car), "--json", "--overlay", "overlays").stdout)
    (overlay,) = (tmp_path / "overlays").glob("*.png")
    assert np.asarray(Image.open(overlay)).shape == np.asarray(Image.open(car)).shape
    straight = json.loads(run("predict", str(tmp_path / "home/zoo/cars-baked.safetensors"), str(car), "--json").stdout)
    assert found[0]["label"] == straight[0]["label"]

    for name, kind in (("cars.onnx", "onnx"), ("cars-baked", "model"), ("imagenet", "vector")):
        described = json.loads(run("inspect", name, "--json").stdout)
        assert described["file_kind"] == kind
    text = run("inspect", "cars-baked").stdout
    assert "vector imagenet" in text
    assert "target cars" in text
    assert "alpha" in text


def test_zoo_doctor_and_version(run: Run) -> None:
    assert {row["name"] for row in json.loads(run("zoo", "list", "--json").stdout)} == {
        "cars",
        "imagenet",
        "imagenet-1k",
    }
    assert Path(run("zoo", "path", "cars").stdout.strip()).is_file()
    assert "did you mean cars" in error_line(run("zoo", "path", "carz", code=2))
    found = json.loads(run("doctor", "--json").stdout)
    assert "CPUExecutionProvider" in found["providers"]
    assert "torch" in run("doctor").stdout
    assert run("--version").stdout.startswith("edgex ")
    assert json.loads(run("vector", "info", "imagenet", "--json").stdout)["file_kind"] == "vector"


def test_train_learn_bake_and_evaluate_ones_own(run: Run, tmp_path: Path) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=7).state_dict(), tmp_path / "base.pt")
    data = picture_folder(tmp_path / "shapes", {"train": 8, "val": 3})
    base = ("--base", "timm/test_vit", "--weights", "base.pt")
    done = run("train", "--data", str(data), *base, "--out", "my.safetensors", "--epochs", "2", "--precision", "fp32")
    assert "accuracy on val" in done.stdout
    run("import", "base.pt", "--arch", "timm/test_vit", "--classes", "a,b,c,d,e,f,g", "--out", "source.safetensors")
    learn = ("vector", "train", "--model", "source.safetensors", "--data", str(data / "train"), "--side", "5")
    small = ("--pairs", "4", "--steps", "4", "--blocks", "2", "--batch-size", "8", "--precision", "fp32")
    run(*learn, *small, "--out", "my-vector.safetensors", "--model-out", "self.safetensors")
    bake = ("bake", "--target", "my.safetensors", "--vector", "my-vector.safetensors")
    run(*bake, "--alpha", "0.8", "--out", "baked.safetensors")
    done = run(*bake, "--alpha", "auto", "--val", str(data / "val"), "--max-drop", "50", "--out", "auto.safetensors")
    assert "<- chosen" in done.stderr
    found = json.loads(
        run("eval", "baked.safetensors", "--data", str(data / "val"), "--compare", "my.safetensors", "--json").stdout
    )
    assert found["paired_gain"]["n"] == 9
    assert set(found["models"]) == {"baked.safetensors", "my.safetensors"}
    assert "train" in run("inspect", "baked.safetensors").stdout


def test_wrong_usage_exits_with_2(run: Run, tmp_path: Path) -> None:
    assert "no model named 'carz' in the zoo; did you mean cars" in error_line(
        run("bake", "--target", "carz", "--vector", "imagenet", code=2)
    )
    assert "--val FOLDER" in error_line(
        run("bake", "--target", "cars", "--vector", "imagenet", "--alpha", "auto", code=2)
    )
    assert "number or 'auto'" in error_line(
        run("bake", "--target", "cars", "--vector", "imagenet", "--alpha", "much", code=2)
    )
    assert "no baked model yet" in error_line(run("export", "--onnx", "fp32", code=2))
    assert "precision" in error_line(run("export", "cars", "--onnx", "fp12", code=2))
    run("bake", "--no-such-option", code=2)


def test_files_that_are_no_artefacts_exit_with_1(run: Run, tmp_path: Path) -> None:
    from edgex import zoo

    cars = zoo.resolve("cars", "model")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(cars.read_bytes()[:100_000])
    assert "not a whole safetensors file" in error_line(run("inspect", "torn.safetensors", code=1))
    changed = bytearray(cars.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(changed)
    bake = ("bake", "--vector", "imagenet", "--out", "out.safetensors", "--target")
    assert "changed or damaged" in error_line(run(*bake, "changed.safetensors", code=1))
    assert "found nothing" in error_line(run(*bake, "absent.safetensors", code=1))
    shutil.copy(zoo.resolve("imagenet", "vector"), tmp_path / "vector.safetensors")
    assert "expected an edgex model, found an edgex vector" in error_line(run(*bake, "vector.safetensors", code=1))
    (tmp_path / "file").write_text("")
    assert "cannot write" in error_line(
        run("bake", "--target", "cars", "--vector", "imagenet", "--out", "file/out.safetensors", code=1)
    )
    assert not (tmp_path / "out.safetensors").exists()


def test_one_bad_picture_does_not_cost_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    done = run("predict", "imagenet-1k", str(tmp_path / "bad.jpg"), str(samples.paths("imagenet-1k")[0]), code=1)
    assert "bad.jpg" in error_line(done)
    assert "cat.jpg" in done.stdout


@pytest.fixture(scope="module")
def small(random_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights that was never baked."""
    from edgex.checkpoint import save_model

    model, card = random_model("timm/test_vit", classes=4)
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_model(path, model, card)
    return path


def test_export_in_every_form(run: Run, small: Path, tmp_path: Path) -> None:
    done = run("export", str(small), "--onnx", "fp16", "--image-size", "96", "--max-batch", "3", "--json")
    assert "was not baked" in json.loads(done.stdout)["notes"][0]
    described = json.loads(run("inspect", "random.fp16.onnx", "--json").stdout)["metadata"]
    assert described["preprocessing"]["image_size"] == [96, 96]
    assert described["max_batch"] == 3
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: engines are not built for real")
    done = run("export", str(small), "--trt", "fp16", "--sm", "86,89")
    assert "built with tensorrt_rtx" in done.stderr
    assert json.loads(run("inspect", "random.fp16.engine", "--json").stdout)["file_kind"] == "engine"


def test_a_failed_gate_prints_its_table_and_writes_nothing(run: Run, small: Path, tmp_path: Path) -> None:
    done = run("export", str(small), "--onnx", "fp32", "--threshold", "logits_cosine=1.5", code=1)
    assert "does not match its model" in error_line(done)
    assert "gate FAILED" in done.stderr
    assert not list(tmp_path.glob("*.onnx*"))


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--onnx", "fp32", "--trt", "fp16"), "expected one of --onnx", 2),
        (("--onnx", "fp32", "--opset", "17"), "opset from 18", 2),
        (("--onnx", "fp32", "--image-size", "100"), "multiple of the patch size 16", 2),
        (("--onnx", "fp32", "--max-batch", "0"), "max batch of at least 1", 2),
        (("--onnx", "int8", "--calibration", "absent"), "folder of pictures at absent", 2),
        (("--onnx", "fp16", "--calibration", "absent"), "--calibration is for int8", 2),
        (("--onnx", "fp32", "--threshold", "sharpness=1"), "expected a gate metric", 2),
        (("--onnx", "fp32", "--threshold", "sum_error"), "METRIC=VALUE", 2),
        (("--onnx", "fp32", "--out", "taken.onnx"), "taken.onnx exists", 2),
        (("--onnx", "fp32", "--out", "taken.onnx/below.onnx"), "cannot write", 1),
    ],
)
def test_bad_export_arguments(
    run: Run, small: Path, tmp_path: Path, arguments: tuple[str, ...], message: str, code: int
) -> None:
    (tmp_path / "taken.onnx").write_text("taken")
    assert message in error_line(run("export", str(small), *arguments, code=code))
    assert (tmp_path / "taken.onnx").read_text() == "taken"
    assert not list(tmp_path.glob(".*part"))
