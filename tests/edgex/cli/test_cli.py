"""The command line as a user meets it: exit codes, one-line errors, results on stdout, nothing half-written."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex import samples
from edgex.cli import main
from edgex.runtime import decode_heatmap
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


def check_places(picture: Path, overlay: Path, heatmap: np.ndarray, seen: list[float]) -> None:
    """The overlay differs from its picture where the heatmap is positive, and only there: neither turned nor mirrored.

    Computed from the two files and the numbers alone: the mean change in each patch is correlated with the evidence.
    """
    before, after = (np.asarray(Image.open(path).convert("RGB")).astype(float) for path in (picture, overlay))
    assert after.shape == before.shape
    change = np.abs(after - before).mean(axis=2)
    top, left, bottom, right = seen
    rows, columns = heatmap.shape
    ys, xs = np.linspace(top, bottom, rows + 1).round().astype(int), np.linspace(left, right, columns + 1).astype(int)
    patches = np.array([[change[a:b, c:d].mean() for c, d in pairwise(xs)] for a, b in pairwise(ys)])
    evidence = np.maximum(heatmap, 0)
    turned = [np.rot90(side, quarter) for side in (evidence, evidence.T) for quarter in range(4)]
    right_way, *wrong_ways = [np.corrcoef(each.ravel(), patches.ravel())[0, 1] for each in turned]
    assert right_way > 0.5
    assert max(wrong_ways) < right_way - 0.2
    outside, border = np.ones_like(change, bool), 4
    first_row, first_column = max(math.floor(top) - border, 0), max(math.floor(left) - border, 0)
    outside[first_row : math.ceil(bottom) + border, first_column : math.ceil(right) + border] = False
    assert not change[outside].any(), "the model has not seen it"


def test_the_main_job_as_the_readme_has_it(run: Run, tmp_path: Path) -> None:
    baked = run("bake", "--target", "cars", "--vector", "imagenet")
    assert "cars-baked.safetensors" in baked.stdout
    exported = run("export", "--onnx", "fp32")
    assert "exporting the newest bake" in exported.stderr
    assert (tmp_path / "cars.onnx").is_file()
    again = run("export", "--onnx", "fp32", code=2)
    assert "--out: cars.onnx exists" in error_line(again)

    car = samples.paths("cars")[0]
    found = json.loads(run("predict", "cars.onnx", str(car), "--json", "--overlay", "overlays").stdout)
    (overlay,) = (tmp_path / "overlays").glob("*.png")
    heatmap = decode_heatmap(found[0]["heatmap"])
    check_places(car, overlay, heatmap, found[0]["seen"])
    straight = json.loads(run("predict", str(tmp_path / "home/zoo/cars-baked.safetensors"), str(car), "--json").stdout)
    assert [label for label, _ in found[0]["top"]] == [label for label, _ in straight[0]["top"]]
    scores = [[probability for _, probability in each["top"]] for each in (found[0], straight[0])]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
    assert found[0]["explained"]["logit"] == pytest.approx(straight[0]["explained"]["logit"], abs=1e-3)
    assert found[0]["base"] == pytest.approx(straight[0]["base"], abs=1e-3)
    assert found[0]["seen"] == straight[0]["seen"]
    np.testing.assert_allclose(decode_heatmap(straight[0]["heatmap"]), heatmap, atol=1e-2 * np.abs(heatmap).max())

    for name, kind in (("cars.onnx", "onnx"), ("cars-baked", "model"), ("imagenet", "vector")):
        described = json.loads(run("inspect", name, "--json").stdout)
        assert described["file_kind"] == kind
    text = run("inspect", "cars-baked").stdout
    assert "vector imagenet" in text
    assert "target cars" in text
    digest = json.loads(run("inspect", "cars", "--json").stdout)["metadata"]["sha256"]
    assert f"target cars {digest}" in text
    assert re.search(rf"sha256 in provenance +{digest}", run("inspect", "cars").stdout)
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
    assert found["onnxruntime_telemetry"] == "off"
    states = {"onnxruntime": "off", "huggingface_hub": "off"}
    assert found["telemetry"] == states | dict.fromkeys(("torch", "timm", "open_clip", "OpenVINO's provider"), "none")
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
    learn = ("vector", "train", "--model", "source.safetensors", "--data", str(data / "train"), "--players", "25")
    size = ("--pairs", "4", "--steps", "4", "--blocks", "2", "--batch-size", "8")
    small = (*size, "--learn", "weights", "--precision", "fp32")
    weights = ("--explain-weight", "0.5", "--class-weight", "1.5", "--evidence-blocks", "3")
    run(*learn, *small, *weights, "--out", "my-vector.safetensors", "--model-out", "self.safetensors")
    learned = json.loads(run("vector", "info", "my-vector.safetensors", "--json").stdout)["metadata"]
    assert learned["evidence"]["blocks"] == 3
    chosen = learned["provenance"][-1]["options"]
    assert (chosen["explain_weight"], chosen["class_weight"], chosen["blocks"]) == (0.5, 1.5, 2)
    bake = ("bake", "--target", "my.safetensors", "--vector", "my-vector.safetensors")
    run(*bake, "--alpha", "0.8", "--out", "baked.safetensors")
    done = run(*bake, "--alpha", "auto", "--val", str(data / "val"), "--max-drop", "50", "--out", "auto.safetensors")
    assert "<- chosen" in done.stderr
    found = json.loads(
        run("eval", "baked.safetensors", "--data", str(data / "val"), "--unbaked", "my.safetensors", "--json").stdout
    )
    assert found["paired_gain"]["n"] == 9
    assert set(found["models"]) == {"baked.safetensors", "my.safetensors"}
    assert "train" in run("inspect", "baked.safetensors").stdout


def test_wrong_usage_exits_with_2(run: Run, tmp_path: Path) -> None:
    assert "no model named 'carz' in the zoo; did you mean cars" in error_line(
        run("bake", "--target", "carz", "--vector", "imagenet", code=2)
    )
    assert "--val: alpha 'auto' needs labelled pictures" in error_line(
        run("bake", "--target", "cars", "--vector", "imagenet", "--alpha", "auto", code=2)
    )
    assert "number or 'auto'" in error_line(
        run("bake", "--target", "cars", "--vector", "imagenet", "--alpha", "much", code=2)
    )
    assert "no baked model yet" in error_line(run("export", "--onnx", "fp32", code=2))
    assert "precision" in error_line(run("export", "cars", "--onnx", "fp12", code=2))
    run("bake", "--no-such-option", code=2)


def test_files_that_are_no_artefacts_exit_with_1(run: Run, tmp_path: Path) -> None:
    from edgex.files import zoo

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


def test_a_bake_that_cannot_be_recorded_is_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = run("bake", "--target", "cars", "--vector", "imagenet", "--out", "out.safetensors")
    assert "warning: exporting needs this model's name, since the bake was not recorded: cannot write" in done.stderr
    assert run("inspect", "out.safetensors").stdout


def test_one_bad_picture_does_not_cost_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    good = samples.paths("imagenet-1k")[0]
    done = run("predict", "imagenet-1k", str(tmp_path / "bad.jpg"), str(good), code=1)
    assert "bad.jpg" in error_line(done)
    assert good.name in done.stdout


@pytest.fixture(scope="module")
def small(random_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights that was never baked."""
    from edgex.files.model_file import save_model

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


def test_a_passed_gate_prints_a_line_or_its_table(run: Run, small: Path) -> None:
    export = ("export", str(small), "--onnx", "fp32", "--image-size", "64", "--max-batch", "2", "--force")
    said = run(*export).stdout
    (line,) = [line for line in said.splitlines() if "gate passed: " in line]
    assert "all 12 metrics within their bounds (--verbose lists them): the same answer for 100%" in line
    assert "batch_error" not in said
    said = run(*export, "--verbose").stdout
    assert "gate passed: " in said and "batch_error" in said and "--verbose" not in said


def test_a_failed_gate_prints_its_table_and_writes_nothing(run: Run, small: Path, tmp_path: Path) -> None:
    done = run("export", str(small), "--onnx", "fp32", "--threshold", "logits_cosine=1.5", code=1)
    assert "does not match its model" in error_line(done)
    assert "gate FAILED" in done.stderr and "batch_error" in done.stderr
    assert not list(tmp_path.glob("*.onnx*"))


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--onnx", "fp32", "--trt", "fp16"), "expected one of --onnx PRECISION, --trt PRECISION, and", 2),
        (("--onnx", "fp32", "--opset", "17"), "opset from 18", 2),
        (("--onnx", "fp32", "--image-size", "100"), "patch size 16x16: the nearest is 96x96 or 112x112", 2),
        (("--onnx", "fp32", "--max-batch", "0"), "largest batch of at least 1", 2),
        (("--onnx", "int8", "--calibration", "absent"), "folder of pictures at absent", 1),
        (
            ("--onnx", "fp16", "--calibration", "absent"),
            "--calibration: pictures to calibrate with are for int8, found precision fp16",
            2,
        ),
        (("--onnx", "fp32", "--threshold", "sharpness=1"), "expected a gate metric", 2),
        (("--onnx", "fp32", "--threshold", "sum_error"), "METRIC=VALUE", 2),
        (("--onnx", "fp32", "--out", "taken.onnx"), "--out: taken.onnx exists already", 2),
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


def test_options_that_would_do_nothing_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ("import", "--arch", "timm/test_vit", "--classes", "a,b", "--pretrained", "default")
    for arguments, message in (
        ((*known, "--base-weights", "weights.pt"), "--base-weights: pretrained weights are their own base"),
        (("demo", "--rounds", "0"), "greater than or equal to 1"),
    ):
        monkeypatch.setattr(sys, "argv", ["edgex", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (
            ("bake", "--alpha", "auto", "--val", "named", "--max-drop", "nan"),
            "--max-drop: expected a largest drop of at least 0",
            2,
        ),
        (
            ("bake", "--alpha", "auto", "--val", "named", "--max-alpha", "inf"),
            "--max-alpha: expected a largest alpha from 0.25 to 100",
            2,
        ),
        (("bake", "--alpha", "nan"), "--alpha: expected a finite alpha, found nan", 2),
        (("bake", "--max-drop", "1"), "--max-drop: max_drop is for alpha 'auto'", 2),
        (("bake", "--device", "cpu"), "--device: device is for pictures that are measured", 2),
        (("train", "--seed", "-1"), "seed of at least 0", 2),
        (("train", "--learning-rate", "-1"), "learning rate above 0", 2),
        (("train", "--resize", "10"), "at least 160 px", 2),
        (("train", "--data", "empty"), "expected class folders", 1),
        (("train", "--data", "hollow"), "in every class folder, found none", 1),
        (("train", "--data", "torn"), "expected a picture", 1),
        (("train", "--weights", "pickle.pt"), "expected tensors by name, found settings under 'model'", 1),
        (("train", "--weights", "absent.pt"), "found nothing", 1),
        (("train", "--out", "file/below.safetensors"), "cannot write", 1),
        (("vector", "--limit", "0"), "limit of at least 1", 2),
        (("vector", "--learn", "weights", "--blocks", "99"), "at most 6 blocks", 2),
        (("vector", "--evidence-blocks", "99"), "evidence of 99 blocks, but the model has 6", 2),
        (("vector", "--alpha", "nan"), "finite alpha", 2),
        (("vector", "--data", "absent"), "folder of pictures at absent", 1),
        (("vector", "--out", "file/below.safetensors"), "cannot write", 1),
        (("import", "--classes", "@absent.txt"), "expected a file that can be read", 1),
        (("import", "--arch", "timm/resnet18"), "expected timm's VisionTransformer, Eva or Beit", 1),
        (("import", "--out", "file"), "--out: file exists already: choose another name", 2),
        (("import", "--arch", "timm/tset_vit"), "did you mean test_vit", 2),
        (("predict", "--provider", "tensorrt"), "--provider: a provider and its options are for exported files", 2),
        (("predict", "--provider-option", "device_id=1"), "--provider-option: a provider and its options are for", 2),
        (("predict", "--explain", "class 9"), "expected one of the model's 4 classes", 2),
    ],
)
def test_bad_input_is_one_line(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
    code: int,
) -> None:
    """In this process, since there are many: `main` is what the command runs."""
    import torch

    from edgex.files.model_file import load_model

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    picture_folder(tmp_path / "pictures", {"": 2})
    (tmp_path / "named").mkdir()
    shutil.copytree(tmp_path / "pictures" / "red disc", tmp_path / "named" / "class 0")
    for name in ("empty", "hollow/a", "torn/a", "torn/b"):
        (tmp_path / name).mkdir(parents=True)
    for path in ("torn/a/1.png", "torn/b/1.png", "torn/a/2.png", "file"):
        (tmp_path / path).write_text("no picture")
    torch.save(load_model(small).network.backbone.tensors(), tmp_path / "weights.pt")
    torch.save({"model": Path("code")}, tmp_path / "pickle.pt")
    picture = str(samples.paths()[0])
    defaults: dict[str, list[str]] = {
        "bake": ["bake", "--target", str(small), "--vector", "imagenet", "--force"],
        "train": ["train", "--data", "pictures", "--base", "timm/test_vit", "--weights", "weights.pt", "--out", "o.st"],
        "vector": ["vector", "train", "--model", str(small), "--data", "pictures", "--out", "o.st", "--players", "25"],
        "import": ["import", "weights.pt", "--arch", "timm/test_vit", "--classes", "a,b"],
        "predict": ["predict", str(small), picture],
    }
    if arguments[0] == "bake":
        vector = _vector_of(small, tmp_path / "vector.safetensors")
        defaults["bake"][4] = str(vector)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["edgex", *defaults[arguments[0]], *arguments[1:]])
    with pytest.raises(SystemExit) as exit_:
        main()
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgex: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert exit_.value.code == code
    left = [p for p in set(tmp_path.rglob("*")) - set(before) if p.is_file() and ".work" not in str(p)]
    assert not left


def _vector_of(model: Path, path: Path) -> Path:
    """A vector that fits a model."""
    import torch

    from edgex.files.model_file import load_model
    from edgex.files.vector_file import VectorCard, save_vector

    loaded, card = load_model(model)
    names = list(loaded.backbone.tensors())
    described = VectorCard(
        name="small",
        architecture=card.architecture,
        base=card.base,
        source="none",
        supervision="none",
        evidence=card.evidence,
        alpha=1.0,
        unchanged=tuple(names[1:]),
    )
    save_vector(
        path, {names[0]: 0.01 * torch.ones_like(loaded.backbone.tensors()[names[0]])}, described, dtype=torch.float32
    )
    return path


def test_a_device_without_torch_is_told_which_extra_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from edgex.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "bake", "--target", "cars", "--vector", "imagenet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install '.[bake]'" in error_line(done)


def test_baking_twice_needs_a_place_of_its_own(run: Run, tmp_path: Path) -> None:
    run("bake", "--target", "cars", "--vector", "imagenet")
    again = ("bake", "--target", "cars-baked", "--vector", "imagenet")
    assert "was baked already" in error_line(run(*again, code=2))
    assert "alpha in all: 2" in run(*again, "--out", "twice.safetensors").stdout
    described = json.loads(run("inspect", "twice.safetensors", "--json").stdout)["metadata"]
    assert described["alpha"] == 2 * 1.25, "twice the recommended one"
    assert "accuracy_test" not in described["metrics"]
    assert described["metrics"]["target"]["accuracy_test"]["n"] == 1176


def test_pictures_of_one_name_keep_their_overlays_apart(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(samples.paths("cars")[0], tmp_path / name / "x.jpg")
    run("predict", "cars", "a", "b", "--overlay", "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert "cannot write" in error_line(run("predict", "cars", "a", "--overlay", "a/x.jpg/out", code=1))


def test_the_demo_draws_every_sample(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--out", "demo", "--rounds", "1")
    drawn = {path.stem for path in (tmp_path / "demo").glob("*.png")}
    assert drawn == {path.stem for path in samples.FOLDER.glob("*.jpg")} | {"sheet"}
    assert "150 passes" in done.stdout


def test_an_import_says_which_weights_it_took(run: Run, tmp_path: Path) -> None:
    import timm
    import torch

    plain = timm.create_model("test_vit", num_classes=2).state_dict()
    averaged = {name: 2 * tensor for name, tensor in plain.items()}
    torch.save({"state_dict": plain, "state_dict_ema": averaged, "epoch": 3}, tmp_path / "c.pth.tar")
    arguments = ("import", "c.pth.tar", "--arch", "timm/test_vit", "--classes", "a,b", "--out", "m.safetensors")
    assert "weights taken from 'state_dict_ema'; the file also has 'state_dict'" in run(*arguments).stderr
    assert "weights c.pth.tar (state_dict_ema) " in run("inspect", "m.safetensors").stdout
    run(*arguments, "--weights-key", "state_dict", "--force")
    assert "weights c.pth.tar (state_dict) " in run("inspect", "m.safetensors").stdout
    refused = run(*arguments, "--weights-key", "ema", "--force", code=2)
    assert error_line(refused).startswith("edgex: error: --weights-key: c.pth.tar has no weights under 'ema', it has ")


def test_an_import_may_name_the_base_it_started_from(run: Run, tmp_path: Path) -> None:
    import timm
    import torch

    for name in ("base", "tuned"):
        torch.manual_seed(len(name))
        torch.save(timm.create_model("test_vit", num_classes=2).state_dict(), tmp_path / f"{name}.pt")
    common = ("--arch", "timm/test_vit", "--classes", "a,b")
    run("import", "base.pt", *common, "--out", "base.safetensors")
    run("import", "tuned.pt", *common, "--base-weights", "base.pt", "--out", "tuned.safetensors")
    bases = [
        json.loads(run("inspect", f"{name}.safetensors", "--json").stdout)["metadata"]["base"]
        for name in ("base", "tuned")
    ]
    assert bases[0] == bases[1]
