"""The benchmark on a small real model: rows, counts and ratios that must hold on any machine, and its refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgex.bench.latency import (
    Options,
    PlainSession,
    Report,
    Skipped,
    bare_batches,
    bench,
    logits_difference,
    normalised,
    tasks_of,
)
from edgex.errors import ArtefactError, UsageError
from edgex.runtime import Session

QUICK = Options(passes=12, players=(9,), rounds=2, repeats=3, batch=2)


@pytest.fixture(scope="module")
def files(random_model: Callable[..., Any], natural_pictures: Callable[..., Any], tmp_path_factory: Any) -> Path:
    """A folder with a model artefact, its fused file (batches of up to 4) and its plain classifier."""
    from edgex.bench.plain import export_plain
    from edgex.export.onnx import write_onnx
    from edgex.files.model_file import save_model

    folder: Path = tmp_path_factory.mktemp("bench")
    model, card = random_model("timm/test_vit", classes=7, alpha=1.0)
    size = card.preprocessing.image_size
    digest = save_model(folder / "model.safetensors", model, card)
    pictures = natural_pictures(4, size)
    write_onnx(model, card, folder / "fused.onnx", pictures=pictures, model_sha256=digest, max_batch=4)
    export_plain(model, size, folder / "plain.onnx")
    np.save(folder / "picture.npy", pictures[0])
    return folder


@pytest.fixture
def session(files: Path) -> Iterator[Session]:
    with Session(files / "fused.onnx", provider="cpu", threads=1) as session:
        yield session


@pytest.fixture
def picture(files: Path) -> np.ndarray:
    return np.load(files / "picture.npy")


@pytest.fixture(scope="module")
def report(files: Path) -> Report:
    with Session(files / "fused.onnx", provider="cpu", threads=1) as session:
        plain = PlainSession(files / "plain.onnx", session, 1, "fp32")
        return bench(session, plain, np.load(files / "picture.npy"), QUICK)


def test_every_method_is_timed_serial_and_in_its_best_batch(report: Report) -> None:
    rows = [row.to_dict() for row in report.rows]
    singles = [(row["method"], row["batch"]) for row in rows if row["method"] in ("plain", "fused")]
    assert singles == [("plain", 1), ("fused", 1), ("plain", 2), ("fused", 2)]
    best = min(report.batches, key=report.batches.__getitem__)
    assert set(report.batches) == {1, 2, 4}
    for method in ("captum", "shap", "passes"):
        assert [row["batch"] for row in rows if row["method"] == method] == sorted({1, best})
    assert {row["method"]: row["evaluations"] for row in rows} == {
        "plain": 1,
        "fused": 1,
        "captum": 12,
        "shap": 14,  # it plays the empty and the full coalition besides
        "passes": 12,
    }
    assert {row["precision"] for row in rows} == {"fp32"}
    assert all(row["ms"]["n"] == (6 if row["method"] in ("plain", "fused") else 2) for row in rows)
    assert [entry.name for entry in report.skipped] == ([] if best > 1 else ["12 passes and Kernel SHAP in batches"])


def test_the_figures_of_a_row_fit_together(report: Report) -> None:
    for row in (row.to_dict() for row in report.rows):
        for clock in ("ms", "cpu_ms"):
            low, high = row[clock]["quartiles"]
            assert 0 < low <= row[clock]["median"] <= high <= row[clock]["p95"] * (1 + 1e-4)
        if (row["method"], row["batch"]) in (("fused", 1), ("plain", 1)):
            assert row[f"over_{row['method']}"]["quartiles"] == [1, 1]
        if row["method"] in ("captum", "shap", "passes") and row["batch"] == 1:
            # Twelve or more passes through the same session take more CPU time than one, whatever the load.
            assert row["cpu_over_fused"]["median"] > 1
    json.dumps(report.to_dict())


def test_both_files_are_the_same_model(report: Report, files: Path, session: Session, picture: np.ndarray) -> None:
    assert report.plain_difference is not None
    assert report.plain_difference < 1e-4
    from edgex.models.self_explaining import normalise

    pixels = torch.from_numpy(picture)[None]
    expected = normalise(pixels, session.preprocessing.mean, session.preprocessing.std)
    np.testing.assert_allclose(normalised(session, picture, 2), expected.repeat(2, 1, 1, 1), atol=1e-5)


def test_without_a_plain_classifier_the_rest_still_runs(session: Session, picture: np.ndarray) -> None:
    missing = Skipped("plain classifier", "none given")
    tasks, skipped = tasks_of(session, missing, picture, QUICK, best_batch=4)
    assert skipped == [missing]
    assert "plain" not in {task.method for task in tasks}
    assert {task.batch for task in tasks} == {1, 2, 4}
    serial_only, reasons = tasks_of(session, missing, picture, QUICK, best_batch=1)
    assert {task.batch for task in serial_only if task.method not in ("plain", "fused")} == {1}
    assert "no batch is faster" in reasons[-1].reason


def test_batches_never_exceed_what_the_file_or_the_passes_allow(session: Session, picture: np.ndarray) -> None:
    assert set(bare_batches(session, picture, Options(passes=150), rounds=1)) == {1, 2, 4}


@pytest.mark.parametrize("name", ["passes", "rounds", "repeats", "batch"])
def test_options_below_their_least_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"expected {name} of at least"):
        Options(**{name: 0})  # type: ignore[arg-type]


def test_options_that_do_not_fit_the_model_are_refused(session: Session, picture: np.ndarray) -> None:
    missing = Skipped("plain classifier", "none given")
    with pytest.raises(UsageError, match="batch of at most 4, which the file was exported for, found 9"):
        tasks_of(session, missing, picture, Options(batch=9), best_batch=1)
    with pytest.raises(UsageError, match="square number of players"):
        tasks_of(session, missing, picture, Options(players=(50,)), best_batch=1)


def test_a_plain_classifier_of_another_kind_is_refused(
    files: Path, session: Session, picture: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(ArtefactError, match=r"one input float \[N, 3, 160, 160\], found"):
        PlainSession(files / "fused.onnx", session)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ArtefactError, match="text.onnx: onnxruntime cannot load it"):
        PlainSession(tmp_path / "text.onnx", session)

    onnx.save(colour_means(), tmp_path / "three.onnx")
    other = PlainSession(tmp_path / "three.onnx", session)
    with pytest.raises(ArtefactError, match=r"plain classifier of the 7 classes of .*found"):
        logits_difference(session, other, picture)


def colour_means() -> onnx.ModelProto:
    """A plain classifier of three classes: the mean of each channel."""
    helper = onnx.helper
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 160, 160])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3])
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    mean = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([mean], "means", [image], [logits], [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def edgex(folder: Path, *arguments: str, code: int = 0, before: str = "pass") -> subprocess.CompletedProcess[str]:
    program = f"import sys; {before}; from edgex.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "bench", *arguments],
        cwd=folder,
        env={**os.environ, "EDGEX_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done


WITHOUT_TORCH = "; ".join(
    (
        "sys.modules.update(dict.fromkeys(['torch', 'captum', 'safetensors', 'timm', 'onnx']))",
        "import importlib.util as u",
        "found = u.find_spec",
        "u.find_spec = lambda n, *a: None if n in ('torch', 'captum', 'shap') else found(n, *a)",
    )
)
FEW = ("--passes", "8", "--players", "9", "--rounds", "1", "--repeats", "2", "--threads", "1")


def test_the_command_names_what_a_device_without_torch_cannot_run(files: Path) -> None:
    done = edgex(files, "fused.onnx", *FEW, before=WITHOUT_TORCH)
    assert "fused, class and heatmap" in done.stdout
    assert "8 bare passes" in done.stdout
    assert "skipped: plain classifier: an exported file holds none: name its ONNX file (plain)" in done.stdout
    assert "skipped: Kernel SHAP by captum: needs the package torch: pip install '.[bench]'" in done.stdout
    assert "skipped: Kernel SHAP by shap: needs the package shap" in done.stdout
    assert re.search(r"bound: \d+ bare passes.* take as long as [\d.e+]+ fused passes", done.stdout)
    assert "round 1 of 1" in done.stderr


def test_the_command_exports_a_model_and_its_plain_classifier(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "model.safetensors", tmp_path / "model.safetensors")
    done = edgex(tmp_path, "model.safetensors", *FEW, "--precision", "fp16", "--json")
    found = json.loads(done.stdout)
    assert (found["precision"], found["provider"], found["passes"], found["threads"]) == ("fp16", "cpu", 8, 1)
    # What is compared with what it would be without edgex: fp16 with fp32 here, and every row says so.
    assert {(row["method"], row["precision"]) for row in found["rows"]} == {
        ("plain", "fp32"),
        *((method, "fp16") for method in ("fused", "captum", "shap", "passes")),
    }
    assert found["plain_logits_difference"] < 0.02
    assert found["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {path.name for path in tmp_path.iterdir()} <= {"model.safetensors", "home"}


def test_the_table_names_the_precision_of_each_row(files: Path) -> None:
    done = edgex(files, "fused.onnx", "--plain", "plain.onnx", *FEW, before=WITHOUT_TORCH)
    cells = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines() if line[:1] == "│"]
    precisions = {row[1]: row[2] for row in cells}
    assert precisions.pop("plain classifier, no heatmap") == "not known", "the file does not say"
    assert {"fused, class and heatmap", "8 bare passes"} <= set(precisions)
    assert set(precisions.values()) == {"fp32"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fused.onnx", "--players", "nine"), "--players: expected square numbers such as 49,196, found 'nine'"),
        (("fused.onnx", "--passes", "1"), "--passes: expected passes of at least 4, found 1"),
        (
            ("fused.onnx", "--precision", "int8"),
            "--precision: precision is for models that are exported here, found the file fused",
        ),
        (("fused.onnx", "--batch", "64"), "--batch: expected a batch of at most 4"),
        (
            ("fused.onnx", "--provider-option", "device_id"),
            "--provider-option: expected KEY=VALUE, such as device_id=1, found",
        ),
        (("fused.onnx", "--provider-option", "device_id=1"), "provider_options with the provider that they are for"),
        (("model.safetensors", "--plain", "plain.onnx"), "--plain: plain is for exported files"),
        (("model.safetensors", "--batch", "64"), "--batch: expected a batch of at most 32, found 64"),
        (("model.safetensors", "--precision", "fp12"), "--precision: expected fp32, fp16, int8, found 'fp12'"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_with_2(files: Path, arguments: tuple[str, ...], expected: str) -> None:
    from typer.testing import CliRunner

    from edgex.cli.application import app

    done = CliRunner().invoke(app, ["bench", *(str(files / a) if "." in a else a for a in arguments)])
    assert isinstance(done.exception, UsageError), done.output
    message = str(done.exception).replace(f"{files}/", "")
    assert expected in message


@pytest.mark.parametrize(
    ("precision", "provider", "forms"),
    [
        ("int8", "auto", {}),
        ("int8", "cpu", {}),
        ("int8", "openvino", {"int8_form": "qdq"}),
        ("fp16", "cuda", {"attention": "fused"}),
        ("fp16", "openvino", {}),
        ("fp32", "cuda", {}),
    ],
)
def test_what_bench_exports_suits_the_provider(precision: str, provider: str, forms: dict[str, str]) -> None:
    from edgex.bench.workflow import forms_for

    assert forms_for(precision, provider) == forms


def test_a_file_that_is_not_there_is_one_line(files: Path) -> None:
    done = edgex(files, "nothing.onnx", code=1)
    assert done.stderr.strip().splitlines()[-1].startswith("edgex: error: nothing.onnx: expected a fused model file")


def test_the_picture_that_was_named_is_explained(files: Path) -> None:
    done = edgex(files, "fused.onnx", *FEW, "--picture", "nothing.png", code=1)
    assert "nothing.png" in done.stderr.strip().splitlines()[-1]
