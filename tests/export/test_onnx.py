import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgex.errors import ArtefactError, GateError, UsageError
from edgex.export import ParityError
from edgex.export.onnx import write_onnx
from edgex.runtime.metadata import load
from export_checks import centred_of, gate_of, session


def test_contract_names_types_and_shapes(exported: Callable[[str], Any]) -> None:
    path, report = exported("fp32")
    file = session(path)
    assert [(v.name, v.type, v.shape) for v in file.get_inputs()] == [
        ("image", "tensor(uint8)", ["batch", 160, 160, 3]),
        ("explain_class", "tensor(int64)", ["explained"]),
    ]
    assert [(v.name, v.type, v.shape) for v in file.get_outputs()] == [
        ("logits", "tensor(float)", ["batch", 7]),
        ("heatmap", "tensor(float)", ["explained", 10, 10]),
        ("base", "tensor(float)", ["explained"]),
    ]
    onnx.checker.check_model(path, full_check=True)
    assert report.size == path.stat().st_size and gate_of(report).passed and not report.notes


def test_graph_has_no_leftovers_of_tracing(exported: Callable[[str], Any]) -> None:
    _, report = exported("fp32")
    assert sum(report.nodes.values()) < 400
    assert report.nodes.get("Shape", 0) <= 2
    assert report.weights == {"float": 1.0}


@pytest.mark.parametrize("kind", ["fp32", "fp16", "dynamic", "static"])
def test_every_batch_size_runs_and_heatmaps_add_up(
    exported: Callable[[str], Any], small_pictures: np.ndarray, kind: str
) -> None:
    path, _ = exported(kind)
    file = session(path)
    for count in (1, 2, 7, 8, 11):
        image = np.resize(small_pictures, (count, 160, 160, 3))
        explain = (np.arange(count) % 8 - 1).astype(np.int64)
        logits, heatmap, base = file.run(None, {"image": image, "explain_class": explain})
        assert logits.shape == (count, 7) and heatmap.shape == (count, 10, 10) and base.shape == (count,)
        assert np.abs(heatmap.sum((1, 2)) + base - centred_of(logits, explain)).max() < 1e-4


def test_heatmap_follows_picture_and_class(exported: Callable[[str], Any], small_pictures: np.ndarray) -> None:
    file = session(exported("fp32")[0])
    image = np.repeat(small_pictures[:1], 7, axis=0)
    _, heatmap, base = file.run(None, {"image": image, "explain_class": np.arange(7)})
    assert np.ptp(heatmap.std(axis=0)) > 1e-3 and len(np.unique(base)) == 7
    _, other, _ = file.run(None, {"image": small_pictures[1:2], "explain_class": np.zeros(1, dtype=np.int64)})
    assert np.abs(other - heatmap[:1]).max() > 1e-2


def test_metadata_is_what_the_runtime_reads(exported: Callable[[str], Any], small: Any) -> None:
    model, card = small
    for kind in ("fp32", "fp16", "dynamic", "static"):
        path, report = exported(kind)
        metadata, plan = load(path)
        assert plan is None and metadata.file_sha256 == report.sha256
        assert metadata.classes == card.classes and metadata.preprocessing == card.preprocessing
        assert metadata.precision == report.precision and metadata.model_sha256 == "ab" * 32
        assert metadata.alpha == 1.0 and metadata.grid == model.backbone.grid
        assert metadata.gate["passed"] is True
    entry = next(p.value for p in onnx.load(path).metadata_props if p.key == "edgex")
    assert json.loads(entry)["int8"]["form"] == "static"


def test_tampered_or_truncated_file_is_refused(exported: Callable[[str], Any], tmp_path: Path) -> None:
    data = bytearray(exported("fp32")[0].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tampered.onnx").write_bytes(data)
    with pytest.raises(ArtefactError, match="changed or"):
        load(tmp_path / "tampered.onnx")
    (tmp_path / "short.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtefactError):
        load(tmp_path / "short.onnx")


@pytest.mark.parametrize("name", ["timm/test_vit2", "open_clip/ViT-S-32"])
def test_average_pooling_and_clip(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path, name: str
) -> None:
    model, card = random_model(name, classes=4)
    pictures = natural_pictures(3, card.preprocessing.image_size)
    report = write_onnx(model, card, tmp_path / "m.onnx", pictures=pictures, model_sha256="0" * 64, max_batch=3)
    assert gate_of(report)["logits_max_abs"].value < 1e-5 and gate_of(report)["heatmap_error"].value < 1e-4
    assert "not baked" in report.notes[0]
    file = session(report.path)
    logits, heatmap, base = file.run(None, {"image": pictures, "explain_class": np.array([-1, 0, 3])})
    assert np.abs(heatmap.sum((1, 2)) + base - centred_of(logits, np.array([-1, 0, 3]))).max() < 1e-4
    shared = file.run(None, {"image": pictures[:1], "explain_class": np.array([0, 3])})
    each = file.run(None, {"image": pictures[[0, 0]], "explain_class": np.array([0, 3])})
    assert np.allclose(shared[1], each[1], atol=1e-5) and np.allclose(shared[2], each[2], atol=1e-5)


def test_real_weights_on_real_pictures(
    deit_tiny: Callable[[], Any], real_pictures: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model, card = deit_tiny()
    pictures = real_pictures(12)
    report = write_onnx(model, card, tmp_path / "m.onnx", pictures=pictures, model_sha256="0" * 64)
    assert gate_of(report).passed and gate_of(report)["heatmap_pearson_worst"].value > 0.99999
    explain = np.arange(12) * 83
    logits, heatmap, base = session(report.path).run(None, {"image": pictures, "explain_class": explain})
    assert np.abs(heatmap.sum((1, 2)) + base - centred_of(logits, explain)).max() < 1e-4


@pytest.mark.parametrize("opset", [18, 23])
def test_other_opsets(small: Any, small_pictures: np.ndarray, tmp_path: Path, opset: int) -> None:
    model, card = small
    report = write_onnx(
        model, card, tmp_path / "m.onnx", pictures=small_pictures[:2], model_sha256="0" * 64, opset=opset, max_batch=2
    )
    assert onnx.load(report.path).opset_import[0].version == opset
    assert ("Gelu" in report.nodes) == (opset >= 20)


def test_bad_arguments(small: Any, small_pictures: np.ndarray, tmp_path: Path) -> None:
    model, card = small

    def export(out: Path = tmp_path / "m.onnx", pictures: np.ndarray = small_pictures, **options: Any) -> Any:
        return write_onnx(model, card, out, pictures=pictures, model_sha256="0" * 64, **options)

    with pytest.raises(UsageError, match="largest batch of at least 1, found 0"):
        export(max_batch=0)
    with pytest.raises(UsageError, match="opset from 18 to 23, found 17"):
        export(opset=17)
    with pytest.raises(UsageError, match="expected fp32, fp16, int8, found 'fp8'"):
        export(precision="fp8")
    with pytest.raises(UsageError, match="expected plain, onnx, fused, found 'flash'"):
        export(attention="flash")
    with pytest.raises(UsageError, match="int8_form qdq, which is for other runtimes than onnxruntime, found fused"):
        export(precision="int8", int8_form="qdq", attention="fused")
    with pytest.raises(UsageError, match="expected uint8 pictures"):
        export(pictures=small_pictures[:, :96])
    with pytest.raises(UsageError, match="N >= 1"):
        export(pictures=small_pictures[:0])
    with pytest.raises(UsageError, match="names a file|the folder"):
        export(out=tmp_path)
    with pytest.raises(UsageError, match="found an empty array"):
        export(precision="int8", calibration=small_pictures[:0])
    for form in ("static", "qdq"):
        with pytest.raises(UsageError, match=f"{form} needs pictures to calibrate with"):
            export(precision="int8", int8_form=form)
    with pytest.raises(UsageError, match="gate metric"):
        export(thresholds={"typo": 1.0})
    (tmp_path / "there.onnx").write_bytes(b"kept")
    with pytest.raises(UsageError, match="exists already: choose another name, or replace it with force"):
        export(out=tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"kept"
    assert [p.name for p in tmp_path.iterdir()] == ["there.onnx"]


def test_failed_gate_writes_nothing(small: Any, small_pictures: np.ndarray, tmp_path: Path) -> None:
    model, card = small
    out = tmp_path / "m.onnx"
    out.write_bytes(b"older export")
    with pytest.raises(ParityError, match="fp16 file does not match .* logits_max_abs") as caught:
        write_onnx(
            model,
            card,
            out,
            pictures=small_pictures,
            model_sha256="0" * 64,
            precision="fp16",
            thresholds={"logits_max_abs": 0.0},
            force=True,
        )
    assert isinstance(caught.value, GateError) and not caught.value.gate.passed
    assert out.read_bytes() == b"older export" and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_onnxruntime_is_the_one_that_was_installed(exported: Callable[[str], Any]) -> None:
    assert onnxruntime.__version__ in exported("fp32")[1].gate.runtime


def test_a_full_disk_leaves_nothing_behind(small: Any, small_pictures: np.ndarray, tmp_path: Path) -> None:
    """A limit on file size makes every write past it fail, as a full disk does."""
    model, card = small
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(ArtefactError, match="cannot write .* nothing was written"):
            write_onnx(model, card, tmp_path / "m.onnx", pictures=small_pictures[:1], model_sha256="0" * 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(small: Any, small_pictures: np.ndarray, tmp_path: Path) -> None:
    model, card = small
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtefactError, match="cannot write"):
        write_onnx(model, card, tmp_path / "file" / "m.onnx", pictures=small_pictures[:1], model_sha256="0" * 64)


def test_the_same_model_gives_the_same_file(
    exported: Callable[[str], Any], random_model: Callable[..., Any], small_pictures: np.ndarray, tmp_path: Path
) -> None:
    """Traced anew, gated anew: byte for byte, metadata included."""
    model, card = random_model("timm/test_vit", classes=7, alpha=1.0)
    for kind in ("fp32", "static"):
        path, report = exported(kind)
        (tmp_path / f"{kind}.onnx").write_bytes(b"replaced, for it was asked for")
        again = write_onnx(
            model,
            card,
            tmp_path / f"{kind}.onnx",
            pictures=small_pictures,
            model_sha256="ab" * 32,
            precision=report.precision,
            thresholds={"top1_agreement": 0.7} if kind == "static" else None,
            calibration=small_pictures[:4] if kind == "static" else None,
            force=True,
        )
        assert again.sha256 == report.sha256 and again.path.read_bytes() == path.read_bytes()
