"""What the heatmap costs, and what int8 gains, in the same runtime, paired.

    python benchmarks/export_overhead.py --out export_overhead.json [--models ...] [--batches 1 4] [--rounds 30]

Two questions, two peers. Over what a user would have without edgex: the library's own model through torch.onnx with
its defaults, and onnxruntime's dynamic quantisation of it with its defaults. Over the heatmap alone: the same fused
graph with the outputs `heatmap` and `base`, and everything that only they need, taken out.

All files take turns within a round on one thread. A turn is two runs, of which the second is timed, since a device
runs one model and not eleven. Times are the CPU time of that thread, so that other work on the machine disturbs them
little; a ratio is the median over rounds of a file's time over its peer's in the same round, with its quartiles.

The heatmap's cost is also added up operator by operator, from onnxruntime's profile: the least time of each operator
that the graph without a heatmap does not have, as a share of the others'. Fit for busy machines, where ratios of whole
runs scatter by more than the heatmap costs; the profiler's own time per operator makes it an upper bound.

Models are names of timm or open_clip, or of built-in ones: `cars` has few enough classes (196) for the export to fold
them into the readout, an ImageNet classifier has not.

The heatmap is read with a readout of the last four blocks, or of as many as --blocks says; --own-blocks adds the
model's own contributions of its last blocks, half of them blurred. --own-weights reads it with the model's own weights
alone, as after a vector of `--learn weights`. --files takes some of the exported forms instead of all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from common import RESULTS
from export_families import PACKAGES, load, test_support

from edgex.bench.plain import export_plain, plain_int8
from edgex.bench.timing import Summary, machine, ratio
from edgex.export.graph_builder import Recipe, build_graph
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.quantization_impact import Budget
from edgex.export.report import Stages
from edgex.files import zoo
from edgex.files.model_file import load_model
from edgex.models.evidence import Own
from edgex.training.vector_training import with_evidence

MODELS = ("cars", "timm/deit_tiny_patch16_224", "open_clip/ViT-B-32", "timm/vit_base_patch16_224")
PLAIN, PLAIN_INT8, BARE = "plain", "plain dynamic int8", " without its heatmap"
FREE = Budget(math.inf, math.inf)
RECIPES = {
    "fused": Recipe(),
    "fused, Attention of opset 23": Recipe(opset=23, attention="onnx"),
    "fused, MultiHeadAttention": Recipe(attention="fused"),
    "fused dynamic int8": Recipe("int8", int8_form="dynamic", budget=FREE),
    "fused static int8": Recipe("int8", int8_form="static", budget=FREE),
    "fused static int8, plain attention": Recipe("int8", int8_form="static", attention="plain", budget=FREE),
}
# The forms that `edgex export` writes: these are also timed without their heatmap.
SHIPPED = ("fused", "fused dynamic int8", "fused static int8")


def without_heatmap(model: ir.Model) -> ir.Model:
    """The graph that gives the logits alone."""
    for value in [value for value in model.graph.outputs if value.name != "logits"]:
        model.graph.outputs.remove(value)
    remove_unused(model)
    for value in [value for value in model.graph.inputs if value.name != "image"]:
        model.graph.inputs.remove(value)
    return model


def export_all(
    model: Any, card: Any, pictures: np.ndarray, folder: Path, recipes: dict[str, Recipe]
) -> dict[str, Path]:
    files = {PLAIN: folder / "plain.onnx", PLAIN_INT8: folder / "plain-int8.onnx"}
    export_plain(model, card.preprocessing.image_size, files[PLAIN])
    plain_int8(files[PLAIN], files[PLAIN_INT8])
    for index, (label, recipe) in enumerate(recipes.items()):
        graph = build_graph(model, card, recipe, pictures[:2], Stages(None)).graph
        files[label] = folder / f"fused-{index}.onnx"
        ir.save(graph, files[label])
        if label in SHIPPED:
            files[label + BARE] = folder / f"bare-{index}.onnx"
            ir.save(without_heatmap(graph), files[label + BARE])
    return files


def least_times(path: Path, feeds: dict[str, np.ndarray], rounds: int) -> dict[str, float]:
    """Operator -> its least time over all rounds in microseconds."""
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(rounds):
        session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})
    least: dict[str, float] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            least[event["name"]] = min(event["dur"], least.get(event["name"], math.inf))
    return least


def heatmap_share(path: Path, bare: Path, pictures: np.ndarray, rounds: int) -> float:
    """Time of the operators that only the heatmap needs, over that of all others."""
    feeds = {"image": pictures, "explain_class": np.full(len(pictures), -1, dtype=np.int64)}
    times = least_times(path, feeds, rounds)
    shared = least_times(bare, feeds, 1).keys() & times.keys()
    return sum(times[name] for name in times.keys() - shared) / sum(times[name] for name in shared)


def session_options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def cpu_times(sessions: dict[str, Any], pictures: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """CPU time in ms of each file's timed runs, [rounds, 1]."""
    explain = np.full(len(pictures), -1, dtype=np.int64)
    noise = np.random.default_rng(0).normal(size=(len(pictures), 3, *pictures.shape[1:3])).astype(np.float32)
    feeds: dict[str, dict[str, np.ndarray]] = {}
    for label, session in sessions.items():
        by_name = {"image": noise if label in (PLAIN, PLAIN_INT8) else pictures, "explain_class": explain}
        feeds[label] = {value.name: by_name[value.name] for value in session.get_inputs()}
    times = {label: np.zeros((rounds, 1)) for label in sessions}
    for index in range(rounds):
        for label, session in sessions.items():
            session.run(None, feeds[label])
            start = time.thread_time()
            session.run(None, feeds[label])
            times[label][index] = 1e3 * (time.thread_time() - start)
    return times


def compare(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    model, card, weights = load(name) if "/" in name else (*load_model(zoo.resolve(name, "model")), "built in")
    own = Own(arguments.own_blocks, 1.0, 0.5) if arguments.own_blocks else None
    model = with_evidence(model, arguments.blocks, readout=not arguments.own_weights, own=own)
    rounds, batches = arguments.rounds, arguments.batches
    recipes = {label: RECIPES[label] for label in arguments.files}
    card = dataclasses.replace(card, evidence=model.evidence)
    pictures = test_support()._natural_pictures(max(batches), card.preprocessing.image_size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = export_all(model, card, pictures, Path(folder), recipes)
        sessions = {
            label: onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
            for label, path in files.items()
        }
        shares = {
            (label, batch): heatmap_share(files[label], files[label + BARE], pictures[:batch], rounds)
            for label in SHIPPED
            if label in files
            for batch in batches
        }
        sizes = {label: path.stat().st_size for label, path in files.items()}
    rows = []
    for batch in batches:
        times = cpu_times(sessions, pictures[:batch], rounds)
        for label, values in times.items():
            over = {"plain": PLAIN, "plain_int8": PLAIN_INT8, "no_heatmap": label + BARE}
            row: dict[str, Any] = {
                "model": name,
                "weights": weights,
                "evidence": str(model.evidence),
                "batch": batch,
                "file": label,
                "cpu_ms": Summary.of(values).to_dict(),
                "cpu_ms_min": round(float(values.min()), 2),
                **{f"over_{k}": ratio(values, times[peer]).to_dict() for k, peer in over.items() if peer in times},
                "file_mb": round(sizes[label] / 1e6, 1),
            }
            if (label, batch) in shares:
                row["heatmap_share_of_operators"] = round(shares[label, batch], 4)
            rows.append(row)
            found = {key: value["median"] for key, value in row.items() if key.startswith("over_")}
            found["heatmap_share"] = row.get("heatmap_share_of_operators")
            print(f"{name} batch {batch} {label:40} {row['cpu_ms']['median']:8.1f} ms  {found}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "export_overhead.json")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--own-weights", action="store_true", help="no readout")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--own-blocks", type=int, default=0)
    parser.add_argument("--files", nargs="+", choices=RECIPES, default=list(RECIPES))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    result: dict[str, Any] = {"machine": machine(PACKAGES), "rounds": arguments.rounds, "rows": []}
    for name in arguments.models:
        result["rows"] += compare(name, arguments)
        arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
