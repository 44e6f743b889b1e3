"""Draws the pictures of README and documentation: `python docs/make_pictures.py [--steel STEEL.onnx]`.

Everything comes from the built-in models, the samples of edgex and their files as `edgex export` writes them; frames of
docs/images/frames are listed in SOURCES.txt there. drawing.jpg also needs the package grad-cam, whose
`show_cam_on_image` draws the same heatmaps, and STEEL.onnx: a predictor fine-tuned on NEU's pictures of steel defects,
baked with the built-in vector and exported, as `benchmarks/boxes.py` takes it. Without it, that picture stays as it is.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import drawn_frames
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from edgex import samples
from edgex.runtime import Result, Session
from edgex.runtime.drawing.colormaps import COLORMAPS
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.frames import as_frame

IMAGES = Path(__file__).parent / "images"
SURE = ("panda", "macaw", "komodo", "dog")
SIDE, GAP, TEXT = 300, 8, 26
SCALE = {"floor": 0.035, "limit": 0.238}
"""What `edgex calibrate` finds for the built-in imagenet-1k on 497 pictures of ImageNet, in logits per patch."""
ROW = 200
"""Height of the frames in drawing.jpg."""


def main() -> None:
    """Exports both built-in models and draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steel", type=Path, help="An exported file.")
    steel = parser.parse_args().steel
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        imagenet = Session(_export("imagenet-1k", Path(folder)), "cpu")
        cars = Session(_export("cars", Path(folder)), "cpu")
        _draw([_shown(imagenet, name) for name in SURE], IMAGES / "heatmaps.jpg")
        why = [_shown(imagenet, "dog", name, "signed") for name in ("German Shepherd Dog", "Malinois", "Bloodhound")]
        _draw(why, IMAGES / "why_not.jpg")
        wrong = [_shown(imagenet, "rocket"), _shown(cars, "suv"), _shown(cars, "sedan"), _shown(imagenet, "cat")]
        _draw(wrong, IMAGES / "unsure.jpg")
        _draw([_scaled(imagenet, name) for name in ("a grey plate", "rocket", "macaw")], IMAGES / "scale.jpg")
        if steel is not None:
            _draw_ways(Session(steel, "cpu", fit="squash"), Session(imagenet.path, "cpu", fit="squash"))


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


def _draw_ways(steel: Session, imagenet: Session) -> None:
    """The same heatmaps by pytorch-grad-cam's function and by three styles of edgex, a frame in each row."""
    frames: list[tuple[Session, Any, str | None]] = [
        (steel, drawn_frames.steel(), None),
        (imagenet, IMAGES / "frames" / "shelf.jpg", "orange"),
        (imagenet, drawn_frames.road(), "traffic or street sign"),
        (imagenet, samples.FOLDER / "cat.jpg", None),
    ]
    titles = ("frame", "show_cam_on_image", "edgex: heat", "edgex: contour", "edgex: boxes")
    canvas = Image.new("RGB", (len(titles) * (SIDE + GAP) - GAP, TEXT + len(frames) * (ROW + GAP) - GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        middle = column * (SIDE + GAP) + SIDE / 2
        draw.text((middle, TEXT / 2), title, "black", ImageFont.load_default(18), anchor="mm")
    for row, (session, frame, explain) in enumerate(frames):
        pixels = _fitted(as_frame(frame).rgb())
        result = session(pixels, explain=explain)
        shown = [pixels, _by_grad_cam(result, pixels)]
        shown += [Drawing(style=style).captioned(result, pixels) for style in ("heat", "contour", "boxes")]
        for column, picture in enumerate(shown):
            canvas.paste(Image.fromarray(picture), (column * (SIDE + GAP), TEXT + row * (ROW + GAP)))
    canvas.save(IMAGES / "drawing.jpg", quality=88, optimize=True)


def _fitted(pixels: np.ndarray) -> np.ndarray:
    """The middle of a picture as SIDE x ROW pixels: uint8 [ROW, SIDE, 3]."""
    return np.asarray(ImageOps.fit(Image.fromarray(pixels), (SIDE, ROW), Image.Resampling.LANCZOS))


def _by_grad_cam(result: Result, pixels: np.ndarray) -> np.ndarray:
    """As pytorch-grad-cam draws a heatmap: stretched from its least to its strongest value, enlarged, blended."""
    from pytorch_grad_cam.utils.image import scale_cam_image, show_cam_on_image

    mask = scale_cam_image(result.heatmap[np.newaxis], (pixels.shape[1], pixels.shape[0]))[0]
    return show_cam_on_image(pixels.astype(np.float32) / 255, mask, use_rgb=True)


def _scaled(session: Session, name: str) -> tuple[str, list[Image.Image]]:
    """Caption, and the heatmap on the picture's own scale and on a calibrated one; other names are a flat plate."""
    path = samples.FOLDER / f"{name}.jpg"
    frame = as_frame(path).rgb() if path.is_file() else np.full((SIDE, SIDE, 3), 128, np.uint8)
    result = session(frame)
    top, left, bottom, right = map(round, result.view.seen)
    drawn = [result.overlay(frame, scale="picture"), result.overlay(frame, **SCALE)]
    crops = [Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right])) for pixels in drawn]
    caption = name if name not in samples.OF_MODEL["imagenet-1k"] else f"{result.label} {100 * result.score:.0f}%"
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
