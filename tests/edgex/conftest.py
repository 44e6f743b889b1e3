"""Fixtures of the workstation's tests: small CLIP configurations that open_clip knows by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

_VISION = {"image_size": 64, "layers": 3, "width": 128, "head_width": 64, "patch_size": 16}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
_AVERAGE = {"pool_type": "avg", "final_ln_after_pool": True}

_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "tiny-token": {},
    "tiny-quickgelu": {"quick_gelu": True},
    "tiny-layerscale": {"vision": {"ls_init_value": 0.5}},
    # As in CLIPA: the norm follows the mean; and as in other recipes, the norm comes first.
    "tiny-avg": {"vision": {**_AVERAGE, "no_ln_pre": True}},
    "tiny-avg-norm-first": {"vision": {"pool_type": "avg"}},
}


@pytest.fixture(scope="session", autouse=True)
def tiny_clips(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Adds small CLIP models ("open_clip/tiny-token" and others) to open_clip's own list."""
    import open_clip

    folder = tmp_path_factory.mktemp("open_clip")
    for name, change in _CONFIGURATIONS.items():
        config = {
            "embed_dim": 32,
            "quick_gelu": change.get("quick_gelu", False),
            "vision_cfg": {**_VISION, **change.get("vision", {})},
            "text_cfg": _TEXT,
        }
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)
