"""Small picture sets that tests draw themselves: coloured shapes, one class per shape and colour."""

from __future__ import annotations

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


def picture_folder(root: Path, counts: dict[str, int]) -> Path:
    """Writes `<root>/<split>/<class>/<n>.png` with `counts[split]` pictures of each class; returns root."""
    for number, (split, count) in enumerate(counts.items()):
        for name in COLOURS:
            folder = root / split / name if split else root / name
            folder.mkdir(parents=True)
            for index in range(count):
                draw(name, 1000 * number + index).save(folder / f"{index}.png")
    return root
