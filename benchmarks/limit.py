"""How close to this machine's limit does the fused model run, and where does the time go?

    python benchmarks/limit.py [--model imagenet-1k] [--calibration PICTURES] [--out results/limit.json]

The limit is this machine's own matrix-multiply peak: the best of torch (oneDNN) and onnxruntime over square products
of several sizes, weights constant, in fp32 and in int8. The model's work is the multiplications and additions of the
matrix products in its fp32 graph (MatMul, Gemm; the patch embedding is one of them), checked against torch's own
count of the plain classifier; everything else (softmax, norms, GELU, copies) counts as no work and only costs time.
Share of the peak = work / (time x peak). int8 files do the same work, attention's products in float.

On one thread times are CPU times of that thread, which other work on the machine disturbs little; on all threads
they are wall-clock times, which it does disturb: see the load average. The profile is onnxruntime's own: per
operator the sum over nodes of each node's median time, and for matrix products the rate that they reach.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, Subject, log, measured_on, save

SIZES = (256, 512, 1024, 2048)
PRODUCTS = ("MatMul", "Gemm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imagenet-1k", help="model file or zoo name")
    parser.add_argument("--calibration", type=Path, help="pictures for the gate and int8's ranges; else the samples")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "int8"), default=["fp32", "int8"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0], help="0: one per core")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="sides of the peak's products")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS / "limit.json")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    report = measure(arguments)
    save(report, as_markdown(report), arguments.out)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from edgex.bench.plain import export_plain
    from edgex.bench.timing import machine

    subject = Subject.load(arguments.model, arguments.calibration)
    image_size = subject.card.preprocessing.image_size
    report = {**subject.describe(), "groups": []}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        export_plain(subject.model, image_size, plain)
        files = {"plain fp32": plain}
        for precision in dict.fromkeys(["fp32", *arguments.precisions]):
            files[f"fused {precision}"] = Path(folder) / f"{precision}.onnx"
            subject.export(precision, files[f"fused {precision}"])
        report["gflop"] = {
            "fused": products_gflop(files["fused fp32"]),
            "plain": products_gflop(plain),
            "plain, counted by torch": torch_gflop(subject.model, image_size),
        }
        for threads in arguments.threads:
            count = threads or report["machine"]["cores"]
            torch.set_num_threads(count)
            log(f"peak and models on {count} threads")
            report["groups"].append(group(files, report["gflop"], subject.pictures[:1], count, arguments))
    report["machine"]["load_average_at_end"] = machine(())["load_average"]
    return report


def group(
    files: dict[str, Path], gflop: dict[str, float], picture: np.ndarray, threads: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Peaks, each file's share of them, and its profile, with one thread count."""
    peaks = {kind: peak(kind, arguments.sizes, threads) for kind in ("fp32", "int8")}
    best = {kind: max(rate for rates in found.values() for rate in rates.values()) for kind, found in peaks.items()}
    rows = {}
    sessions = {name: open_file(str(file), threads) for name, file in files.items()}
    for name, (milliseconds, quartiles) in times(sessions, picture, threads, arguments.repeats).items():
        kind, precision = name.split()
        rate = gflop[kind] / milliseconds * 1e3
        rows[name] = {
            "ms": round(milliseconds, 3),
            "quartiles": [round(value, 3) for value in quartiles],
            "gflop_per_s": round(rate, 1),
            "share_of_peak": round(rate / best[precision], 4),
            "ms_at_the_peak": round(1e3 * gflop[kind] / best[precision], 3),
            "profile": profile(files[name], picture, threads),
        }
    return {"threads": threads, "clock": clock_of(threads)[0], "peaks_gflop_per_s": peaks, "best": best, "models": rows}


def clock_of(threads: int) -> tuple[str, Callable[[], float]]:
    return ("CPU time", time.thread_time) if threads == 1 else ("wall-clock time", time.perf_counter)


def open_file(source: str | bytes, threads: int, *, profiled_to: str | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if profiled_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profiled_to
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feeds(session: Any, picture: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs of a fused or a plain file for one picture uint8 [1, H, W, 3]; its values do not matter for time."""
    if len(session.get_inputs()) == 2:
        return {"image": picture, "explain_class": np.array([-1])}
    return {"image": (picture.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2).copy()}


def times(
    sessions: dict[str, Any], picture: np.ndarray, threads: int, repeats: int
) -> dict[str, tuple[float, list[float]]]:
    """Name -> median and quartiles in ms; the sessions take turns."""
    _, clock = clock_of(threads)
    found: dict[str, list[float]] = {name: [] for name in sessions}
    given = {name: feeds(session, picture) for name, session in sessions.items()}
    for _ in range(repeats + 3):
        for name, session in sessions.items():
            start = clock()
            session.run(None, given[name])
            found[name].append(1e3 * (clock() - start))
    return {
        name: (float(np.median(values[3:])), [float(q) for q in np.quantile(values[3:], (0.25, 0.75))])
        for name, values in found.items()
    }


def peak(kind: str, sizes: list[int], threads: int) -> dict[str, dict[str, float]]:
    """Library -> side of a square product -> GFLOP/s (or GOP/s), the fastest of several runs."""
    rates: dict[str, dict[str, float]] = {}
    for size in sizes:
        for name, run in products(kind, size, threads).items():
            rates.setdefault(name, {})[str(size)] = round(2 * size**3 / fastest(run, threads) / 1e9, 1)
    return rates


def products(kind: str, size: int, threads: int) -> dict[str, Callable[[], object]]:
    """The square product in each library; int8 as onnxruntime's CPU kernels take it, activations unsigned."""
    import torch

    generator = np.random.default_rng(0)
    left: np.ndarray
    right: np.ndarray
    if kind == "fp32":
        left, right = (generator.standard_normal((size, size), dtype=np.float32) for _ in range(2))
        a, b = torch.from_numpy(left), torch.from_numpy(right)
        own: dict[str, Callable[[], object]] = {"torch.mm": lambda: torch.mm(a, b)}
        operator = "MatMul"
    else:
        left = generator.integers(0, 256, (size, size), dtype=np.uint8)
        right = generator.integers(-127, 128, (size, size), dtype=np.int8)
        c, d = torch.from_numpy((left // 2).astype(np.int8)), torch.from_numpy(right)
        own = {"torch._int_mm": lambda: torch._int_mm(c, d)}
        operator = "MatMulInteger"
    session = open_file(one_product(operator, right, left.dtype), threads)
    return {**own, f"onnxruntime {operator}": lambda: session.run(None, {"a": left})}


def one_product(operator: str, weight: np.ndarray, activations: np.dtype[Any]) -> bytes:
    """An ONNX file of one product with a constant right side, which onnxruntime packs ahead."""
    from onnx import TensorProto, helper, numpy_helper

    result = TensorProto.FLOAT if operator == "MatMul" else TensorProto.INT32
    sides = list(weight.shape)
    body = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(activations), sides)],
        [helper.make_tensor_value_info("c", result, sides)],
        [numpy_helper.from_array(weight, "b")],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def fastest(run: Callable[[], object], threads: int, repeats: int = 15) -> float:
    """Seconds of the fastest call: a peak is what the machine can do, so the disturbed calls do not count."""
    _, clock = clock_of(threads)
    run()
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    return min(seconds)


def products_gflop(file: Path) -> float:
    """2 x the multiplications of all matrix products in an ONNX graph for one picture, from inferred shapes."""
    import onnx

    model = onnx.load(file)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*inferred.value_info, *inferred.output]
    }
    shapes |= {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in inferred.input}
    shapes |= {weight.name: list(weight.dims) for weight in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type in PRODUCTS:
            turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
            inner = shapes[node.input[0]][-2 if turned else -1]
            total += 2 * inner * int(np.prod(shapes[node.output[0]]))
        elif node.op_type == "Conv":
            total += 2 * int(np.prod(shapes[node.input[1]][1:])) * int(np.prod(shapes[node.output[0]]))
    return total / 1e9


def torch_gflop(model: Any, image_size: tuple[int, int]) -> float:
    """The plain classifier's matrix products for one picture, counted by torch while it runs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edgex.bench.plain import PlainClassifier

    counter = FlopCounterMode(display=False)
    # Torch counts fused attention only where its kernel is known to it: the plain one is made of products.
    kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with counter, kernel, torch.no_grad():
        PlainClassifier(model)(torch.zeros(1, 3, *image_size))
    return counter.get_total_flops() / 1e9


def profile(file: Path, picture: np.ndarray, threads: int, runs: int = 20) -> dict[str, Any]:
    """Operator -> nodes and ms per picture, largest first, as onnxruntime reports them after its own fusions."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_file(str(file), threads, profiled_to=str(Path(folder) / "profile"))
        given = feeds(session, picture)
        for _ in range(runs):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    operators: dict[str, list[float]] = collections.defaultdict(list)
    for (operator, _), values in nodes.items():
        operators[operator].append(float(np.median(values)))
    ordered = sorted(operators.items(), key=lambda item: -sum(item[1]))
    return {name: {"nodes": len(values), "ms": round(sum(values), 3)} for name, values in ordered}


def as_markdown(report: dict[str, Any]) -> str:
    gflop = report["gflop"]
    lines = [
        f"# Share of the machine's peak: {report['model']} ({report['architecture']})",
        "",
        f"{measured_on(report)} One picture is {gflop['fused']:.2f} GFLOP of matrix products fused, "
        f"{gflop['plain']:.2f} plain (torch counts {gflop['plain, counted by torch']:.2f}).",
    ]
    for group in report["groups"]:
        peaks = ", ".join(f"{kind} {rate:.0f} GFLOP/s" for kind, rate in group["best"].items())
        lines += ["", f"## {group['threads']} threads, {group['clock']}", "", f"Peak: {peaks}.", ""]
        lines += [
            "| file | ms | quartiles | GFLOP/s | share of the peak | ms at the peak |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in group["models"].items():
            low, high = row["quartiles"]
            lines.append(
                f"| {name} | {row['ms']:.2f} | {low:.2f} to {high:.2f} | {row['gflop_per_s']:.0f} | "
                f"{100 * row['share_of_peak']:.0f}% | {row['ms_at_the_peak']:.2f} |"
            )
        for name, row in group["models"].items():
            top = list(row["profile"].items())[:8]
            lines += ["", f"{name}, ms by operator: " + ", ".join(f"{op} {entry['ms']:.2f}" for op, entry in top) + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
