"""What it costs to make a camera frame the model's input: edgex's window of the resize against Pillow's whole one.

    python benchmarks/preprocess.py [--rounds 15] [--calls 20]

Frames of 720p, 1080p and 4K, uint8 RGB, made from the sample pictures; resized to a short side of 224, the centre of
224 x 224 cut, bicubic. Both give the same pixels, which is checked. edgex reads the array as it is; Pillow wraps it
(`Image.fromarray`, `resize`, `crop`, `numpy.asarray`), at full quality and with `reducing_gap=2`, which is not exact:
its error is given. Interleaved, one thread, the process's CPU time. Results go to results/preprocess.json and .md.
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
from edgex.runtime.preprocess import Preprocessing
from edgex.timing import Contender, Summary, machine, ratio, take_turns

FRAMES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
SIDE = 224
PREPROCESSING = Preprocessing((SIDE, SIDE), SIDE, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OWN, PILLOW, GAP = "edgex", "Pillow", "Pillow, reducing_gap=2"


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
    error = np.abs(by_pillow(frame, 2.0).astype(np.int16) - exact)
    ways = {
        OWN: lambda: PREPROCESSING.array(frame),
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
        "reducing_gap_error": {"mean": float(error.mean()), "max": int(error.max()), "unit": "grey levels of 255"},
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
    errors = ", ".join(
        f"{frame} {found['reducing_gap_error']['mean']:.2f} (largest {found['reducing_gap_error']['max']})"
        for frame, found in report["frames"].items()
    )
    return "\n".join([*lines, "", f"Mean error of reducing_gap=2 in grey levels of 255: {errors}.", ""])


if __name__ == "__main__":
    main()
