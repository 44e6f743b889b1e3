"""Small picture sets that tests draw themselves: coloured shapes, one class per shape and colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red disc": "red", "green square": "green", "blue disc": "blue"}


def draw(name: str, seed: int, size: int = 96) -> Image.Image:
    """A shape of the class's colour somewhere on a noisy ground."""
    generator = np.random.default_rng((seed, len(name)))
    ground = generator.integers(90, 166, (size, size + 20, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    left, top = generator.integers(5, size // 2, 2)
    box = (int(left), int(top), int(left) + 40, int(top) + 40)
    shape = ImageDraw.Draw(image)
    (shape.ellipse if "disc" in name else shape.rectangle)(box, fill=COLOURS[name])
    return image


def draw_several(names: Sequence[str], seed: int, size: int = 96) -> Image.Image:
    """Shapes of several classes on a noisy ground, each in a corner of its own; none for no names."""
    generator = np.random.default_rng((seed, 7))
    image = Image.fromarray(generator.integers(90, 166, (size, size, 3), dtype=np.uint8))
    shape = ImageDraw.Draw(image)
    corners = generator.permutation(4)
    for corner, name in zip(corners, names, strict=False):
        left, top = (corner % 2) * size // 2 + 4, (corner // 2) * size // 2 + 4
        box = (int(left), int(top), int(left) + size // 2 - 8, int(top) + size // 2 - 8)
        (shape.ellipse if "disc" in name else shape.rectangle)(box, fill=COLOURS[name])
    return image


def labelled_pictures(root: Path, counts: dict[str, int]) -> Path:
    """Writes `<root>/<split>/<n>.png`, `counts[split]` pictures of any shapes, and `<root>/labels.csv`; returns it."""
    lines = ["file,labels"]
    for number, (split, count) in enumerate(counts.items()):
        (root / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            chosen = [name for bit, name in enumerate(COLOURS) if index >> bit & 1]
            draw_several(chosen, 1000 * number + index).save(root / split / f"{index}.png")
            lines.append(f"{(Path(split) / f'{index}.png').as_posix()},{';'.join(chosen)}")
    table = root / "labels.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def picture_folder(root: Path, counts: dict[str, int]) -> Path:
    """Writes `<root>/<split>/<class>/<n>.png` with `counts[split]` pictures of each class; returns root."""
    for number, (split, count) in enumerate(counts.items()):
        for name in COLOURS:
            folder = root / split / name if split else root / name
            folder.mkdir(parents=True)
            for index in range(count):
                draw(name, 1000 * number + index).save(folder / f"{index}.png")
    return root
