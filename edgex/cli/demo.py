"""`edgex demo`: the main job end to end on the built-in artefacts: bake, export, run, draw, compare."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.command import Command
from edgex.cli.console import note, save_picture

if TYPE_CHECKING:
    import numpy as np

    from edgex.runtime import Session

PASSES = 150


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo", cls=Command)(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the models and the pictures.")] = Path("demo-output"),
    rounds: Annotated[int, typer.Option(min=1, help="Paired rounds of the timing; the medians count.")] = 3,
) -> None:
    """Bake cars with imagenet, export it, run it on the sample pictures, draw and time it."""
    import numpy as np

    from edgex import samples
    from edgex.evaluation.sheet import sheet
    from edgex.files import zoo
    from edgex.files.vector_file import load_vector_card
    from edgex.vectors.bake import bake

    vector = zoo.BUILT_IN / "imagenet.safetensors"
    baked = out / "cars-baked.safetensors"
    alpha = load_vector_card(vector)[0].alpha
    bake(zoo.BUILT_IN / "cars.safetensors", vector, baked, alpha=alpha)
    note(f"baked cars + {alpha:g} x imagenet")
    rows: list[tuple[str, ...]] = []
    drawn: list[tuple[str, list[np.ndarray]]] = []
    files: list[tuple[str, ...]] = []
    for name, model in (("cars", baked), ("imagenet-1k", zoo.BUILT_IN / "imagenet-1k.safetensors")):
        session = _export(name, model, out, files)
        for path in samples.paths(name):
            result = session(path)
            picture = out / f"{path.stem}.png"
            overlay = result.overlay(path)
            save_picture(overlay, picture)
            drawn.append((f"{result.label} {100 * result.score:.0f}%", [np.asarray(_open(path)), overlay]))
            error = abs(float(result.heatmap.sum()) + result.base - float(result.logits.max() - result.logits.mean()))
            rows.append((path.name, name, result.label, f"{100 * result.score:.1f}%", f"{error:.0e}", str(picture)))
        if name == "cars":
            timing = _timing(session, rounds)
        session.close()
    save_picture(np.asarray(sheet(drawn, columns=2)), out / "sheet.png")
    _print(rows, files, timing)
    note(f"all pictures side by side: {out / 'sheet.png'}")


def _export(name: str, model: Path, out: Path, files: list[tuple[str, ...]]) -> Session:
    from edgex import samples
    from edgex.data import image_folders
    from edgex.export.onnx import write_onnx
    from edgex.files.model_file import load_model
    from edgex.runtime import Session

    loaded = load_model(model)
    target = out / f"{name}.onnx"
    pictures = image_folders.load_batch(samples.paths(), loaded.card.preprocessing)
    note(f"exporting {target}")
    report = write_onnx(loaded.network, loaded.card, target, pictures=pictures, model_sha256=loaded.sha256, force=True)
    files.append((str(model), f"{model.stat().st_size / 1e6:.1f} MB"))
    files.append((str(target), f"{report.size / 1e6:.1f} MB"))
    return Session(target, provider="cpu")


def _timing(session: Session, rounds: int) -> dict[str, float]:
    """Median milliseconds of one fused pass and of 150 passes of the same file, taken in turn."""
    import numpy as np

    from edgex import samples

    image = session.preprocessing.array(_open(samples.paths("cars")[0]))[np.newaxis]
    explain = np.array([-1])
    single, many = [], []
    for _ in range(rounds):
        note(f"timing: 1 pass, then {PASSES} passes")
        single.append(statistics.median(_milliseconds(session, image, explain) for _ in range(9)))
        start = time.perf_counter()
        for _ in range(PASSES):
            session.run(image, explain)
        many.append(1000 * (time.perf_counter() - start))
    return {"one": statistics.median(single), "many": statistics.median(many)}


def _milliseconds(session: Session, image: np.ndarray, explain: np.ndarray) -> float:
    start = time.perf_counter()
    session.run(image, explain)
    return 1000 * (time.perf_counter() - start)


def _open(path: Path) -> Any:
    from PIL import Image

    return Image.open(path)


def _print(rows: list[tuple[str, ...]], files: list[tuple[str, ...]], timing: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130)
    pictures = Table(title="pictures", title_justify="left")
    for heading in ("picture", "model", "class", "score", "|sum + base - logit|", "overlay"):
        pictures.add_column(heading)
    for row in rows:
        pictures.add_row(*row)
    console.print(pictures)
    sizes = Table(title="files", title_justify="left")
    for heading in ("file", "size"):
        sizes.add_column(heading)
    for row in files:
        sizes.add_row(*row)
    console.print(sizes)
    speed = Table(title="latency on this machine (onnxruntime, CPU, medians)", title_justify="left")
    for heading in ("what", "milliseconds", "ratio"):
        speed.add_column(heading, justify="right" if heading != "what" else "left")
    speed.add_row("class and heatmap, one fused pass", f"{timing['one']:.1f}", "1")
    speed.add_row(
        f"{PASSES} passes (what Kernel SHAP runs, without its solver)",
        f"{timing['many']:.0f}",
        f"{timing['many'] / timing['one']:.0f}",
    )
    console.print(speed)
