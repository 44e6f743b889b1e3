"""What OpenAI's archives of CLIP say of themselves: the model, by its tensors.

The archives hold three numbers of their configuration as tensors, which tells them from other files. All of them have
quick GELU, heads of 64 numbers and the same preprocessing, which is open_clip's as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgex.importers.clip_shapes import Shape, open_clip_name
from edgex.importers.configuration import Stated

_NUMBERS = ("input_resolution", "context_length", "vocab_size")
_OTHERS = ("visual.class_embedding", "visual.conv1.weight", "ln_final.weight", "text_projection")
_SOURCE = "OpenAI's archive"


def state(tensors: Mapping[str, Tensor], stated: Stated) -> Stated:
    """Adds what the tensors of OpenAI's archives say to what files do not; of other tensors, nothing."""
    if not all(name in tensors and tensors[name].numel() for name in (*_NUMBERS, *_OTHERS)):
        return stated
    size, context, vocabulary = (int(tensors[name]) for name in _NUMBERS)
    vision, text = (tensors[name].shape[-1] for name in ("visual.class_embedding", "ln_final.weight"))
    depths = [
        sum(name.startswith(f"{tower}transformer.resblocks.") and name.endswith(".ln_1.weight") for name in tensors)
        for tower in ("visual.", "")
    ]
    shape = Shape(
        embed_dim=tensors["text_projection"].shape[-1],
        quick_gelu=True,
        vision=(vision, depths[0], vision // 64),
        patch_size=tensors["visual.conv1.weight"].shape[-1],
        text=(text, depths[1], text // 64, vocabulary, context),
    )
    found = {"arch": open_clip_name(shape, size), "image_size": (size, size)}
    stated.add(_SOURCE, **{name: value for name, value in found.items() if name not in stated.sources})
    return stated
