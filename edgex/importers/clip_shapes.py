"""The names under which open_clip knows CLIP models, found by their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """What tells CLIP models apart. Of a tower: width, blocks, heads; of pictures: the side of a patch in pixels.

    text: the text tower, its vocabulary and its longest text; None where nothing is known of it.
    """

    embed_dim: int
    quick_gelu: bool
    vision: tuple[int, int, int]
    patch_size: int
    text: tuple[int, int, int, int, int] | None


def open_clip_name(shape: Shape, image_size: int) -> str | None:
    """The model "open_clip/<name>" of this shape, of several the one of this size, if there is any."""
    import open_clip

    found = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        own = _shape(config)
        if own is not None and shape == (own if shape.text else own._replace(text=None)):
            found[name] = config["vision_cfg"]["image_size"] != image_size
    name = min(found, key=lambda known: (found[known], len(known)), default=None)
    return f"open_clip/{name}" if name else None


def _shape(config: Mapping[str, Any]) -> Shape | None:
    """The shape of open_clip's own configuration; None for those with other parts."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    plain = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
    if not isinstance(vision.get("layers"), int) or vision.keys() - plain or config.get("custom_text"):
        return None
    if text.keys() - {"context_length", "vocab_size", "width", "heads", "layers"}:
        return None
    return Shape(
        embed_dim=config["embed_dim"],
        quick_gelu=config.get("quick_gelu", False),
        vision=(vision["width"], vision["layers"], vision["width"] // vision.get("head_width", 64)),
        patch_size=vision["patch_size"],
        text=(
            text["width"],
            text["layers"],
            text["heads"],
            text.get("vocab_size", 49408),
            text.get("context_length", 77),
        ),
    )
