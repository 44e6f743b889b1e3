"""What drawing a heatmap over a 1080p frame costs, beside OpenCV's blend of the same heatmap: paired, on one core.

    OMP_NUM_THREADS=1 python benchmarks/overlay.py [--out overlay.json]

OpenCV resizes the heatmap (bicubic), colours it with `applyColorMap` and blends with `addWeighted`, as
`show_cam_on_image` of pytorch-grad-cam does, but in 8 bits throughout; it needs opencv-python-headless.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import RESULTS

from edgex.bench.timing import machine
from edgex.runtime.drawing.overlay import STYLES, overlay
from edgex.runtime.view import View

SIZE = (1080, 1920)
ROUNDS = 60
SPOT = ((4.0, 5.0, 1.0, 1.5), (10.0, 9.0, 0.6, 2.5))
"""Row, column, height and width in patches of places of evidence."""


def heatmap() -> np.ndarray:
    """float32 [14, 14]: two places of evidence over noise."""
    rows, columns = np.mgrid[:14, :14]
    noise = 0.1 * np.random.default_rng(0).standard_normal((14, 14))
    places = sum(h * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * w**2)) for y, x, h, w in SPOT)
    return (noise + places).astype(np.float32)


def main() -> None:
    import cv2

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "overlay.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    picture = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    heat, view = heatmap(), View(SIZE, SIZE, (0, 0), SIZE)

    def opencv() -> np.ndarray:
        small = (255 * np.clip(heat / heat.max(), 0, 1)).astype(np.uint8)
        coloured = cv2.applyColorMap(cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC), cv2.COLORMAP_PLASMA)
        return cv2.addWeighted(picture, 0.5, coloured, 0.5, 0)

    def edgex(style: str) -> Callable[[], np.ndarray]:
        return lambda: overlay(picture, heat, view, style=style)  # type: ignore[arg-type]

    ways: dict[str, Callable[[], np.ndarray]] = {"opencv": opencv, **{style: edgex(style) for style in STYLES}}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, draw in ways.items():
            start = time.process_time()
            draw()
            seconds[name].append(time.process_time() - start)
    rows = {
        name: {
            "milliseconds": round(1e3 * float(np.median(found)), 2),
            "over_opencv": round(float(np.median(np.array(found) / np.array(seconds["opencv"]))), 2),
        }
        for name, found in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name:10} {row['milliseconds']:6.2f} ms of one core, {row['over_opencv']:.2f} times OpenCV's")
    result = {"machine": machine(("numpy", "pillow", "opencv-python-headless")), "frame": SIZE, "draws": rows}
    arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
