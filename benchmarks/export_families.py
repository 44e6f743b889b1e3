"""Exports each model family for real: does it pass the gate, what does a pass cost over the plain classifier, how much
time, memory and disk does it take?

    python benchmarks/export_families.py --out export_families.json [--precision fp32 "int8 static"] [--only NAME ...]

Every export runs in a process of its own, so that its peak memory is its own, under the gate's own thresholds.
int8 is tried in both forms, dynamic and static. Weights are random except where DeiT-tiny's real ones are at hand in
../shared/weights; a random model's first classes are then prototypes of the gate's pictures, for among a thousand
random classes the best two are so close that any rounding swaps them, which no trained classifier does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS

from edgex.bench.timing import machine

ROOT = Path(__file__).resolve().parents[1]
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DeiT": ("timm/deit_tiny_patch16_224", {}),
    "DeiT, distilled": ("timm/deit_tiny_distilled_patch16_224", {}),
    "ViT-S/16": ("timm/vit_small_patch16_224", {}),
    "ViT-B/16 (torchvision's vit_b_16)": ("timm/vit_base_patch16_224", {}),
    "DINOv2 ViT-S/14": ("timm/vit_small_patch14_dinov2", {"image_size": 224, "pooling": "token+avg"}),
    "DINOv2 ViT-S/14, registers": ("timm/vit_small_patch14_reg4_dinov2", {"image_size": 224, "pooling": "token"}),
    "DINOv3 ViT-S/16": ("timm/vit_small_patch16_dinov3", {}),
    "EVA-02 Ti/14": ("timm/eva02_tiny_patch14_224", {}),
    "BEiT-B/16": ("timm/beit_base_patch16_224", {}),
    "SigLIP ViT-B/16": ("timm/vit_base_patch16_siglip_224", {}),
    "SigLIP ViT-B/16, open_clip": ("open_clip/ViT-B-16-SigLIP", {}),
    "CoCa ViT-B/32": ("open_clip/coca_ViT-B-32", {}),
    "CLIP ViT-B/32": ("open_clip/ViT-B-32", {}),
    "CLIP ViT-B/16": ("open_clip/ViT-B-16", {}),
    "CLIP ViT-L/14": ("open_clip/ViT-L-14", {}),
}
"""Label -> architecture, and what it is built with."""
PICTURES = 9
ROUNDS = 12
PRECISIONS = ("fp32", "fp16", "int8 dynamic", "int8 static")
PACKAGES = ("numpy", "torch", "timm", "open_clip_torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
# How far a prototype's logit lies above its other classes': about what trained classifiers are sure of.
MARGIN = 8.0


def test_support() -> Any:
    """The tests' makers of models and pictures."""
    spec = importlib.util.spec_from_file_location("support", ROOT / "tests" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(label: str, classes: int = 1000) -> tuple[Any, Any, str]:
    """Model, card and which weights it has."""
    support = test_support()
    name, options = MODELS[label]
    if name == "timm/deit_tiny_patch16_224" and (support.SHARED / "weights").is_dir():
        return *support._deit_tiny(support.SHARED), "ImageNet"
    return *support._random_model(name, classes=classes, alpha=1.0, **options), "random"


def teach(model: Any, card: Any, pictures: np.ndarray) -> None:
    """Makes the first classes of a random model prototypes of pictures uint8 [N, H, W, 3], in place.

    A linear head's row is the picture's centred feature, scaled so that its own logit is MARGIN; a cosine head's rows
    have length 1.
    """
    import torch

    from edgex.bench.plain import PlainClassifier
    from edgex.models.self_explaining import normalise

    plain = PlainClassifier(model)
    image = normalise(torch.from_numpy(pictures), card.preprocessing.mean, card.preprocessing.std)
    with torch.no_grad():
        features = torch.cat([plain.features(one[None]) for one in image])
        centred = features - features.mean(dim=0)
        rows = model.head.weight[: len(pictures)]
        if model.head.kind == "cosine":
            rows.copy_(centred / centred.norm(dim=1, keepdim=True))
        else:
            rows.copy_(MARGIN * centred / centred.square().sum(dim=1, keepdim=True))
            model.head.bias[: len(pictures)] = -(rows @ features.mean(dim=0))
            # The other classes stay where they are, below the prototypes.
            model.head.weight[len(pictures) :] *= 0.3
            model.head.bias[len(pictures) :] = -MARGIN / 4
    model.freeze()


def over_plain(model: Any, fused: Path, picture: np.ndarray, precision: str, folder: Path) -> dict[str, Any] | None:
    """Paired ratio of one fused pass to one of the plain classifier, exported as its library's users would.

    On one thread. The plain classifier has the same precision by onnxruntime's own tools with their defaults, so that
    its int8 is dynamic, also where the fused file's is static. None where onnxruntime crashes on the file that its own
    converter made, as on open_clip's own towers in fp16.
    """
    from edgex.bench.latency import PlainSession, normalised
    from edgex.bench.plain import export_plain, plain_fp16, plain_int8
    from edgex.bench.timing import Contender, ratio, take_turns
    from edgex.runtime import Session

    session = Session(fused, "cpu", threads=1)
    path = folder / "plain.onnx"
    export_plain(model, session.preprocessing.image_size, path)
    if precision != "fp32":
        other = folder / f"plain-{precision}.onnx"
        (plain_fp16 if precision == "fp16" else plain_int8)(path, other)
        path = other
    if not opens(path):
        return None
    plain, pixels = PlainSession(path, session, threads=1), normalised(session, picture, 1)
    images, explain = picture[np.newaxis], np.full(1, -1)
    contenders = [
        Contender("fused", lambda: session.run(images, explain), calls=2),
        Contender("plain", lambda: plain.run(pixels), calls=2),
    ]
    samples = take_turns(contenders, ROUNDS)
    found = ratio(samples["fused"].cpu, samples["plain"].cpu).to_dict()
    return {
        "median": found["median"],
        "quartiles": found["quartiles"],
        "plain_ms": float(np.median(samples["plain"].cpu)),
    }


def opens(path: Path) -> bool:
    """Whether onnxruntime opens a file, tried in another process, which may crash."""
    script = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    return subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True).returncode == 0


def measure(label: str, precision: str) -> dict[str, Any]:
    from edgex.export.onnx import write_onnx
    from edgex.export.onnx_runner import OnnxRunner

    model, card, weights = load(label)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pictures = test_support()._natural_pictures(PICTURES, card.preprocessing.image_size)
    if weights == "random":
        teach(model, card, pictures)
    precision, _, form = precision.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = write_onnx(
            model,
            card,
            Path(folder) / "model.onnx",
            pictures=pictures,
            model_sha256="0" * 64,
            precision=precision,  # type: ignore[arg-type]
            # Calibrated with other pictures than it is gated on.
            calibration=test_support()._natural_pictures(8, card.preprocessing.image_size, seed=1)
            if form == "static"
            else None,
        )
        total = time.perf_counter() - start
        start = time.perf_counter()
        OnnxRunner(report.path)
        opened = time.perf_counter() - start
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        fused_over_plain = over_plain(model, report.path, pictures[0], precision, Path(folder))
    assert report.gate is not None
    return {
        "family": label,
        "model": MODELS[label][0],
        "pooling": card.architecture.pooling,
        "weights": weights,
        "precision": f"{precision} {form}".strip(),
        "parameters_million": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "export_seconds": round(total, 1),
        "load_seconds": round(opened, 2),
        "peak_memory_mb": peak,
        "memory_before_mb": round(before),
        "file_mb": round(report.size / 1e6, 1),
        "latency_ms": round(report.latency_ms or 0, 1),
        "fused_over_plain": fused_over_plain,
        "nodes": sum(report.nodes.values()),
        "weights_by_type": {k: round(v, 4) for k, v in report.weights.items()},
        "kept_float": [impact.product for impact in report.impacts if impact.kept_float],
        "gate": {metric.name: float(f"{metric.value:.6g}") for metric in report.gate.metrics},
        "thresholds": {metric.name: metric.threshold for metric in report.gate.metrics},
        "seconds": {stage: round(seconds, 2) for stage, seconds in report.seconds.items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| family | the head reads | precision | gate | one pass over the plain classifier's | peak MB | file MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['family']} | | {row['precision']} | {row['error']} | | | |")
            continue
        lines.append(
            f"| {row['family']} | {row['pooling']} | {row['precision']} | passed | "
            f"{in_words(row['fused_over_plain'])} | {row['peak_memory_mb']} | {row['file_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def in_words(over: dict[str, Any] | None) -> str:
    """Median and quartiles of a ratio to the plain classifier."""
    if over is None:
        return "onnxruntime crashes on its own file of the plain one"
    low, high = over["quartiles"]
    return f"{over['median']:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "export_families.json")
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--only", nargs="+", default=list(MODELS))
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "PRECISION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    start = machine(PACKAGES)
    rows = []
    for name in arguments.only:
        for precision in arguments.precision:
            command = [sys.executable, __file__, "--one", name, precision]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                said = run.stderr.strip().splitlines() or [f"ended with exit code {run.returncode}"]
                rows.append({"family": name, "precision": precision, "error": said[-1]})
                print(f"{name:32} {precision:13}: {rows[-1]['error']}", file=sys.stderr)
            else:
                rows.append(json.loads(run.stdout.splitlines()[-1]))
                row = rows[-1]
                print(
                    f"{name:32} {precision:13}  export {row['export_seconds']:6.1f} s  "
                    f"load {row['load_seconds']:5.2f} s  "
                    f"peak {row['peak_memory_mb']:5d} MB  file {row['file_mb']:7.1f} MB  {row['latency_ms']:6.1f} ms  "
                    f"over plain: {in_words(row['fused_over_plain'])}",
                    file=sys.stderr,
                )
            arguments.out.write_text(json.dumps({"machine": start, "rows": rows}, indent=2))
            arguments.out.with_suffix(".md").write_text(table(rows))


if __name__ == "__main__":
    main()
