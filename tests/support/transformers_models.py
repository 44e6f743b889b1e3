"""Small models of transformers with random weights, one for each kind that edgex imports, and their folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from libraries import CLASSES, shaken
from PIL import Image
from torch import Tensor

_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 160,
    "image_size": 32,
    "patch_size": 8,
}
_DINOV2: dict[str, Any] = {
    # Positions of 7 x 7 patches, resampled to pictures of 4 x 4.
    **{name: value for name, value in _SHAPE.items() if name != "intermediate_size"},
    "image_size": 56,
    "mlp_ratio": 2,
}
_TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}
_TOWERS: dict[str, Any] = {"vision_config": _SHAPE, "text_config": _TEXT}

MODELS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViTForImageClassification", "ViTConfig", _SHAPE),
    "ViT, other parts": (
        "ViTForImageClassification",
        "ViTConfig",
        {**_SHAPE, "qkv_bias": False, "hidden_act": "gelu_new", "layer_norm_eps": 0.01},
    ),
    "ViT-MSN": ("ViTMSNForImageClassification", "ViTMSNConfig", _SHAPE),
    "I-JEPA": ("IJepaForImageClassification", "IJepaConfig", _SHAPE),
    "DeiT": ("DeiTForImageClassification", "DeiTConfig", _SHAPE),
    "DeiT with a teacher": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", _SHAPE),
    "DINOv2": ("Dinov2ForImageClassification", "Dinov2Config", _DINOV2),
    "DINOv2, gated": ("Dinov2ForImageClassification", "Dinov2Config", {**_DINOV2, "use_swiglu_ffn": True}),
    "DINOv2 with registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**_DINOV2, "num_register_tokens": 3},
    ),
    "CLIP": ("CLIPForImageClassification", "CLIPConfig", _TOWERS),
    "SigLIP": ("SiglipForImageClassification", "SiglipConfig", _TOWERS),
    "BEiT": ("BeitForImageClassification", "BeitConfig", {**_SHAPE, "use_relative_position_bias": True}),
    "Data2Vec": (
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {**_SHAPE, "use_relative_position_bias": True},
    ),
}
"""Name -> class of the model, class of its configuration, and what the configuration is made of."""

BACKBONES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViTModel", "ViTConfig", _SHAPE),
    "CLIP": ("CLIPVisionModel", "CLIPVisionConfig", _SHAPE),
    "CLIP, plain GELU": ("CLIPVisionModel", "CLIPVisionConfig", {**_SHAPE, "hidden_act": "gelu"}),
    "SigLIP": ("SiglipVisionModel", "SiglipVisionConfig", _SHAPE),
    "DINOv2": ("Dinov2Model", "Dinov2Config", _DINOV2),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**_SHAPE, "num_register_tokens": 4, "image_size": 64}),
    "DINOv3, gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**_SHAPE, "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False},
    ),
}
"""The same for models without classes, whose pooled output is read by a linear head from a file of its own."""


def make(entry: tuple[str, str, dict[str, Any]], names: tuple[str, ...] = CLASSES) -> Any:
    """A model with random weights."""
    import transformers

    model, config, values = entry
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    torch.manual_seed(0)
    return shaken(getattr(transformers, model)(getattr(transformers, config)(**values, **labels)))


def save(module: Any, folder: Path, **processor: Any) -> Callable[[Image.Image], Tensor]:
    """Saves a model and its image processor as transformers does; returns the processor, picture -> [1, 3, H, W]."""
    from transformers import ViTImageProcessorPil

    module.save_pretrained(folder)
    process = ViTImageProcessorPil(**{"size": {"height": 32, "width": 32}, "resample": 2, **processor})
    process.save_pretrained(folder)
    return lambda picture: process(picture, return_tensors="pt")["pixel_values"]


def rewrite(file: Path, **changes: Any) -> None:
    """Changes values of a JSON file, such as a config.json."""
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8")
