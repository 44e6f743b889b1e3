"""The main job end to end on the built-in models: bake, export, run on sample pictures, draw, time.

    import edgex.demo
    result = edgex.demo.demo("demo-output")

Printing is the command line's; how a latency is measured for a claim is `edgex.bench`.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgex import samples
from edgex.errors import UsageError
from edgex.evaluation.sheet import sheet
from edgex.export import export_onnx
from edgex.files import zoo
from edgex.files.vector_file import load_vector_card
from edgex.runtime import Session
from edgex.runtime.frames import read_picture
from edgex.utils.output import save_picture
from edgex.vectors.bake import add_vector

PASSES = 150
_SINGLES = 9


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A sample picture with what a model says of it. score: the predicted class's probability, in [0, 1].

    error: |sum(heatmap) + base - centred logit|, which is 0 but for rounding. overlay: the file with the heatmap.
    """

    picture: Path
    model: str
    label: str
    score: float
    error: float
    overlay: Path


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo made. files: the models and exported files. one_pass, many_passes: median milliseconds of one pass
    with class and heatmap, and of 150 of them. sheet: all pictures side by side.
    """

    pictures: tuple[Drawn, ...]
    files: tuple[Path, ...]
    one_pass: float
    many_passes: float
    sheet: Path


def demo(
    out: str | os.PathLike[str] = "demo-output",
    *,
    rounds: int = 3,
    report: Callable[[str], None] | None = None,
) -> Demo:
    """Bakes cars with the imagenet vector, exports it, runs it on the sample pictures, draws and times it.

    out: folder for the models and pictures; what an earlier demo left there is replaced. rounds: paired rounds of the
    timing, whose medians count. report: called with each step as it begins.
    """
    if rounds < 1:
        raise UsageError(f"expected at least 1 round, found {rounds}", argument="rounds")
    say = report or (lambda _: None)
    out = Path(out)
    baked = out / "cars-baked.safetensors"
    vector = zoo.BUILT_IN / "imagenet.safetensors"
    alpha = load_vector_card(vector)[0].alpha
    # Not `edgex.bake`, whose result would become the newest bake, the user's own.
    add_vector(zoo.BUILT_IN / "cars.safetensors", vector, baked, alpha=alpha)
    say(f"baked cars + {alpha:g} x imagenet")
    models = {"cars": baked, "imagenet-1k": zoo.BUILT_IN / "imagenet-1k.safetensors"}
    files: list[Path] = []
    drawn: list[Drawn] = []
    timing = 0.0, 0.0
    for name, model in models.items():
        target = out / f"{name}.onnx"
        say(f"exporting {target}")
        export_onnx(model, target, force=True)
        files += [model, target]
        with Session(target, provider="cpu") as session:
            drawn += [_draw(session, name, path, out) for path in samples.paths(name)]
            if name == "cars":
                timing = _timing(session, rounds, say)
    captioned = [
        (f"{entry.label} {100 * entry.score:.0f}%", [read_picture(entry.picture), read_picture(entry.overlay)])
        for entry in drawn
    ]
    save_picture(np.asarray(sheet(captioned, columns=2)), out / "sheet.png")
    return Demo(tuple(drawn), tuple(files), *timing, out / "sheet.png")


def _draw(session: Session, model: str, path: Path, out: Path) -> Drawn:
    result = session(path)
    overlay = out / f"{path.stem}.png"
    save_picture(result.overlay(path), overlay)
    error = abs(float(result.heatmap.sum()) + result.base - float(result.logits.max() - result.logits.mean()))
    return Drawn(path, model, result.label, result.score, error, overlay)


def _timing(session: Session, rounds: int, say: Callable[[str], None]) -> tuple[float, float]:
    """Median milliseconds of one pass and of 150 passes of the same file, taken in turn."""
    image = session.preprocessing.array(read_picture(samples.paths("cars")[0]))[np.newaxis]
    explain = np.array([-1])
    single, many = [], []
    for _ in range(rounds):
        say(f"timing: 1 pass, then {PASSES} passes")
        single.append(statistics.median(_milliseconds(session, image, explain, 1) for _ in range(_SINGLES)))
        many.append(_milliseconds(session, image, explain, PASSES))
    return statistics.median(single), statistics.median(many)


def _milliseconds(session: Session, image: np.ndarray, explain: np.ndarray, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        session.run(image, explain)
    return 1000 * (time.perf_counter() - start)
