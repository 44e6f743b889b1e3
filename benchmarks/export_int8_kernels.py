"""Which of onnxruntime's CPU kernels multiplies a ViT's tokens fastest: why the int8 forms use the ones they use.

    python benchmarks/export_int8_kernels.py --out export_int8_kernels.json [--rounds 20]

Each shape is one product of DeiT-tiny or ViT-B on one 224 px picture, [tokens, K] times [K, M], bias included, float32
out. One thread; the least CPU time of all rounds, in microseconds, since other work only ever adds to it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from common import RESULTS
from onnx import TensorProto, helper, numpy_helper

from edgex.bench.timing import machine

SHAPES = ((197, 192, 576), (197, 192, 768), (197, 768, 192), (197, 768, 768), (197, 768, 3072), (50, 768, 3072))
# Products in one graph, so that each finds its weights where the others left them.
COPIES = 8
MICROSOFT = {"domain": "com.microsoft"}
BLOCK_SIZE = 64


def float32(k: int, m: int, rng: np.random.Generator) -> tuple[type, dict[str, np.ndarray], list[onnx.NodeProto]]:
    weights = {"w": rng.normal(size=(k, m)).astype(np.float32), "b": np.zeros(m, np.float32)}
    return np.float32, weights, [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", "pb", "y")]


def dynamic(k: int, m: int, rng: np.random.Generator) -> tuple[type, dict[str, np.ndarray], list[onnx.NodeProto]]:
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s", "z", "b"], ["y"], **MICROSOFT)
    return np.float32, _int8(k, m, rng), [node]


def calibrated(k: int, m: int, rng: np.random.Generator) -> tuple[type, dict[str, np.ndarray], list[onnx.NodeProto]]:
    codes: dict[str, np.ndarray] = {"xs": np.array(0.03, np.float32), "xz": np.array(128, np.uint8)}
    node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "xs", "s", "xz", "z", "b"], ["y"], **MICROSOFT)
    return np.uint8, _int8(k, m, rng) | codes, [node]


def symmetric(k: int, m: int, rng: np.random.Generator) -> tuple[type, dict[str, np.ndarray], list[onnx.NodeProto]]:
    _, weights, nodes = calibrated(k, m, rng)
    return np.int8, weights | {"xz": np.array(0, np.int8)}, nodes


def blocks(k: int, m: int, rng: np.random.Generator) -> tuple[type, dict[str, np.ndarray], list[onnx.NodeProto]]:
    count = -(-k // BLOCK_SIZE)
    weights: dict[str, np.ndarray] = {
        "w": rng.integers(0, 255, (m, count, BLOCK_SIZE), dtype=np.uint8),
        "s": np.full(m * count, 0.001, np.float32),
        "b": np.zeros(m, np.float32),
    }
    attributes: dict[str, Any] = {"K": k, "N": m, "bits": 8, "block_size": BLOCK_SIZE, "accuracy_level": 4}
    return (
        np.float32,
        weights,
        [helper.make_node("MatMulNBits", ["x", "w", "s", "", "", "b"], ["y"], **attributes, **MICROSOFT)],
    )


KERNELS = {
    "float32": float32,
    "DynamicQuantizeMatMul": dynamic,
    "MatMulIntegerToFloat, uint8 activations": calibrated,
    "MatMulIntegerToFloat, int8 activations": symmetric,
    "MatMulNBits, 8 bits, accuracy level 4": blocks,
}


def _int8(k: int, m: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "w": rng.integers(-127, 127, (k, m)).astype(np.int8),
        "s": np.full(m, 0.001, np.float32),
        "z": np.zeros(m, np.int8),
        "b": np.zeros(m, np.float32),
    }


def least_time(kernel: Any, rows: int, k: int, m: int, rounds: int) -> float:
    """Least CPU time of one product in microseconds."""
    rng = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    for copy in range(COPIES):
        dtype, named, made = kernel(k, m, rng)
        names = {name: f"{name}{copy}" for name in (*named, "p", "y")} | {"x": "x", "": ""}
        for node in made:
            renamed = onnx.NodeProto()
            renamed.CopyFrom(node)
            renamed.input[:] = [names[name] for name in node.input]
            renamed.output[:] = [names[name] for name in node.output]
            nodes.append(renamed)
        weights += [numpy_helper.from_array(array, names[name]) for name, array in named.items()]
        outputs.append(helper.make_tensor_value_info(names["y"], TensorProto.FLOAT, None))
    x = rng.integers(0, 100, (1, rows, k)).astype(dtype)
    entry = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "products", [entry], outputs, weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(rounds + 1):
        start = time.thread_time()
        session.run(None, {"x": x})
        times.append(time.thread_time() - start)
    return 1e6 * min(times[1:]) / COPIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "export_int8_kernels.json")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for shape in SHAPES:
        found = {label: round(least_time(kernel, *shape, arguments.rounds)) for label, kernel in KERNELS.items()}
        rows.append({"tokens": shape[0], "K": shape[1], "M": shape[2], "microseconds": found})
        print(shape, found, flush=True)
    arguments.out.write_text(json.dumps({"machine": machine(("numpy", "onnx", "onnxruntime")), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
