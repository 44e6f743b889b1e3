"""Configurations with values of the wrong kind: accepted, or refused in one line; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from wrong_values import with_wrong_values

from edgex.errors import EdgexError
from edgex.importers import configuration
from edgex.importers.settings import preprocess
from edgex.runtime.preprocessing import Preprocessing

TIMM = {
    "architecture": "test_vit",
    "global_pool": "token",
    "label_names": ["cat", "dog", "cow"],
    "model_args": {"img_size": [160, 160], "drop_rate": 0.1, "dynamic_img_size": True},
    "pretrained_cfg": {
        "input_size": [3, 160, 160],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "squash",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}
VIT = {
    "architectures": ["ViTForImageClassification"],
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "patch_size": 16,
    "image_size": 224,
    "layer_norm_eps": 1e-12,
    "id2label": {"0": "a", "1": "b"},
}
CLIP = {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {"image_size": 224}}
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
}
SQUARE = {**PROCESSOR, "size": {"height": 224, "width": 224}, "do_center_crop": False}
OPEN_CLIP = {
    "model_cfg": {"embed_dim": 512, "vision_cfg": {"image_size": 224, "layers": 12}},
    "preprocess_cfg": {
        "size": 224,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
FILES: dict[str, tuple[str, Any]] = {
    "timm": ("config.json", TIMM),
    "vit": ("config.json", VIT),
    "clip": ("config.json", CLIP),
    "processor": ("preprocessor_config.json", PROCESSOR),
    "square": ("preprocessor_config.json", SQUARE),
    "open_clip": ("open_clip_config.json", OPEN_CLIP),
}
DEFAULT = Preprocessing((224, 224), 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("kind", FILES)
def test_a_wrong_value_is_one_line_or_accepted(kind: str, tmp_path: Path) -> None:
    name, content = FILES[kind]
    file = tmp_path / name
    file.write_text(json.dumps(content), encoding="utf-8")
    assert configuration.beside(tmp_path).files == (file,)
    refused = 0
    for what, changed in with_wrong_values(content):
        file.write_text(json.dumps(changed), encoding="utf-8")
        try:
            preprocess(configuration.beside(tmp_path), {}, DEFAULT)
        except EdgexError as error:
            assert "\n" not in str(error), what
            refused += 1
        except Exception as error:
            pytest.fail(f"{what}: {error!r}")
    assert refused > 15
