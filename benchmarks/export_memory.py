"""Does the heatmap's memory grow with the number of classes? Peak memory of one batch, 10 against 1000 classes.

    python benchmarks/export_memory.py --out export_memory.json [--models timm/vit_base_patch16_224] [--batch 16]

A tensor of one float per picture, patch and class would add batch * patches * classes * 4 bytes (12.5 MB for 16
pictures, 196 patches and 1000 classes). Each measurement is a process of its own: the growth of its peak resident
memory over what it had with the file opened.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS
from export_families import PACKAGES, test_support

from edgex.bench.timing import machine

CLASSES = (10, 1000)
MODELS = ("timm/deit_tiny_patch16_224", "timm/vit_base_patch16_224")


def run_once(path: str, batch: int) -> float:
    """Growth of the peak in MB while one batch runs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[1:3]
    image = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far: Linux, proc(5)
    before = peak_kb()
    session.run(None, {"image": image, "explain_class": np.full(batch, -1, dtype=np.int64)})
    return (peak_kb() - before) / 1024


def peak_kb() -> int:
    """This process's own peak; getrusage's would still hold that of the process it was forked from."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def measure(name: str, batch: int, repeats: int) -> dict[str, Any]:
    import onnx_ir as ir

    from edgex.export.graph_builder import Recipe, build_graph
    from edgex.export.report import Stages

    growth: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for classes in CLASSES:
            model, card = test_support()._random_model(name, classes=classes)
            path = Path(folder) / f"{classes}.onnx"
            ir.save(build_graph(model, card, Recipe(), np.empty(0), Stages(None)).graph, path)
            command = [sys.executable, __file__, "--one", str(path), "--batch", str(batch)]
            growth[classes] = [
                float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                for _ in range(repeats)
            ]
    return {
        "model": name,
        "batch": batch,
        "peak_growth_mb": {str(classes): [round(v, 1) for v in values] for classes, values in growth.items()},
        "one_float_per_picture_patch_and_class_mb": round(batch * model.backbone.patches * CLASSES[1] * 4 / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "export_memory.json")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(run_once(arguments.one, arguments.batch))
        return
    start = machine(PACKAGES)
    rows = []
    for name in arguments.models:
        rows.append(measure(name, arguments.batch, arguments.repeats))
        print(json.dumps(rows[-1]))
        arguments.out.write_text(json.dumps({"machine": start, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
