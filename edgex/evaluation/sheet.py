"""Contact sheets: pictures and heatmaps side by side with captions, for judging heatmaps by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from edgex.data import image_folders
from edgex.evaluation.comparison import Comparison
from edgex.runtime.drawing.captions import fit_text
from edgex.runtime.drawing.overlay import overlay
from edgex.runtime.view import View

_GAP = 8
_TEXT = 18
_FONT = 14
"""Size of the font in pixels."""


def comparison_sheet(found: Comparison, *, rows: int = 8) -> Image.Image:
    """Input, unbaked model, model and Kernel SHAP of at most `rows` measured pictures, evenly spaced, never chosen."""
    own, *others = found.heatmaps
    models = {measured.name for measured in found.models}
    compared = [heatmaps for heatmaps in others if heatmaps.name in models]
    shap = [heatmaps for heatmaps in others if heatmaps.name.startswith("kernel-shap")][:1]
    shown = [*compared, own, *shap]
    lines = []
    for path in image_folders.subsample_evenly(found.paths, rows):
        place = found.paths.index(path)
        picture = found.images[place].numpy()
        size = (picture.shape[0], picture.shape[1])
        view = View(size, size, (0, 0), size)
        maps = [heatmaps.explanations.heatmaps[place].numpy() for heatmaps in shown]
        best = int(own.explanations.classes[place])
        said = f"{path.parent.name}/{path.name}: {short_name(own.name)} says "
        caption, _ = fit_text([said + found.models[0].card.classes[best], f"{said}class {best}"], _FONT)
        lines.append((caption, [picture, *(overlay(picture, heatmap, view) for heatmap in maps)]))
    return grid(["input", *(short_name(heatmaps.name) for heatmaps in shown)], lines)


def short_name(name: str) -> str:
    """A model's file without its folders and suffix, which would fill a column."""
    return name.rpartition("/")[2].replace(".safetensors", "")


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], *, height: int = 200, columns: int = 1) -> Image.Image:
    """Rows of pictures (uint8 [H, W, 3]), each with a caption above, scaled to one height in pixels.

    columns: how many of the rows stand beside each other.
    """
    tiles = [_tile(caption, pictures, height) for caption, pictures in rows]
    lines = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    widths = [max(line[c].width for line in lines if c < len(line)) for c in range(min(columns, len(tiles)))]
    size = (sum(widths) + _GAP * (len(widths) + 1), _GAP + len(lines) * (tiles[0].height + _GAP))
    canvas = Image.new("RGB", size, "white")
    for row, line in enumerate(lines):
        left = _GAP
        for column, tile in enumerate(line):
            canvas.paste(tile, (left, _GAP + row * (tile.height + _GAP)))
            left += widths[column] + _GAP
    return canvas


def grid(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray]]], *, side: int = 200) -> Image.Image:
    """A table of pictures (uint8 [H, W, 3]): one title above each column, one caption above each row.

    side: long side of every picture, in pixels. A title longer than its column is cut short.
    """
    head = _TEXT + 4
    size = (_GAP + len(titles) * (side + _GAP), _GAP + head + len(rows) * (head + side + _GAP))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        title, font = fit_text([title], _FONT)
        while draw.textlength(title, font=font) > side:
            title = title.removesuffix("…")[:-1] + "…"
        draw.text((_GAP + column * (side + _GAP), _GAP), title, fill="black", font=font)
    for row, (caption, pictures) in enumerate(rows):
        top = _GAP + head + row * (head + side + _GAP)
        caption, font = fit_text([caption], _FONT)
        draw.text((_GAP, top), caption, fill="dimgrey", font=font)
        for column, pixels in enumerate(pictures):
            picture = ImageOps.contain(Image.fromarray(pixels), (side, side))
            canvas.paste(picture, (_GAP + column * (side + _GAP), top + head))
    return canvas


def _tile(caption: str, pictures: Sequence[np.ndarray], height: int) -> Image.Image:
    scaled = []
    for pixels in pictures:
        picture = Image.fromarray(pixels)
        scaled.append(picture.resize((max(1, round(picture.width * height / picture.height)), height)))
    caption, font = fit_text([caption], _FONT)
    text_width = int(ImageDraw.Draw(scaled[0]).textlength(caption, font=font))
    width = max(sum(p.width for p in scaled) + _GAP * (len(scaled) - 1), text_width)
    tile = Image.new("RGB", (width, height + _TEXT + 4), "white")
    ImageDraw.Draw(tile).text((0, 0), caption, fill="black", font=font)
    left = 0
    for picture in scaled:
        tile.paste(picture, (left, _TEXT + 4))
        left += picture.width + _GAP
    return tile
