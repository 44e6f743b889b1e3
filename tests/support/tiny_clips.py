"""Configurations of small CLIP models for open_clip's own list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_VISION = {"image_size": 64, "layers": 3, "width": 128, "head_width": 64, "patch_size": 16}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
_AVERAGE = {"pool_type": "avg", "final_ln_after_pool": True}
_ATTENTION = {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2, "output_tokens": True}
_CAPTIONS = {"context_length": 76, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
_TINY_VIT = {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "tiny-token": {},
    "tiny-quickgelu": {"quick_gelu": True},
    "tiny-layerscale": {"vision_cfg": {**_VISION, "ls_init_value": 0.5}},
    # As in CLIPA: the norm follows the mean; and as in other recipes, the norm comes first.
    "tiny-avg": {"vision_cfg": {**_VISION, **_AVERAGE, "no_ln_pre": True}},
    "tiny-avg-norm-first": {"vision_cfg": {**_VISION, "pool_type": "avg"}},
    # Pooled with attention: CoCa, whose text tower has a class token of its own, and SigLIP, a model of timm.
    "tiny-coca": {
        "vision_cfg": {**_VISION, **_ATTENTION},
        "text_cfg": {**_TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": _CAPTIONS,
        "custom_text": True,
    },
    "tiny-map": {
        "embed_dim": 96,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**_TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        "init_logit_bias": -10,
        "custom_text": True,
    },
    # Other models of timm: its own head is the projection, or a linear layer with a bias follows it.
    "tiny-timm-head": {"vision_cfg": {**_TINY_VIT, "timm_pool": "token", "timm_proj": None}, "custom_text": True},
    "tiny-timm-linear": {"vision_cfg": {**_TINY_VIT, "timm_pool": "avg", "timm_proj_bias": True}},
}


def add_tiny_clips(folder: Path) -> None:
    """Writes the configurations and adds them to open_clip's list, as "tiny-token" and others."""
    import open_clip

    for name, change in CONFIGURATIONS.items():
        config = {"embed_dim": 32, "quick_gelu": False, "vision_cfg": _VISION, "text_cfg": _TEXT, **change}
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)
