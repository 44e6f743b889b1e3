"""Half precision by `edgex.export.passes.half_precision` and by modelopt's AutoCast: the same graph, the same gate.

    pip install 'nvidia-modelopt[onnx]'      # its pins differ from edgex's: best in a virtual environment of its own
    python benchmarks/export_autocast.py --out export_autocast.json [--models ...] [--pictures 9]

AutoCast runs with its defaults, calibrated with two of the gate's pictures, and once more with the operators kept in
float32 that edgex keeps there. Both results are strongly typed graphs with the contract's inputs and outputs, judged
by the fp16 thresholds in onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from export_families import PACKAGES, load, teach, test_support

from edgex.bench.timing import machine
from edgex.errors import GateError
from edgex.export import graph
from edgex.export.gate import Reference, reference, run_gate
from edgex.export.graph_builder import Recipe, build_graph
from edgex.export.onnx_runner import OnnxRunner
from edgex.export.report import Stages

MODELS = ("timm/deit_tiny_patch16_224", "open_clip/ViT-B-32")
KEPT_FLOAT = ["LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "Sqrt", "ArgMax", "Cast"]


def candidates(model: Any, card: Any, pictures: np.ndarray, folder: Path) -> dict[str, Any]:
    """Label -> a maker of the half-precision graph."""
    from modelopt.onnx.autocast import convert_to_mixed_precision

    path = folder / "fp32.onnx"
    nothing = np.empty(0)
    ir.save(build_graph(model, card, Recipe(for_tensorrt=True), nothing, Stages(None)).graph, path)

    # Without data AutoCast draws its own, which fails for uint8 pictures.
    calibration = folder / "calibration.npz"
    np.savez(calibration, image=pictures[:2], explain_class=np.full(2, -1, dtype=np.int64))

    def autocast(**options: Any) -> ir.Model:
        return ir.from_proto(
            convert_to_mixed_precision(str(path), keep_io_types=True, calibration_data=str(calibration), **options)
        )

    return {
        "edgex": lambda: build_graph(model, card, Recipe("fp16", for_tensorrt=True), nothing, Stages(None)).graph,
        "autocast": autocast,
        "autocast, norms and reductions in fp32": lambda: autocast(op_types_to_exclude=KEPT_FLOAT),
    }


def judge(made: ir.Model, expected: Reference) -> dict[str, Any]:
    proto = ir.to_proto(made)
    kinds = Counter(node.op_type for node in made.graph.all_nodes())
    row: dict[str, Any] = {
        "nodes": sum(kinds.values()),
        "casts": kinds["Cast"],
        "weights_by_type": {name: round(share, 4) for name, share in graph.weight_shares(made).items()},
        "file_mb": round(proto.ByteSize() / 1e6, 1),
    }
    try:
        onnx.checker.check_model(proto, full_check=True)
        runner = OnnxRunner(proto.SerializeToString())
        gate = run_gate(runner, expected, precision="fp16", max_batch=4, runtime=runner.name)
    except (GateError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return row | {"passed": False, "error": str(error).splitlines()[0]}
    return row | {
        "passed": gate.passed,
        "failed": [metric.name for metric in gate.metrics if not metric.passed],
        "gate": {metric.name: float(f"{metric.value:.6g}") for metric in gate.metrics},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("export_autocast.json"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--pictures", type=int, default=9)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"machine": machine((*PACKAGES, "nvidia-modelopt")), "rows": []}
    for name in arguments.models:
        model, card, weights = load(name)
        pictures = test_support()._natural_pictures(arguments.pictures, card.preprocessing.image_size)
        if weights == "random":
            teach(model, card, pictures)
        expected = reference(model, card.preprocessing, pictures)
        with tempfile.TemporaryDirectory() as folder:
            for label, make in candidates(model, card, pictures, Path(folder)).items():
                try:
                    row = judge(make(), expected)
                except Exception as error:  # whatever the other library raises is its result here
                    row = {"passed": False, "error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                result["rows"].append({"model": name, "weights": weights, "by": label, **row})
                print(json.dumps(result["rows"][-1]), flush=True)
                arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
