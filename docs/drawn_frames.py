"""Two frames for the documentation's pictures that are drawn, not photographed: a steel plate, and a road with a sign.

Photographs of steel lines and of traffic signs under a licence that lets this repository pass them on were not at hand.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 640, 400
"""(width, height) in pixels."""


def steel() -> np.ndarray:
    """A plate of rolled steel with a long scratch and a faint short one: uint8 [H, W, 3] RGB."""
    width, height = SIZE
    rng = np.random.default_rng(5)
    noise = Image.fromarray(np.clip(128 + 40 * rng.normal(0, 1, (height, width)), 0, 255).astype(np.uint8))
    grain = np.asarray(noise.filter(ImageFilter.GaussianBlur(1)), np.float32) - 128
    streaks = rng.normal(0, 5, (1, width))
    shade = np.linspace(-12, 12, height)[:, np.newaxis]
    grey = 118 + 9 * grain / grain.std() + streaks + shade
    lines = Image.new("L", SIZE)
    draw = ImageDraw.Draw(lines)
    draw.line([(395, 60), (402, 150), (398, 240), (410, 340)], fill=255, width=7, joint="curve")
    draw.line([(250, 90), (256, 180)], fill=140, width=4)
    scratch = np.asarray(lines.filter(ImageFilter.GaussianBlur(1.2)), np.float32) / 255
    return np.repeat(np.clip(grey + (235 - grey) * scratch, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def road() -> np.ndarray:
    """A road between meadows and trees with a stop sign beside it: uint8 [H, W, 3] RGB."""
    width, height = SIZE
    rng = np.random.default_rng(1)
    down = np.linspace(0, 1, height)[:, np.newaxis, np.newaxis]
    sky = np.broadcast_to(down * (60, 30, 5) + (120, 170, 225), (height, width, 3))
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(900):
        x, y, r = rng.uniform(0, width), 255 - abs(rng.normal(0, 30)), rng.uniform(5, 16)
        green = rng.uniform(60, 120)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(int(0.45 * green), int(green), int(0.4 * green)))
    draw.rectangle((0, 250, width, height), fill=(96, 118, 62))
    draw.polygon([(255, 250), (330, 250), (560, 400), (30, 400)], fill=(92, 92, 96))
    draw.polygon([(291, 250), (294, 250), (312, 400), (290, 400)], fill=(225, 225, 220))
    _draw_stop_sign(draw, 460, 130)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    return np.clip(soft + rng.normal(0, 5, soft.shape), 0, 255).astype(np.uint8)


def _draw_stop_sign(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.rectangle((x - 4, y + 40, x + 4, y + 250), fill=(120, 120, 124))
    angles = np.pi / 8 + np.arange(8) * np.pi / 4
    for radius, fill in ((74, (240, 240, 240)), (67, (196, 22, 32))):
        corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=fill)
    font = ImageFont.load_default(46)
    draw.text((x, y), "STOP", "white", font, anchor="mm", stroke_width=2, stroke_fill="white")
