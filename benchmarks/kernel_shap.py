"""What an explanation costs: the fused model beside Kernel SHAP, Grad-CAM, rollout and no explanation at all.

    python benchmarks/kernel_shap.py [--model imagenet-1k] [--calibration PICTURES] [--out results/kernel_shap.json]

Plain classifier (the library's model through torch.onnx with its defaults, in onnxruntime), fused model, Kernel SHAP by
captum and shap through the fused file's session (called as `edgex.bench.shap_libraries` says), bare passes, serial and
in the best batch; in fp32, fp16 and int8 (onnxruntime's own tools make the plain int8 and fp16), on 1 thread and on
all; Grad-CAM and attention rollout of `edgex.evaluation.methods` in PyTorch fp32. Within a thread count everything
takes turns in one process, so that ratios are paired, across precisions too. Times are wall-clock ms per picture; the
JSON holds CPU time beside them.

Other providers of onnxruntime join where they are at hand, or with --providers: "cuda", "cuda-graph" (passes captured
and replayed, the default of `Session`) and "tensorrt" with the PyTorch methods on the GPU; "openvino", and
"openvino-bf16" that lets it compute in bfloat16, each beside the same files on onnxruntime's own CPU provider. Every
file is put to the export's gate on every provider that it is timed on. int8 is in the form for CPUs on "cpu" and with
Q/DQ nodes elsewhere. OpenVINO prepares a pass anew, for about half of its time, when a session's batch size changes:
--batch 1 times it as a stream of single pictures meets it.

Cold start is the time from starting a Python process to its first result, steady memory its resident memory after 50
more; each in fresh processes. Quality is read from --quality, insertion minus deletion per target and method, as
benchmarks/ten_targets.py writes it. Beside the JSON go a Markdown table and, as PNG, quality against milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, Subject, log, save, save_json
from kernel_shap_report import as_markdown, draw, read_quality, targets

PRECISIONS = ("fp32", "fp16", "int8")
STEADY_FRAMES = 50


@dataclasses.dataclass(frozen=True)
class Place:
    """Where files run. provider, options: as of `Session`; precisions: those that are of use there.

    coarse: it computes fp32 files with fewer bits, so that fp16's bounds of the gate apply to them. graph: passes are
    replayed as CUDA graphs, which is `Session`'s default there; the plain classifier's too.
    """

    provider: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    precisions: tuple[str, ...] = PRECISIONS
    coarse: bool = False
    graph: bool = False

    @property
    def on_gpu(self) -> bool:
        return self.provider in ("cuda", "tensorrt")


BFLOAT16 = {"load_config": {"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}}
PLACES = {
    "cpu": Place("cpu"),
    "openvino": Place("openvino", precisions=("fp32", "int8")),
    "openvino-bf16": Place("openvino", BFLOAT16, precisions=("fp32", "int8"), coarse=True),
    # TensorFloat-32 is the default of both.
    "cuda": Place("cuda", precisions=("fp32", "fp16"), coarse=True),
    "cuda-graph": Place("cuda", precisions=("fp32", "fp16"), coarse=True, graph=True),
    "tensorrt": Place("tensorrt", precisions=("fp32", "fp16"), coarse=True),
}

_RESULT = """
print("ready", flush=True)
for _ in range(int(sys.argv[3])):
    run()
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmRSS")))
"""
CHILDREN = {
    "fused": """
import sys
from edgex.runtime import Session
session = Session(sys.argv[1], provider="cpu", threads=1)
run = lambda: session(sys.argv[2]).heatmap
run()
"""
    + _RESULT,
    "plain": """
import sys
import numpy as np
import onnxruntime
from PIL import Image
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
height, width = session.get_inputs()[0].shape[2:]
def run():
    pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB").resize((width, height)), np.float32)
    return session.run(None, {"image": ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]})
run()
"""
    + _RESULT,
    "pytorch": """
import sys
from pathlib import Path
import torch
from edgex.evaluation.torch_session import TorchSession
torch.set_num_threads(1)
session = TorchSession(Path(sys.argv[1]))
run = lambda: session(Path(sys.argv[2])).heatmap
run()
"""
    + _RESULT,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imagenet-1k", help="model file or zoo name")
    parser.add_argument("--calibration", type=Path, help="pictures for the gate and int8's ranges; else the samples")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0], help="0: one per core")
    parser.add_argument("--providers", nargs="+", choices=PLACES, help="default: all at hand")
    parser.add_argument("--max-batch", type=int, default=32, help="largest batch of the many-pass methods")
    parser.add_argument(
        "--attention", nargs="+", metavar="PRECISION=FORM", help="forms of attention, as of edgex export --attention"
    )
    parser.add_argument("--batch", type=int, default=8, help="pictures of the one-pass rows beside batch 1")
    parser.add_argument("--players", nargs="+", type=int, default=[49, 196])
    parser.add_argument("--passes", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--starts", type=int, default=5, help="fresh processes per cold start; 0: none")
    parser.add_argument("--quality", type=Path, default=RESULTS / "ten_targets.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "kernel_shap.json")
    arguments = parser.parse_args()
    arguments.attention = dict(entry.split("=") for entry in arguments.attention or ())
    logging.disable(logging.WARNING)
    report = measure(arguments)
    save_json(report, arguments.out)
    report["targets"] = targets(report)
    report["quality"] = read_quality(arguments.quality)
    if report["quality"] is None:
        log(f"no {arguments.quality.name} yet: the table and the plot go without quality")
    save(report, as_markdown(report), arguments.out)
    draw(report, arguments.out.with_suffix(".png"))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Exports, times and weighs everything; returns the JSON report."""
    from edgex import samples
    from edgex.bench.latency import Options
    from edgex.bench.timing import machine
    from edgex.export.gate import reference

    subject = Subject.load(arguments.model, arguments.calibration)
    picture = subject.pictures[0]
    options = Options(
        passes=arguments.passes,
        players=tuple(arguments.players),
        rounds=arguments.rounds,
        repeats=arguments.repeats,
        batch=arguments.batch,
    )
    report = {**subject.describe(), "passes": options.passes, "rounds": options.rounds}
    report["attention"] = arguments.attention
    places = arguments.providers or at_hand()
    expected = reference(subject.model, subject.card.preprocessing, subject.pictures)
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(subject, arguments, places, report, Path(folder))
        report["groups"] = [
            time_group(files, subject, expected, options, name, threads)
            for name in places
            for threads in ([0] if PLACES[name].on_gpu else arguments.threads)
        ]
        own = files["cpu"]
        report["session_overhead_ms"] = session_overhead(own[arguments.precisions[0]]["fused"], picture)
        sample = str(samples.paths(arguments.model)[0])
        report["footprint"] = {
            f"{kind} {precision}": footprint(kind, file, sample, arguments.starts)
            for precision, kinds in own.items()
            for kind, file in kinds.items()
            if arguments.starts
        }
        if arguments.starts:
            report["footprint"]["pytorch fp32"] = footprint("pytorch", subject.path, sample, arguments.starts)
    report["machine"]["load_average_at_end"] = machine(())["load_average"]
    return report


def at_hand() -> list[str]:
    """The places whose provider this onnxruntime has and whose device is there."""
    import onnxruntime
    import torch

    from edgex.runtime.backends.onnxruntime import PROVIDERS

    available = onnxruntime.get_available_providers()
    return [
        name
        for name, place in PLACES.items()
        if PROVIDERS[place.provider] in available and (not place.on_gpu or torch.cuda.is_available())
    ]


Files = dict[str, dict[str, dict[str, Path]]]
"""place -> precision -> "plain" and "fused" -> file; "cpu" is always among the places."""


def export_all(
    subject: Subject, arguments: argparse.Namespace, places: list[str], report: dict[str, Any], folder: Path
) -> Files:
    """Exports each file once; the gates' figures go into the report."""
    from edgex.bench.plain import export_plain, plain_fp16, plain_int8

    export_plain(subject.model, subject.card.preprocessing.image_size, folder / "plain-fp32.onnx")
    report["gates"] = {}
    own: dict[str, dict[str, Path]] = {}
    for precision in arguments.precisions:
        own[precision] = {kind: folder / f"{kind}-{precision}.onnx" for kind in ("plain", "fused")}
        if precision != "fp32":
            convert = plain_int8 if precision == "int8" else plain_fp16
            convert(folder / "plain-fp32.onnx", own[precision]["plain"])
        done = subject.export(
            precision, own[precision]["fused"], arguments.max_batch, attention=arguments.attention.get(precision)
        )
        report["gates"][precision] = done.gate.to_dict() if done.gate else None
    files = {"cpu": own}
    for name in places:
        files[name] = {precision: own[precision] for precision in PLACES[name].precisions if precision in own}
    if "int8" in own and any(name != "cpu" and "int8" in PLACES[name].precisions for name in places):
        with_nodes = folder / "fused-qdq.onnx"
        done = subject.export("int8", with_nodes, arguments.max_batch, "qdq")
        report["gates"]["int8, Q/DQ"] = done.gate.to_dict() if done.gate else None
        for name in places:
            if name != "cpu" and "int8" in files[name]:
                files[name]["int8"] = {"plain": own["int8"]["plain"], "fused": with_nodes}
    return files


def time_group(files: Files, subject: Subject, expected: Any, options: Any, name: str, threads: int) -> dict[str, Any]:
    """Everything of one place and thread count, interleaved; 0 threads are one per core.

    expected: the gate's reference. "over_plain_fp32" of each row is over the plain classifier of onnxruntime's CPU
    provider on CPUs, over the same provider's on GPUs.
    """
    import torch

    from edgex.bench import latency
    from edgex.bench.timing import machine, ratio
    from edgex.errors import ProviderError
    from edgex.runtime import Session

    place, count = PLACES[name], threads or None
    log(f"timing on {name}, {threads or 'all'} threads")
    # Torch counts its threads for the whole process.
    torch.set_num_threads(threads or machine(())["cores"])
    picture = subject.pictures[0]
    tasks: list[Any] = []
    skipped: list[Any] = []
    checks: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:

        def opened(own: dict[str, Path], provider: str, provider_options: dict[str, Any]) -> Session:
            return stack.enter_context(
                Session(
                    own["fused"], provider, threads=count, provider_options=provider_options, io_binding=place.graph
                )
            )

        for precision, own in files[name].items():
            session = opened(own, place.provider, place.options)
            plain: latency.PlainSession | latency.Skipped
            try:
                plain = latency.PlainSession(own["plain"], session, count, precision, place.options, place.graph)
            except ProviderError as error:
                plain = latency.Skipped("plain classifier", str(error).replace(str(own["plain"].parent), ""))
            batches = latency.bare_batches(session, picture, options)
            best = min(batches, key=batches.__getitem__)
            more, missing = latency.tasks_of(session, plain, picture, options, best_batch=best, label=precision)
            tasks += more
            skipped += [{"precision": precision, "name": entry.name, "reason": entry.reason} for entry in missing]
            checks[precision] = {
                "ms_per_picture_by_batch": {str(size): round(ms, 3) for size, ms in batches.items()},
                "gate": gate_of(session, expected, place),
            }
            if not isinstance(plain, latency.Skipped):
                checks[precision]["plain_logits_difference"] = latency.logits_difference(session, plain, picture)
        if "fp32" in files[name] and place.provider != "openvino":
            tasks += torch_tasks(subject, options, "cuda" if place.on_gpu else "cpu")
        baseline = "fp32"
        if place.provider == "openvino" and "fp32" in files["cpu"]:
            baseline = "onnxruntime's CPU provider, fp32"
            session = opened(files["cpu"]["fp32"], "cpu", {})
            plain = latency.PlainSession(files["cpu"]["fp32"]["plain"], session, count, baseline)
            own_tasks = latency.single_passes(session, plain, picture, options, baseline)
            tasks += [dataclasses.replace(task, precision=baseline) for task in own_tasks]
        rows = latency.measure(tasks, options.rounds, log)
    plain_fp32 = next((r for r in rows if (r.task.method, r.task.label, r.task.batch) == ("plain", baseline, 1)), None)
    found = []
    for row in rows:
        entry = row.to_dict()
        if plain_fp32 is not None:
            entry["over_plain_fp32"] = ratio(row.samples.wall, plain_fp32.samples.wall).to_dict()
            entry["cpu_over_plain_fp32"] = ratio(row.samples.cpu, plain_fp32.samples.cpu).to_dict()
        found.append(entry)
    group = {"provider": name, "threads": threads or "all", "models": checks, "rows": found, "skipped": skipped}
    return {**group, "gpu": torch.cuda.get_device_name()} if place.on_gpu else group


def gate_of(session: Any, expected: Any, place: Place) -> dict[str, Any]:
    """The export's gate on the provider that a session really runs on."""
    from edgex.export.gate import Outputs, run_gate

    precision = session.metadata.precision
    found = run_gate(
        lambda image, explain: Outputs(*session.run(image, explain)),
        expected,
        precision="fp16" if place.coarse and precision == "fp32" else precision,
        max_batch=min(session.metadata.max_batch, 8),
        runtime=session.provider,
        shares_classes=session.shares_classes,
    )
    broken = [metric.name for metric in found.metrics if not metric.passed]
    log(f"{precision} on {session.provider}: the gate " + (f"breaks {', '.join(broken)}" if broken else "passes"))
    return found.to_dict()


def torch_tasks(subject: Subject, options: Any, device: str) -> list[Any]:
    """Grad-CAM and attention rollout of the predicted class, from the pixels to a heatmap on the CPU."""
    import numpy as np
    import torch

    from edgex.bench.latency import Task
    from edgex.bench.timing import Contender
    from edgex.evaluation.methods import parse
    from edgex.models.self_explaining import normalise

    model, preprocessing = subject.model.to(device).freeze(), subject.card.preprocessing
    pixels = normalise(torch.from_numpy(subject.pictures[:1]).to(device), preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        classes = model(pixels).logits.argmax(dim=-1)

    def forward() -> object:
        with torch.inference_mode():
            return model(pixels).heatmap.cpu()

    def explain(method: str) -> object:
        return parse(method).explain(model, pixels, classes, np.random.default_rng(0)).cpu()

    runs = {
        "grad-cam": ("Grad-CAM in PyTorch", lambda: explain("grad-cam")),
        "rollout": ("attention rollout in PyTorch", lambda: explain("rollout")),
        "pytorch": ("the same heatmap in PyTorch", forward),
    }
    return [
        Task(
            Contender(f"fp32: {name}", run, calls=options.repeats), method, lambda: 1, 1, label="fp32", precision="fp32"
        )
        for method, (name, run) in runs.items()
    ]


def session_overhead(file: Path, picture: Any, calls: int = 200) -> dict[str, Any]:
    """What `Session.run` adds to onnxruntime's own call on the same tensor, ms: paired differences, one thread."""
    import numpy as np
    import onnxruntime

    from edgex.bench.timing import Contender, Summary, take_turns
    from edgex.runtime import Session

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    image, explain = picture[None], np.array([-1])
    with Session(file, provider="cpu", threads=1) as session:
        contenders = [
            Contender("session", lambda: session.run(image, explain), calls=calls),
            Contender("bare", lambda: bare.run(None, {"image": image, "explain_class": explain}), calls=calls),
        ]
        samples = take_turns(contenders, 1)
    return Summary.of(samples["session"].cpu - samples["bare"].cpu).to_dict()


def footprint(kind: str, file: Path, picture: str, starts: int) -> dict[str, Any]:
    """Cold start in seconds (median of fresh processes), steady memory in MB, file size in bytes."""
    seconds, memory = [], []
    for _ in range(starts):
        command = [sys.executable, "-c", CHILDREN[kind], str(file), picture, str(STEADY_FRAMES)]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "ready":
                raise SystemExit(f"the {kind} process for {file.name} gave no result")
            seconds.append(time.perf_counter() - began)
            memory.append(int(child.stdout.readline()) / 1024)
    return {
        "cold_start_s": round(statistics.median(seconds), 3),
        "steady_memory_mb": round(statistics.median(memory), 1),
        "file_bytes": file.stat().st_size,
    }


if __name__ == "__main__":
    main()
