"""Peak memory and time of a ViT-L/14-sized bake, beside merely copying the same files.

    python benchmarks/bake_memory.py [--repeats 5] [--folder FOLDER] [--out FILE]

Random weights are streamed into a target and a vector that changes every backbone tensor (the worst case),
in float16 and in float32. Every job runs in a fresh process, jobs of one repetition directly after each other
and in rotating order, so that ratios are paired. All of them end with fsync of what they wrote. Peak memory is
the process's resident high-water mark; what it already was before the job, with Python and its libraries
loaded, is taken off for the job's own share.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ARCHITECTURE = "open_clip/ViT-L-14"
CLASSES = 1000
DTYPES = ("float16", "float32")
JOBS = {
    "bake": "edgex bake: read target and vector, check digests, add, write",
    "copy target": "copy the target (as many bytes as a bake writes)",
    "copy both": "copy target and vector (as many bytes as a bake reads)",
    "check and copy": "read and hash target and vector, hash and copy the target: what integrity alone costs",
}


def main() -> None:
    """Parses the arguments; a child process runs one job, the parent all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files go (3.7 GB); a temporary folder by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bake_memory.json")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(run_job(arguments.job, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bake-memory-") as folder:
        report = measure(Path(folder), arguments.repeats)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(report)
    print(f"written: {arguments.out}", file=sys.stderr)


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """All jobs for both types; returns the JSON report. Sizes and memory in bytes, times in seconds."""
    import torch

    report: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "repeats": repeats,
        "jobs": JOBS,
        "results": {},
    }
    for dtype in DTYPES:
        print(f"writing {dtype} files", file=sys.stderr)
        parameters = write_files(folder, getattr(torch, dtype))
        report["backbone_parameters"] = parameters
        runs: dict[str, list[dict[str, float]]] = {job: [] for job in JOBS}
        order = list(JOBS)
        for repeat in range(repeats):
            for job in order[repeat % len(order) :] + order[: repeat % len(order)]:
                runs[job].append(_in_fresh_process(job, folder))
                print(f"{dtype} {repeat + 1}/{repeats} {job}: {runs[job][-1]['seconds']:.2f} s", file=sys.stderr)
        report["results"][dtype] = {
            "target_bytes": (folder / "target.safetensors").stat().st_size,
            "vector_bytes": (folder / "vector.safetensors").stat().st_size,
            "largest_tensor_bytes": _largest(folder / "target.safetensors"),
            "runs": runs,
            "summary": {job: _summary(entries, runs["copy target"]) for job, entries in runs.items()},
        }
    return report


def run_job(job: str, folder: Path) -> dict[str, float]:
    """One job, measured in this process."""
    from edgex.vectors.bake import add_vector  # before the measurement: its libraries count as the starting memory

    target, vector, out = (folder / f"{name}.safetensors" for name in ("target", "vector", "out"))
    before = resident_peak()
    started = time.perf_counter()
    if job == "bake":
        add_vector(target, vector, out, alpha=0.7)
    elif job == "copy target":
        shutil.copyfile(target, out)
    elif job == "copy both":
        shutil.copyfile(vector, folder / "second.safetensors")
        _flush(folder / "second.safetensors")
        shutil.copyfile(target, out)
    else:
        _check_and_copy(target, vector, out)
    _flush(out)
    seconds = time.perf_counter() - started
    peak = resident_peak()
    out.unlink()
    (folder / "second.safetensors").unlink(missing_ok=True)
    return {"seconds": seconds, "start_bytes": before, "peak_bytes": peak}


def _check_and_copy(target: Path, vector: Path, out: Path) -> None:
    from edgex.files.tensor_file import TensorFile

    for path in (target, vector, target):  # the target twice: once as it is read, once as it is written
        with TensorFile(path) as file:
            file.verify()
    shutil.copyfile(target, out)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def resident_peak() -> int:
    """The process's resident high-water mark in bytes, since its own start (not its parent's)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        sys.exit("expected /proc/self/status (Linux) to read peak memory from")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _in_fresh_process(job: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--job", job, "--folder", str(folder)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout)


def _summary(entries: list[dict[str, float]], copies: list[dict[str, float]]) -> dict[str, Any]:
    ratios = [entry["seconds"] / copy["seconds"] for entry, copy in zip(entries, copies, strict=True)]
    return {
        "seconds_median": statistics.median(entry["seconds"] for entry in entries),
        "seconds_range": [min(e["seconds"] for e in entries), max(e["seconds"] for e in entries)],
        "ratio_to_copy_median": statistics.median(ratios),
        "ratio_to_copy_range": [min(ratios), max(ratios)],
        "peak_bytes": max(entry["peak_bytes"] for entry in entries),
        "added_bytes": max(entry["peak_bytes"] - entry["start_bytes"] for entry in entries),
    }


def _largest(path: Path) -> int:
    from edgex.files.tensor_file import TensorFile

    with TensorFile(path) as file:
        return max(spec.nbytes for spec in file.tensors.values())


def write_files(folder: Path, dtype: Any) -> int:
    """Streams a random target and a random vector into files; returns the backbone's number of parameters."""
    import torch

    from edgex.files import tensor_file
    from edgex.files.model_file import BACKBONE_PREFIX, HEAD_PREFIX, BaseWeights, ModelCard
    from edgex.files.vector_file import VectorCard
    from edgex.models.backbones import architecture, build
    from edgex.models.self_explaining import Evidence

    backbone = build(architecture(ARCHITECTURE))
    shapes = {name: tuple(tensor.shape) for name, tensor in backbone.tensors().items()}
    base = BaseWeights("random", "0" * 64)
    evidence = Evidence.default(backbone)
    card = ModelCard(
        name="vit-l-14",
        architecture=backbone.architecture,
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        preprocessing=backbone.preprocessing,
        head_kind="cosine",
        head_scale=100.0,
        evidence=evidence,
        base=base,
    )
    tau = VectorCard(
        name="vit-l-14",
        architecture=backbone.architecture,
        base=base,
        source="random",
        supervision="none",
        evidence=evidence,
        alpha=1.0,
        unchanged=(),
    )
    generator = torch.Generator().manual_seed(0)

    def random(sizes: dict[str, tuple[int, ...]], scale: float) -> Iterator[Any]:
        for shape in sizes.values():
            yield tensor_file.encode((scale * torch.randn(shape, generator=generator)).to(dtype))

    target = {BACKBONE_PREFIX + name: shape for name, shape in shapes.items()}
    target[f"{HEAD_PREFIX}weight"] = (CLASSES, backbone.output_width)
    for name, metadata, sizes, scale in (
        ("target", card.to_metadata(), target, 0.02),
        ("vector", tau.to_metadata(), shapes, 0.001),
    ):
        specs = {key: (dtype, shape) for key, shape in sizes.items()}
        tensor_file.write(folder / f"{name}.safetensors", metadata, specs, random(sizes, scale))
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def print_table(report: dict[str, Any]) -> None:
    """A markdown table: median times, largest memory."""
    print(
        f"{report['architecture']}, {report['backbone_parameters'] / 1e6:.0f} M backbone parameters, "
        f"median time and largest memory of {report['repeats']} paired runs, {report['machine']}, "
        f"load average {report['load_average_at_start']:.1f} at the start\n"
    )
    print("| type | job | files read | time | over copying the target | peak memory | of it the job's own |")
    print("|---|---|---|---|---|---|---|")
    for dtype, result in report["results"].items():
        for job, row in result["summary"].items():
            read = result["target_bytes"] + (result["vector_bytes"] if job != "copy target" else 0)
            low, high = row["ratio_to_copy_range"]
            print(
                f"| {dtype} | {job} | {read / 1e6:.0f} MB | {row['seconds_median']:.2f} s "
                f"| {row['ratio_to_copy_median']:.2f} ({low:.2f} to {high:.2f}) "
                f"| {row['peak_bytes'] / 1e6:.0f} MB | {row['added_bytes'] / 1e6:.0f} MB |"
            )


if __name__ == "__main__":
    main()
