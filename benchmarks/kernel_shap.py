"""What an explanation costs: the fused model beside Kernel SHAP, Grad-CAM, rollout and no explanation at all.

    python benchmarks/kernel_shap.py [--model imagenet-1k] [--calibration PICTURES] [--out results/kernel_shap.json]

Plain classifier (the library's model through torch.onnx with its defaults, in onnxruntime), fused model, Kernel SHAP
by captum and shap through the fused file's session (called as `edgex.shap_libraries` says), bare passes, serial and
in the best batch; in fp32, fp16 and int8 (onnxruntime's own tools make the plain int8 and fp16), on 1 thread and on
all; Grad-CAM and attention rollout of `edgex.baselines` in PyTorch fp32. Within a thread count everything takes turns
in one process, so that ratios are paired, across precisions too. Times are wall-clock ms per picture; the JSON holds
CPU time beside them. A CUDA GPU adds the providers cuda and tensorrt, and the PyTorch methods on it.

Cold start is the time from starting a Python process to its first result, steady memory its resident memory after 50
more; each in fresh processes. Quality is read from --quality, insertion minus deletion per target and method, as
benchmarks/ten_targets.py writes it. Beside the JSON go a Markdown table and, as PNG, quality against milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, Subject, log, save
from kernel_shap_report import as_markdown, draw, read_quality, targets

PRECISIONS = ("fp32", "fp16", "int8")
MAX_BATCH = 32
STEADY_FRAMES = 50

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
from edgex.torch_session import TorchSession
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
    parser.add_argument("--batch", type=int, default=8, help="pictures of the one-pass rows beside batch 1")
    parser.add_argument("--players", nargs="+", type=int, default=[49, 196])
    parser.add_argument("--passes", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--starts", type=int, default=5, help="fresh processes per cold start")
    parser.add_argument("--quality", type=Path, default=RESULTS / "ten_targets.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "kernel_shap.json")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    report = measure(arguments)
    report["quality"] = read_quality(arguments.quality)
    if report["quality"] is None:
        log(f"no {arguments.quality.name} yet: the table and the plot go without quality")
    save(report, as_markdown(report), arguments.out)
    draw(report, arguments.out.with_suffix(".png"))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Exports, times and weighs everything; returns the JSON report."""
    from edgex import samples
    from edgex.bench import Options
    from edgex.timing import machine

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
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(subject, arguments.precisions, report, Path(folder))
        report["groups"] = [
            time_group(files, subject, options, provider, threads)
            for provider in providers()
            for threads in (arguments.threads if provider == "cpu" else [0])
        ]
        report["session_overhead_ms"] = session_overhead(files[arguments.precisions[0]]["fused"], picture)
        sample = str(samples.paths(arguments.model)[0])
        report["footprint"] = {
            f"{kind} {precision}": footprint(kind, file, sample, arguments.starts)
            for precision, own in files.items()
            for kind, file in own.items()
        } | {"pytorch fp32": footprint("pytorch", subject.path, sample, arguments.starts)}
    report["machine"]["load_average_at_end"] = machine(())["load_average"]
    report["targets"] = targets(report)
    return report


def export_all(
    subject: Subject, precisions: list[str], report: dict[str, Any], folder: Path
) -> dict[str, dict[str, Path]]:
    """precision -> {"plain", "fused"} -> file; the gates' figures go into the report."""
    from edgex.plain import export_plain, plain_fp16, plain_int8

    export_plain(subject.model, subject.card.preprocessing.image_size, folder / "plain-fp32.onnx")
    report["gates"], files = {}, {}
    for precision in precisions:
        files[precision] = {"plain": folder / f"plain-{precision}.onnx", "fused": folder / f"fused-{precision}.onnx"}
        if precision != "fp32":
            convert = plain_int8 if precision == "int8" else plain_fp16
            convert(folder / "plain-fp32.onnx", files[precision]["plain"])
        done = subject.export(precision, files[precision]["fused"], MAX_BATCH)
        report["gates"][precision] = done.gate.to_dict() if done.gate else None
    return files


def providers() -> list[str]:
    """The CPU, and what an NVIDIA GPU adds where onnxruntime and torch both see one."""
    import onnxruntime
    import torch

    available = onnxruntime.get_available_providers() if torch.cuda.is_available() else []
    named = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
    return ["cpu", *(name for name, full in named.items() if full in available)]


def time_group(
    files: dict[str, dict[str, Path]], subject: Subject, options: Any, provider: str, threads: int
) -> dict[str, Any]:
    """Everything of one provider and thread count, interleaved; 0 threads are one per core."""
    import torch

    from edgex import bench
    from edgex.runtime import Session
    from edgex.timing import machine, ratio

    log(f"timing on {provider}, {threads or 'all'} threads")
    # Torch counts its threads for the whole process.
    torch.set_num_threads(threads or machine(())["cores"])
    picture = subject.pictures[0]
    tasks: list[Any] = []
    skipped: list[Any] = []
    checks: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for precision, own in files.items():
            session = stack.enter_context(Session(own["fused"], provider=provider, threads=threads or None))
            plain = bench.PlainSession(own["plain"], session, threads or None, precision)
            batches = bench.bare_batches(session, picture, options)
            best = min(batches, key=batches.__getitem__)
            more, missing = bench.tasks_of(session, plain, picture, options, best_batch=best, label=precision)
            tasks += more
            skipped += [{"precision": precision, "name": entry.name, "reason": entry.reason} for entry in missing]
            checks[precision] = {
                "ms_per_picture_by_batch": {str(size): round(ms, 3) for size, ms in batches.items()},
                "plain_logits_difference": bench.logits_difference(session, plain, picture),
            }
        if "fp32" in files:
            tasks += torch_tasks(subject, options, "cpu" if provider == "cpu" else "cuda")
        rows = bench.measure(tasks, options.rounds, log)
    plain_fp32 = next((r for r in rows if (r.task.method, r.task.label, r.task.batch) == ("plain", "fp32", 1)), None)
    found = []
    for row in rows:
        entry = row.to_dict()
        if plain_fp32 is not None:
            entry["over_plain_fp32"] = ratio(row.samples.wall, plain_fp32.samples.wall).to_dict()
            entry["cpu_over_plain_fp32"] = ratio(row.samples.cpu, plain_fp32.samples.cpu).to_dict()
        found.append(entry)
    group = {"provider": provider, "threads": threads or "all", "models": checks, "rows": found, "skipped": skipped}
    return group if provider == "cpu" else {**group, "gpu": torch.cuda.get_device_name()}


def torch_tasks(subject: Subject, options: Any, device: str) -> list[Any]:
    """Grad-CAM and attention rollout of the predicted class, from the pixels to a heatmap on the CPU."""
    import torch

    from edgex import baselines
    from edgex.bench import Task
    from edgex.model import normalise
    from edgex.timing import Contender

    model, preprocessing = subject.model.to(device).freeze(), subject.card.preprocessing
    pixels = normalise(torch.from_numpy(subject.pictures[:1]).to(device), preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        classes = model(pixels).logits.argmax(dim=-1)

    def forward() -> object:
        with torch.inference_mode():
            return model(pixels).heatmap.cpu()

    runs = {
        "grad-cam": ("Grad-CAM in PyTorch", lambda: baselines.grad_cam(model, pixels, classes).cpu()),
        "rollout": ("attention rollout in PyTorch", lambda: baselines.attention_rollout(model, pixels).cpu()),
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

    from edgex.runtime import Session
    from edgex.timing import Contender, Summary, take_turns

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
