"""How often drift is reported where there is none, and how soon where there is.

    python benchmarks/drift.py --data DATA [--model imagenet-1k] [--work WORK]

The model says what it sees of --pictures pictures of DATA/imagenet, then of the same pictures darkened, blurred and
shifted, and of other domains. From these answers, streams are drawn: validation and stream with replacement from the
same 1000 answers, which are exchangeable, or with scenes that last; and streams that change to another condition.
--work keeps the answers. Results go to results/drift.json and .md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
from PIL import Image, ImageFilter

from edgex.data.image_folders import list_images, subsample_evenly
from edgex.runtime import Session
from edgex.runtime.drift import EVERY, FEWEST, LEAST, LEVEL, WINDOW, DriftMonitor, chance, distance, observation_of
from edgex.runtime.frames import as_frame
from edgex.runtime.sketch import Observation, Sketch

VALIDATION = 500
RUNS, FRAMES = 200, 2000
DETECTIONS, BEFORE, AFTER = 30, 600, 1000
OTHERS = ("neu", "dtd", "ucmerced")
SIDE = 256
Answers = list[Observation]


def darkened(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: value // 5)


def covered(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: value // 50)


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(picture.height / 40))


def shifted(picture: Image.Image) -> Image.Image:
    """By 45% of the width; the rest is black, as if something stood before the camera."""
    moved = Image.new("RGB", picture.size)
    moved.paste(picture, (round(0.45 * picture.width), 0))
    return moved


CONDITIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as in validation": lambda picture: picture,
    "darkened to a fifth": darkened,
    "darkened to a fiftieth": covered,
    "blurred": blurred,
    "shifted by 45% of the width": shifted,
}


def answers(session: Session, paths: Sequence[Path], change: Callable[[Image.Image], Image.Image]) -> Answers:
    found = []
    for path in paths:
        picture = Image.fromarray(as_frame(path).rgb())
        scale = SIDE / min(picture.size)
        picture = picture.resize(
            (round(scale * picture.width), round(scale * picture.height)), Image.Resampling.BICUBIC
        )
        found.append(observation_of(session(change(picture))))
    return found


def all_answers(model: str, data: Path, count: int, work: Path) -> dict[str, Answers]:
    """Condition -> answers, kept in `work`."""
    found: dict[str, Answers] = {}
    fused = work / "model.onnx"
    if not fused.exists():
        common.Subject.load(model, None).export("fp32", fused)
    with Session(fused, "cpu", threads=1) as session:
        pictures = subsample_evenly(list_images([data / "imagenet"]), count)
        places: dict[str, tuple[Sequence[Path], Callable[[Image.Image], Image.Image]]] = {
            name: (pictures, change) for name, change in CONDITIONS.items()
        }
        for name in OTHERS:
            places[name] = (
                subsample_evenly(list_images([data / name / "test"]), count // 2),
                CONDITIONS["as in validation"],
            )
        for name, (paths, change) in places.items():
            kept = work / f"{name.replace(' ', '-').replace('%', '')}.npy"
            if not kept.exists():
                common.log(f"{name}: {len(paths)} pictures")
                rows = [(o.score, o.index, o.border, o.entropy) for o in answers(session, paths, change)]
                np.save(kept, np.array(rows))
            found[name] = [Observation(a, int(b), c, d) for a, b, c, d in np.load(kept).tolist()]
    return found


def drawn(rng: np.random.Generator, of: Answers, count: int, scene: int = 1) -> Iterator[Observation]:
    """With replacement. scene: mean length of scenes, which is geometric."""
    while count > 0:
        length = min(int(rng.geometric(1 / scene)), count)
        count -= length
        chosen = of[int(rng.integers(len(of)))]
        yield from [chosen] * length


def watched(rng: np.random.Generator, of: Answers, classes: int) -> DriftMonitor:
    sketch = Sketch.of(drawn(rng, of, VALIDATION), classes)
    return DriftMonitor(sketch, [str(number) for number in range(classes)])


def false_alarms(of: Answers, classes: int, scene: int) -> dict[str, Any]:
    rng = np.random.default_rng(scene)
    warned, warnings = 0, 0
    for _ in range(RUNS):
        monitor = watched(rng, of, classes)
        for observation in drawn(rng, of, FRAMES, scene):
            monitor.observe(lambda value: value, observation)
        warned += monitor.raised > 0
        warnings += monitor.raised
    common.log(f"scenes of {scene}: {warned} of {RUNS} runs")
    looks = RUNS * ((FRAMES - FEWEST) // EVERY + 1)
    return {"scene": scene, "runs": RUNS, "runs_with_a_warning": warned, "warnings": warnings, "looks": looks}


def single_looks(of: Answers, classes: int, runs: int = 1000) -> dict[str, Any]:
    """How often a single comparison exceeds what chance exceeds with a probability of 5%, without a least distance."""
    rng = np.random.default_rng(0)
    exceeded = dict.fromkeys(Sketch.empty(classes).counts, 0)
    for _ in range(runs):
        validation, live = (Sketch.of(drawn(rng, of, count), classes) for count in (VALIDATION, WINDOW))
        size = 1 / (1 / VALIDATION + 1 / WINDOW)
        for quantity in exceeded:
            exceeded[quantity] += distance(quantity, validation, live) > chance(quantity, validation + live, size, 0.05)
    return {"level": 0.05, "runs": runs, **{name: count / runs for name, count in exceeded.items()}}


def detections(found: dict[str, Answers], name: str, classes: int, scene: int) -> dict[str, Any]:
    rng = np.random.default_rng(scene)
    usual = found["as in validation"]
    delays: list[int] = []
    reasons: dict[str, int] = {}
    early = 0
    for _ in range(DETECTIONS):
        monitor = watched(rng, usual, classes)
        for observation in drawn(rng, usual, BEFORE, scene):
            monitor.observe(lambda value: value, observation)
        early += monitor.raised > 0
        for number, observation in enumerate(drawn(rng, found[name], AFTER, scene), 1):
            monitor.observe(lambda value: value, observation)
            if monitor.warnings:
                delays.append(number)
                break
        for warning in monitor.warnings:
            reasons[warning.quantity] = reasons.get(warning.quantity, 0) + 1
    whole = {q: Sketch.of(found[name], classes) for q in ("score", "border", "entropy")}
    apart = {q: round(distance(q, sketch, Sketch.of(usual, classes)), 3) for q, sketch in whole.items()}
    return {
        "condition": name,
        "scene": scene,
        "runs": DETECTIONS,
        "detected": len(delays),
        "median_delay": float(np.median(delays)) if delays else None,
        "slowest": max(delays, default=None),
        "warned_before": early,
        "reasons": reasons,
        "distances": apart,
    }


def costs(classes: int) -> dict[str, float]:
    """Microseconds of processor time of a frame at 14 x 14 patches, and of one look."""
    rng = np.random.default_rng(0)
    heatmap = rng.standard_normal((14, 14)).astype(np.float32)
    reference = Sketch.of([Observation.of(float(s), 0, heatmap) for s in rng.random(500)], classes)
    monitor = DriftMonitor(reference, [str(number) for number in range(classes)])
    values = rng.random(2000)

    def watch() -> None:
        for value in values:
            monitor.observe(lambda score: Observation.of(score, 0, heatmap), value)

    each = min(timeit.repeat(watch, timer=time.process_time, number=1, repeat=9))
    look = partial(monitor._look, spaced=False)
    looks = min(timeit.repeat(look, timer=time.process_time, number=50, repeat=9)) / 50
    return {"frame_us": round(1e6 * each / len(values), 1), "look_us": round(1e6 * looks, 1)}


def table(report: dict[str, Any]) -> str:
    lines = [
        f"Model {report['model']}, {report['pictures']} pictures of ImageNet, validation of {VALIDATION}; a window of "
        f"{WINDOW} pictures, a look every {EVERY}, level {LEVEL:g}, least distance {LEAST}.",
        "",
        f"| a stream like validation | runs of {FRAMES} frames | with a warning | looks at 4 quantities each |",
        "|---|---|---|---|",
    ]
    for row in report["false_alarms"]:
        what = "each frame another picture" if row["scene"] == 1 else f"scenes of {row['scene']} frames on average"
        lines.append(f"| {what} | {row['runs']} | {row['runs_with_a_warning']} | {row['looks']} |")
    single = report["single_looks"]
    rates = ", ".join(f"{name} {100 * single[name]:.1f}%" for name in ("score", "border", "entropy", "classes"))
    lines += [
        "",
        f"One look at the level 5%, without a least distance, exceeds it in: {rates} of {single['runs']} runs.",
    ]
    lines += [
        "",
        "| the stream changes to | scenes | found | median delay, frames | distance of score, border, entropy |",
        "|---|---|---|---|---|",
    ]
    for row in report["detections"]:
        delay = "-" if row["median_delay"] is None else f"{row['median_delay']:.0f}"
        apart = ", ".join(f"{value:.2f}" for value in row["distances"].values())
        scene = "1 frame" if row["scene"] == 1 else f"{row['scene']} frames"
        lines.append(f"| {row['condition']} | {scene} | {row['detected']} of {row['runs']} | {delay} | {apart} |")
    cost = report["costs"]
    lines += [
        "",
        f"A frame costs {cost['frame_us'] / 1000:.3f} ms of one core, looks included; "
        f"one look {cost['look_us'] / 1000:.2f} ms.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="imagenet-1k")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        found = all_answers(arguments.model, arguments.data, arguments.pictures, work)
    from edgex.bench.timing import machine

    usual, classes = found["as in validation"], 1000
    report: dict[str, Any] = {
        "model": arguments.model,
        "pictures": len(usual),
        "machine": machine(("numpy", "onnxruntime")),
    }
    report["costs"] = costs(classes)
    common.log("false alarms")
    report["false_alarms"] = [false_alarms(usual, classes, scene) for scene in (1, 5, 20, 60)]
    report["single_looks"] = single_looks(usual, classes)
    common.log("detections")
    names = [name for name in found if name != "as in validation"]
    report["detections"] = [detections(found, name, classes, scene) for scene in (1, 5) for name in names]
    common.save(report, table(report), common.RESULTS / "drift.json")


if __name__ == "__main__":
    main()
