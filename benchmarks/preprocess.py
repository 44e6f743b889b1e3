"""What it costs to make a camera frame the model's input: edgex's window of the resize against Pillow's whole one.

    python benchmarks/preprocess.py [--rounds 15] [--calls 20]

Frames of 720p, 1080p and 4K, uint8 RGB, made from the sample pictures; resized to a short side of 224, the centre of
224 x 224 cut, bicubic. Both give the same pixels, which is checked. edgex reads the array as it is; Pillow wraps it
(`Image.fromarray`, `resize`, `crop`, `numpy.asarray`). Two ways are not exact, and their errors are given: edgex's own
with one rounding (`Session(..., exact_resize=False)`) and Pillow's `reducing_gap=2`; also for black and white noise,
the hardest frame there is. Interleaved, one thread, the process's CPU time. Results go to results/preprocess.json and
.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

# One thread, whatever the machine has: matrix products count too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from common import RESULTS, log, save
from PIL import Image

from edgex import samples
from edgex.bench.timing import Contender, Summary, machine, ratio, take_turns
from edgex.runtime.preprocessing import Preprocessing

FRAMES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
SIDE = 224
PREPROCESSING = Preprocessing((SIDE, SIDE), SIDE, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OWN, FAST, PILLOW, GAP = "edgex", "edgex, exact_resize=False", "Pillow", "Pillow, reducing_gap=2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "preprocess.json")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(("numpy", "pillow")), "frames": {}}
    for name, size in FRAMES.items():
        log(name)
        report["frames"][name] = measured(frame_of(size), arguments.rounds, arguments.calls)
    noise = np.random.default_rng(0).integers(0, 2, (*FRAMES["1080p"], 3), dtype=np.uint8) * 255
    report["black_and_white_noise_1080p"] = errors(noise)
    report["machine"]["load_average_at_end"] = machine(())["load_average"]
    save(report, as_markdown(report), arguments.out)


def frame_of(size: tuple[int, int]) -> np.ndarray:
    """A photograph of that height and width, uint8 RGB, with the noise of a sensor: enlarged pictures have none."""
    with Image.open(samples.paths()[0]) as picture:
        frame = np.asarray(picture.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).integers(-6, 7, frame.shape, dtype=np.int16)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def by_pillow(frame: np.ndarray, reducing_gap: float | None = None) -> np.ndarray:
    """The same as users write it."""
    height, width = frame.shape[:2]
    resized = (SIDE, int(SIDE * height / width)) if width < height else (int(SIDE * width / height), SIDE)
    image = Image.fromarray(frame).resize(resized, Image.Resampling.BICUBIC, reducing_gap=reducing_gap)
    left, top = round((resized[0] - SIDE) / 2), round((resized[1] - SIDE) / 2)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def measured(frame: np.ndarray, rounds: int, calls: int) -> dict[str, Any]:
    """CPU ms of each way, and ratios to edgex's."""
    exact = PREPROCESSING.array(frame)
    if not np.array_equal(exact, by_pillow(frame)):
        raise AssertionError("edgex and Pillow give the same pixels")
    ways = {
        OWN: lambda: PREPROCESSING.array(frame),
        FAST: lambda: PREPROCESSING.array(frame, exact=False),
        PILLOW: lambda: by_pillow(frame),
        GAP: lambda: by_pillow(frame, 2.0),
    }
    found = take_turns([Contender(name, run, calls=calls) for name, run in ways.items()], rounds, log)
    return {
        "ways": {
            name: {
                "cpu_ms": Summary.of(times.cpu).to_dict(),
                "wall_ms": Summary.of(times.wall).to_dict(),
                "over_edgex": ratio(times.cpu, found[OWN].cpu).to_dict(),
            }
            for name, times in found.items()
        },
        "errors": errors(frame),
    }


def errors(frame: np.ndarray) -> dict[str, dict[str, Any]]:
    """Of the ways that are not exact, in grey levels of 255."""
    exact = PREPROCESSING.array(frame).astype(np.int16)
    found = {FAST: PREPROCESSING.array(frame, exact=False), GAP: by_pillow(frame, 2.0)}
    differences = {name: np.abs(pixels - exact) for name, pixels in found.items()}
    return {
        name: {"mean": float(off.mean()), "max": int(off.max()), "share_above_1": float((off > 1).mean())}
        for name, off in differences.items()
    }


def as_markdown(report: dict[str, Any]) -> str:
    """One row per frame and way."""
    lines = [
        f"{report['machine']['processor']}, one thread, CPU time; medians with quartiles.",
        "",
        "| frame | way | ms | quartiles | over edgex |",
        "|---|---|---|---|---|",
    ]
    for frame, found in report["frames"].items():
        for name, row in found["ways"].items():
            low, high = row["cpu_ms"]["quartiles"]
            cells = f"{row['cpu_ms']['median']:.2f} | {low:.2f} to {high:.2f} | {row['over_edgex']['median']:.2f}"
            lines.append(f"| {frame} | {name} | {cells} |")
    lines += ["", "Errors in grey levels of 255:", ""]
    lines += ["| frame | way | mean | largest | share above 1 |", "|---|---|---|---|---|"]
    named = {frame: found["errors"] for frame, found in report["frames"].items()}
    for frame, found in {**named, "black and white noise, 1080p": report["black_and_white_noise_1080p"]}.items():
        for name, error in found.items():
            lines.append(f"| {frame} | {name} | {error['mean']:.2f} | {error['max']} | {error['share_above_1']:.2%} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
