"""Is a small object located more exactly by a finer heatmap? Shifted views and tiles against one pass.

    python benchmarks/finer.py --data DATA [--count 120]

Boxed objects of tinyimagenet's test pictures, cut out and enlarged to 80 pixels on their longer side, are planted at
random places into pictures of `varied`, enlarged to frames of 448 x 448 pixels: a patch of the plain heatmap is 32
pixels of the frame. The built-in imagenet-1k model (DeiT-tiny, fp32) explains the object's class. `heatmap_on` is
compared with the planted box: the intersection over union of as many of the strongest pixels as the box has, the share
of positive evidence inside, how far the strongest pixel is from the box's centre, and whether it lies inside. Means
with standard errors, and paired differences from the plain heatmap with 95% intervals. Results go to
results/finer.json and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, Subject, log, measured_on, save
from localisation import WORDNET_DIGITS
from PIL import Image

from edgex.bench.timing import machine
from edgex.data import image_folders
from edgex.runtime import Result, Session

SIDE, LONGEST = 448, 80
METRICS = {
    "iou": "IoU at matched area",
    "mass": "relevance mass inside",
    "off": "strongest pixel from the centre, pixels",
    "hit": "strongest pixel inside",
}
PLAIN = "one pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--out", type=Path, default=RESULTS / "finer.json")
    arguments = parser.parse_args()
    subject = Subject.load("imagenet-1k", None)
    squashed = subject.card.preprocessing.fitted("squash")
    subject = dataclasses.replace(subject, card=dataclasses.replace(subject.card, preprocessing=squashed))
    report = subject.describe()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fp32.onnx"
        subject.export("fp32", path, max_batch=16)
        found = measured(path, arguments.data, arguments.count)
    report["machine"]["load_average_at_end"] = machine(())["load_average"]
    report |= {"count": arguments.count, "ways": summaries(found)}
    save(report, as_markdown(report), arguments.out)


def measured(path: Path, data: Path, count: int) -> dict[str, dict[str, list[float]]]:
    """Way -> metric -> a value per picture."""
    with (
        Session(path, "cpu", threads=1) as plain,
        Session(path, "cpu", threads=1, tiles=(2, 2), overlap=0.3) as tiled,
    ):
        ways: dict[str, Callable[[np.ndarray, int], Result]] = {
            PLAIN: lambda frame, number: plain(frame, number),
            **{f"{n} x {n} shifts, {n * n} passes": shifted(plain, n) for n in (2, 3, 4)},
            "2 x 2 tiles, 4 passes": lambda frame, number: tiled(frame, number),
        }
        found: dict[str, dict[str, list[float]]] = {way: {metric: [] for metric in METRICS} for way in ways}
        for number, (frame, box, index) in enumerate(planted(data, count)):
            log(f"picture {number + 1} of {count}")
            for way, explain in ways.items():
                for metric, value in scores(explain(frame, index), box).items():
                    found[way][metric].append(value)
    return found


def shifted(session: Session, shifts: int) -> Callable[[np.ndarray, int], Result]:
    """Explains a class of a frame with so many shifts in each direction."""
    return lambda frame, number: session.finer(frame, shifts, number)


def planted(data: Path, count: int) -> Any:
    """Frames uint8 [448, 448, 3], boxes (top, left, bottom, right) and classes' positions."""
    rng = np.random.default_rng(0)
    numbers = sorted({path.name[:WORDNET_DIGITS] for path in image_folders.list_images([data / "imagenet"])})
    boxes = json.loads((data / "tinyimagenet" / "boxes.json").read_text())
    objects = [(name, box[0]) for name, box in sorted(boxes.items()) if name.startswith("test/") and len(box) == 1]
    backgrounds = image_folders.list_images([data / "varied"])
    for place in rng.permutation(len(objects))[:count]:
        name, (x0, y0, x1, y1) = objects[place]
        with Image.open(data / "tinyimagenet" / name) as picture:
            thing = picture.convert("RGB").crop((x0, y0, x1 + 1, y1 + 1))
        scale = LONGEST / max(thing.size)
        thing = thing.resize((max(1, round(thing.width * scale)), max(1, round(thing.height * scale))))
        with Image.open(backgrounds[rng.integers(len(backgrounds))]) as picture:
            frame = picture.convert("RGB").resize((SIDE, SIDE))
        left, top = int(rng.integers(SIDE - thing.width)), int(rng.integers(SIDE - thing.height))
        frame.paste(thing, (left, top))
        box = (top, left, top + thing.height, left + thing.width)
        yield np.asarray(frame), box, numbers.index(Path(name).parent.name[:WORDNET_DIGITS])


def scores(result: Result, box: tuple[int, int, int, int]) -> dict[str, float]:
    """Of the heatmap in frame pixels."""
    heat = result.heatmap_on()
    inside = np.zeros(heat.shape, bool)
    inside[box[0] : box[2], box[1] : box[3]] = True
    chosen = np.zeros(heat.size, bool)
    chosen[np.argpartition(-heat.ravel(), inside.sum())[: inside.sum()]] = True
    both = (chosen & inside.ravel()).sum()
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    positive = np.maximum(heat, 0)
    return {
        "iou": float(both / (2 * inside.sum() - both)),
        "mass": float(positive[inside].sum() / max(positive.sum(), 1e-9)),
        "off": float(np.hypot(y + 0.5 - (box[0] + box[2]) / 2, x + 0.5 - (box[1] + box[3]) / 2)),
        "hit": float(inside[y, x]),
    }


def summaries(found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Mean, standard error and median of each, and the paired difference from one pass."""
    return {
        way: {
            metric: {
                **estimate(values),
                "median": float(np.median(values)),
                "minus_one_pass": estimate(np.subtract(values, found[PLAIN][metric])),
            }
            for metric, values in metrics.items()
        }
        for way, metrics in found.items()
    }


def estimate(values: Any) -> dict[str, float]:
    """Mean with its standard error."""
    return {"mean": float(np.mean(values)), "standard_error": float(np.std(values, ddof=1) / len(values) ** 0.5)}


def as_markdown(report: dict[str, Any]) -> str:
    """One row per way; the differences from one pass with 95% intervals."""
    lines = [
        f"{measured_on(report)} {report['count']} planted objects of {LONGEST} pixels in frames of {SIDE} x {SIDE}; "
        "mean ± standard error, and in brackets the 95% interval of the paired difference from one pass.",
        "",
        f"| heatmap | {' | '.join(METRICS.values())} |",
        "|" + "---|" * (len(METRICS) + 1),
    ]
    for way, metrics in report["ways"].items():
        cells = []
        for metric, found in metrics.items():
            digits = 1 if metric == "off" else 3
            cell = f"{found['mean']:.{digits}f} ± {found['standard_error']:.{digits}f}"
            if way != PLAIN:
                mean, error = (found["minus_one_pass"][key] for key in ("mean", "standard_error"))
                cell += f" [{mean - 1.96 * error:+.{digits}f}, {mean + 1.96 * error:+.{digits}f}]"
            cells.append(cell)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
