"""Many frames through one Session: does memory grow, are file handles left open, do results stay the same?

    python benchmarks/soak.py [--frames 100000] [--model FILE] [--precision fp32|int8] [--threads 1] [--out FILE]

Without --model, the built-in `cars` is exported first. Frames of several sizes, and one in fifty of another kind (grey,
RGBA, a PIL picture, a file, a JPEG from memory) take turns; every tenth asks for a class by name, and every
hundredth also draws the overlay, the boxes and the JSON. Each thousandth frame is the same one: its result must be the
same to the last bit. Resident memory, file handles and threads are read after the warm-up (the first tenth, at most
5000 frames) and from then on; memory is flat where a line through the second half of the readings grows by less than
`--allowed` MB over the whole run.

Exit code 0 where everything stayed flat, 1 otherwise. The report is written as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgex.bench.timing import machine
from edgex.runtime import Session

SIZES = ((120, 160), (224, 224), (240, 320), (97, 333), (480, 270))
READINGS = 200
"""How often memory is read, evenly spread."""
SAME_EVERY = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--model", type=Path, help="an exported file; by default cars is exported")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32", help="of the exported cars")
    parser.add_argument("--image-size", type=int, default=224, help="of the exported cars, in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--allowed", type=float, default=4.0, help="growth that counts as flat, in MB")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "soak.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgex-soak-") as folder:
        model = arguments.model or export_cars(Path(folder), arguments.precision, arguments.image_size)
        report = soak(model, Path(folder), arguments.frames, arguments.threads, arguments.allowed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "readings"}, indent=2))
    print(f"written: {arguments.out}", file=sys.stderr)
    sys.exit(0 if report["flat"] else 1)


def export_cars(folder: Path, precision: str, side: int) -> Path:
    """In a process of its own: torch and the exporter must not count as the session's memory."""
    import subprocess

    program = (
        "import sys; from pathlib import Path; from edgex import data, samples, zoo;"
        "from edgex.files.model_file import load_model; from edgex.export.onnx import write_onnx;"
        "from edgex.files.input_size import at_image_size;"
        "model, card = at_image_size(*load_model(zoo.BUILT_IN / 'cars.safetensors'), (int(sys.argv[3]),) * 2);"
        "pictures = data.load_batch(samples.paths(), card.preprocessing);"
        "thresholds = {'top1_agreement': 0.0} if sys.argv[2] == 'int8' else {};"
        "write_onnx(model, card, Path(sys.argv[1]), pictures=pictures, model_sha256='0' * 64, precision=sys.argv[2],"
        " thresholds=thresholds)"
    )
    path = folder / f"cars at {side} px.onnx"
    print(f"exporting cars in {precision}", file=sys.stderr)
    subprocess.run([sys.executable, "-c", program, str(path), precision, str(side)], check=True)
    return path


def soak(model: Path, folder: Path, frames: int, threads: int, allowed: float) -> dict[str, Any]:
    """Runs the frames; returns the report. Memory in MB, times in seconds."""
    pictures = make_pictures(folder)
    warm = min(frames // 10, 5000)
    every = max(1, (frames - warm) // READINGS)
    readings: list[dict[str, float]] = []
    first: Any = None
    changed = 0
    with Session(model, "cpu", threads=threads) as session:
        start = last = time.monotonic()
        for number in range(frames):
            result = run(session, pictures, number)
            if number % SAME_EVERY == 0:
                first = first or result
                changed += not same(first, result)
            if number >= warm and (number - warm) % every == 0:
                readings.append({"frame": number, "seconds": time.monotonic() - start, **usage()})
            if time.monotonic() - last > 5:
                last = time.monotonic()
                print(f"{number} of {frames}, {number / (last - start):.1f}/s, {usage()}", file=sys.stderr, flush=True)
        seconds = time.monotonic() - start
        readings.append({"frame": frames, "seconds": seconds, **usage()})
    memory = [reading["memory"] for reading in readings]
    half = readings[len(readings) // 2 :]
    slope = np.polyfit([reading["frame"] for reading in half], [reading["memory"] for reading in half], 1)[0]
    handles = [reading["handles"] for reading in readings]
    growth = float(slope) * frames
    return {
        "model": model.name,
        "frames": frames,
        "warm_up": warm,
        "threads": threads,
        "seconds": seconds,
        "memory_after_warm_up": memory[0],
        "memory_at_end": memory[-1],
        "memory_highest": max(memory),
        "growth_over_run": growth,
        "allowed_growth": allowed,
        "handles_after_warm_up": handles[0],
        "handles_at_end": handles[-1],
        "process_threads_at_end": readings[-1]["threads"],
        "repeated_results_that_changed": changed,
        "flat": bool(growth < allowed and handles[-1] <= handles[0] and not changed),
        "machine": machine(("numpy", "pillow", "onnxruntime")),
        "readings": readings,
    }


def make_pictures(folder: Path) -> list[Any]:
    """Arrays of all sizes, and one of each other kind that a session takes."""
    rng = np.random.default_rng(0)
    arrays: list[Any] = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    Image.fromarray(arrays[1]).save(folder / "a.jpg")
    Image.fromarray(arrays[2]).save(folder / "a.png")
    grey, rgba = arrays[0][..., 0], np.dstack([arrays[3], arrays[3][..., 0]])
    return [*arrays, grey, rgba, Image.fromarray(arrays[4]), folder / "a.jpg", folder / "a.png"]


def run(session: Session, pictures: list[Any], number: int) -> Any:
    """One frame, as an application would use it."""
    kinds = len(pictures) - len(SIZES)
    rare = number % 50 == 49
    index = len(SIZES) + number // 50 % kinds if rare else number % len(SIZES)
    picture = pictures[0] if number % SAME_EVERY == 0 else pictures[index]
    explain = session.classes[number % len(session.classes)] if number % 10 == 5 else None
    result = session(picture, explain=explain)
    if number % 100 == 0:
        result.overlay(picture)
        result.boxes()
        result.to_json()
    return result


def same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a.logits, b.logits) and np.array_equal(a.heatmap, b.heatmap) and a.base == b.base)


def usage() -> dict[str, float]:
    """Resident memory in MB, open file handles and threads of this process (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "memory": round(int(status["VmRSS"].split()[0]) / 1024, 2),
        "handles": len(list(Path("/proc/self/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


if __name__ == "__main__":
    main()
