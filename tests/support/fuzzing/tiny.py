"""Models of two libraries that are as small as can be, so that an input costs milliseconds and a kept one few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm.models
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer

ARCH = "timm/fuzz_vit"
CLIP = "open_clip/fuzz-clip"
SIDE = 16
"""Of a picture, in pixels."""

default_cfgs = generate_default_cfgs(
    {
        "fuzz_vit.untrained": {
            "url": "",
            "num_classes": 4,
            "input_size": (3, SIDE, SIDE),
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)


@register_model
def fuzz_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Two blocks of width 8 over 4 patches."""
    size = {"img_size": SIDE, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    return _create_vision_transformer("fuzz_vit", pretrained=pretrained, **{**size, **options})


def state_dict(seed: int = 0) -> dict[str, Any]:
    """Weights of `fuzz_vit` with a head of four classes."""
    import torch

    torch.manual_seed(seed)
    module = timm.create_model("fuzz_vit", num_classes=4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state: dict[str, Any] = module.state_dict()
    return state


def clip_state_dict(folder: Path) -> dict[str, Any]:
    """Weights of "open_clip/fuzz-clip", which becomes known to open_clip."""
    import open_clip
    import torch

    # The vocabulary is the tokenizer's; everything else is small.
    configuration = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 4, "heads": 1, "layers": 1},
    }
    (folder / "fuzz-clip.json").write_text(json.dumps(configuration), encoding="utf-8")
    open_clip.add_model_config(folder / "fuzz-clip.json")
    torch.manual_seed(0)
    state: dict[str, Any] = open_clip.create_model("fuzz-clip").state_dict()
    # What repeats itself is kept in few bytes.
    rows = torch.arange(len(state["token_embedding.weight"])) % 251
    state["token_embedding.weight"] = state["token_embedding.weight"][rows]
    return state
