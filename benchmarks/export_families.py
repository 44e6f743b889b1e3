"""Exports each model family for real: does it pass the gate, how long does it take, how much memory and disk?

    python benchmarks/export_families.py --out export_families.json [--precision fp32 fp16 int8] [--only NAME ...]

Every export runs in a process of its own, so that its peak memory is its own. Weights are random except where
DeiT-tiny's real ones are at hand in ../shared/weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = (
    "timm/deit_tiny_patch16_224",
    "timm/vit_small_patch16_224",
    "timm/vit_base_patch16_224",
    "open_clip/ViT-B-32",
    "open_clip/ViT-B-16",
    "open_clip/ViT-L-14",
)
PICTURES = 9


def test_support() -> Any:
    """The tests' makers of models and pictures."""
    spec = importlib.util.spec_from_file_location("support", ROOT / "tests" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name: str, classes: int = 1000) -> tuple[Any, Any, str]:
    """Model, card and which weights it has."""
    support = test_support()
    if name == "timm/deit_tiny_patch16_224" and (support.SHARED / "weights").is_dir():
        return *support._deit_tiny(support.SHARED), "ImageNet"
    return *support._random_model(name, classes=classes, alpha=1.0), "random"


def measure(name: str, precision: str) -> dict[str, Any]:
    from edgex.export import export_onnx
    from edgex.export.runners import OnnxRunner

    model, card, weights = load(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pictures = test_support()._natural_pictures(PICTURES, card.preprocessing.image_size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = export_onnx(
            model,
            card,
            Path(folder) / "model.onnx",
            pictures=pictures,
            model_sha256="0" * 64,
            precision=precision,  # type: ignore[arg-type]
            # Random weights leave near ties between 1000 classes, which any rounding may swap.
            thresholds={"top1_agreement": 0.5} if weights == "random" and precision != "fp32" else None,
        )
        total = time.perf_counter() - start
        start = time.perf_counter()
        OnnxRunner(report.path)
        opened = time.perf_counter() - start
    assert report.gate is not None
    return {
        "model": name,
        "weights": weights,
        "precision": precision,
        "parameters_million": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "export_seconds": round(total, 1),
        "load_seconds": round(opened, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memory_before_mb": round(before),
        "file_mb": round(report.size / 1e6, 1),
        "latency_ms": round(report.latency_ms or 0, 1),
        "nodes": sum(report.nodes.values()),
        "weights_by_type": {k: round(v, 4) for k, v in report.weights.items()},
        "kept_float": [damage.product for damage in report.damages if damage.kept_float],
        "gate": {metric.name: metric.value for metric in report.gate.metrics},
        "seconds": {stage: round(seconds, 2) for stage, seconds in report.seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("export_families.json"))
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--only", nargs="+", default=list(MODELS))
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "PRECISION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    rows = []
    for name in arguments.only:
        for precision in arguments.precision:
            command = [sys.executable, __file__, "--one", name, precision]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                rows.append({"model": name, "precision": precision, "error": run.stderr.strip().splitlines()[-1]})
                print(f"{name:32} {precision}: {rows[-1]['error']}", file=sys.stderr)
            else:
                rows.append(json.loads(run.stdout.splitlines()[-1]))
                row = rows[-1]
                print(
                    f"{name:32} {precision}  export {row['export_seconds']:6.1f} s  load {row['load_seconds']:5.2f} s  "
                    f"peak {row['peak_memory_mb']:5d} MB  file {row['file_mb']:7.1f} MB  {row['latency_ms']:6.1f} ms",
                    file=sys.stderr,
                )
            arguments.out.write_text(json.dumps({"machine": platform.processor(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
