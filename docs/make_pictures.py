"""Draws the pictures of README and documentation: `python docs/make_pictures.py`.

Everything comes from the built-in models, the samples of edgex and their files as `edgex export` writes them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgex import samples
from edgex.runtime import Session
from edgex.runtime.colormaps import COLORMAPS
from edgex.runtime.frames import as_frame

IMAGES = Path(__file__).parent / "images"
SURE = ("panda", "macaw", "komodo", "dog")
SIDE, GAP, TEXT = 300, 8, 26


def main() -> None:
    """Exports both built-in models and draws all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        imagenet = Session(_export("imagenet-1k", Path(folder)), "cpu")
        cars = Session(_export("cars", Path(folder)), "cpu")
        _draw([_shown(imagenet, name) for name in SURE], IMAGES / "heatmaps.jpg")
        why = [_shown(imagenet, "dog", name, "signed") for name in ("German Shepherd Dog", "Malinois", "Bloodhound")]
        _draw(why, IMAGES / "why_not.jpg")
        wrong = [_shown(imagenet, "rocket"), _shown(cars, "suv"), _shown(cars, "sedan"), _shown(imagenet, "cat")]
        _draw(wrong, IMAGES / "unsure.jpg")


def _export(name: str, folder: Path) -> Path:
    from edgex.cli.application import app

    out = folder / f"{name}.onnx"
    model = name
    if name == "cars":
        model = str(folder / "cars-baked.safetensors")
        app(["bake", "--target", "cars", "--vector", "imagenet", "--out", model], standalone_mode=False)
    app(["export", model, "--onnx", "fp32", "--out", str(out)], standalone_mode=False)
    return out


def _shown(
    session: Session, name: str, explain: str | None = None, colormap: str = COLORMAPS[0]
) -> tuple[str, list[Image.Image]]:
    """Caption, and picture and overlay as far as the model sees them."""
    path = samples.FOLDER / f"{name}.jpg"
    result = session(path, explain=explain)
    top, left, bottom, right = result.view.seen
    shown = result.index if explain is None else session.class_number(explain)
    caption = f"{session.classes[shown]} {100 * result.probabilities[shown]:.0f}%"
    pixels = [as_frame(path).rgb(), result.overlay(path, colormap=colormap)]
    rows, columns = slice(round(top), round(bottom)), slice(round(left), round(right))
    crops = [Image.fromarray(np.ascontiguousarray(p[rows, columns])) for p in pixels]
    return caption, [crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for crop in crops]


def _draw(columns: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    """Pictures above their overlays, a caption under each column."""
    height = len(columns[0][1])
    size = (len(columns) * (SIDE + GAP) - GAP, height * (SIDE + GAP) + TEXT)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for i, (caption, pictures) in enumerate(columns):
        left = i * (SIDE + GAP)
        for row, picture in enumerate(pictures):
            canvas.paste(picture, (left, row * (SIDE + GAP)))
        draw.text((left + SIDE / 2, size[1] - TEXT), caption, "black", ImageFont.load_default(18), anchor="ma")
    canvas.save(path, quality=88, optimize=True)


if __name__ == "__main__":
    main()
