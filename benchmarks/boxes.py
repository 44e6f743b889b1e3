"""Do the boxes of `Result.boxes` fit those that people drew? Steel defects (neu): precision and recall at IoU 0.3.

    python benchmarks/boxes.py --data DATA --model NEU.onnx [--train 300]

NEU.onnx is a predictor fine-tuned on DATA/neu, baked with the built-in vector and exported. Of each picture, the class
that the model predicts is explained. A box is right if its intersection over union with a box of the picture that no
stronger box has taken is at least 0.3; precision is the share of boxes that are right, recall the share of people's
boxes that were found. Every way takes the options of the highest F1 on pictures of train and is measured with them on
all pictures of test: "apart" has a box for each region (as `boxes` had before it merged), "merged" also chooses how far
apart regions may be that are one, and which are too small, "defaults" takes those of `boxes` and chooses the threshold
alone. Results go to results/boxes.json and .md.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, log, save

from edgex.bench.timing import machine
from edgex.data import image_folders
from edgex.runtime import Result, Session
from edgex.runtime.regions import LEAST_AREA, MERGE, find_boxes
from edgex.utils.provenance import sha256_of

IOU = 0.3
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
WAYS: dict[str, dict[str, tuple[float, ...]]] = {
    "apart": {"merge": (0.0,), "least_area": (0.0,)},
    "defaults": {"merge": (MERGE,), "least_area": (LEAST_AREA,)},
    "merged": {"merge": (0.0, 1.0, 2.0, 3.0), "least_area": (0.0, 0.25, 1.0, 2.0, 4.0)},
}

Corners = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels."""
Explained = Sequence[tuple[Result, Sequence[Corners]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--train", type=int, default=300, help="Pictures of train.")
    parser.add_argument("--out", type=Path, default=RESULTS / "boxes.json")
    arguments = parser.parse_args()
    folder = arguments.data / "neu"
    with Session(arguments.model, "cpu", threads=1) as session:
        explained = {
            "train": _explained(session, folder, "train", arguments.train),
            "test": _explained(session, folder, "test", None),
        }
    report: dict[str, Any] = {
        "iou": IOU,
        "pictures": {split: len(found) for split, found in explained.items()},
        "boxes": {split: sum(len(boxes) for _, boxes in found) for split, found in explained.items()},
        "model_sha256": sha256_of(arguments.model),
        "machine": machine(("onnxruntime",)),
        "ways": {},
    }
    for name, options in WAYS.items():
        names = ("threshold", *options)
        choices = [dict(zip(names, values, strict=True)) for values in itertools.product(THRESHOLDS, *options.values())]
        best = max(choices, key=lambda choice: measured(explained["train"], choice)["f1"])
        found = {split: measured(explained[split], best) for split in explained}
        log(f"{name}: {best}, {found['test']}")
        report["ways"][name] = {"options": best, **found}
    save(report, as_markdown(report), arguments.out)


def _explained(session: Session, folder: Path, split: str, count: int | None) -> Explained:
    paths = image_folders.list_images([folder / split])
    chosen = paths if count is None else image_folders.subsample_evenly(paths, count)
    boxes = json.loads((folder / "boxes.json").read_text())
    return [(session(path), boxes[path.relative_to(folder).as_posix()]) for path in chosen]


def measured(explained: Explained, options: dict[str, float]) -> dict[str, float]:
    """Precision, recall, F1 and the mean number of boxes of a picture."""
    right = found = wanted = 0
    for result, boxes in explained:
        drawn = find_boxes(result.heatmap, result.view, **options)  # type: ignore[arg-type]
        right += _matches([(box.left, box.top, box.right, box.bottom) for box in drawn], boxes)
        found += len(drawn)
        wanted += len(boxes)
    precision, recall = right / max(found, 1), right / wanted
    return {
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 3),
        "boxes_per_picture": round(found / len(explained), 2),
    }


def _matches(found: Sequence[Corners], wanted: Sequence[Corners]) -> int:
    """How many of the boxes, strongest first, fit one of people's that is left."""
    left = list(wanted)
    count = 0
    for box in found:
        fits = [_iou(box, other) for other in left]
        if fits and max(fits) >= IOU:
            left.pop(int(np.argmax(fits)))
            count += 1
    return count


def _iou(one: Corners, other: Corners) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (area - both)


def as_markdown(report: dict[str, Any]) -> str:
    rows = [
        "| way | threshold | merge, patches | least area, patches | precision | recall | F1 | boxes per picture |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, way in report["ways"].items():
        options, test = way["options"], way["test"]
        rows.append(
            f"| {name} | {options['threshold']:g} | {options['merge']:g} | {options['least_area']:g} | "
            f"{test['precision']:.3f} | {test['recall']:.3f} | {test['f1']:.3f} | {test['boxes_per_picture']:.2f} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
