"""Backbones to start training from: their tensors and the name and fingerprint of their base."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import saved

from edgex.errors import MismatchError
from edgex.files import model_file
from edgex.importers.base_weights import load_base
from edgex.models.backbones import architecture


def test_a_base_from_library_weights(timm_vit: Any, tmp_path: Path) -> None:
    file = saved(tmp_path / "some_vit.safetensors", timm_vit.state_dict())
    backbone, base = load_base(architecture("timm/test_vit"), file)
    assert base.name == "some_vit"
    assert base.fingerprint == model_file.fingerprint(backbone.tensors())
    own = timm_vit.state_dict()
    found = backbone.tensors()
    assert {*found, "head.weight", "head.bias"} == set(own)
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.items())
    assert all(p.requires_grad for p in backbone.parameters())


def test_an_artefact_passes_its_base_on(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit")
    card = dataclasses.replace(card, base=model_file.BaseWeights("ancestor", "f" * 64))
    model_file.save_model(tmp_path / "m.safetensors", model, card)
    backbone, base = load_base(card.architecture, tmp_path / "m.safetensors")
    assert base == card.base
    assert all(p.requires_grad for p in backbone.parameters())
    for name, tensor in model.backbone.tensors().items():
        assert torch.equal(backbone.tensors()[name], tensor)


def test_the_preprocessing_is_the_one_stated_as_far_as_edgex_has_it(
    timm_vit: Any, random_model: Callable[..., Any], tmp_path: Path
) -> None:
    file = saved(tmp_path / "some_vit.safetensors", timm_vit.state_dict())
    cfg = {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.5, "crop_mode": "mirror", "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": cfg}))
    found = load_base(architecture("timm/test_vit"), file)[0].preprocessing
    assert (found.mean, found.interpolation, found.resize) == ((0.1, 0.2, 0.3), "bilinear", 320)

    model, card = random_model("timm/test_vit")
    own = dataclasses.replace(card.preprocessing, mean=(0.4, 0.5, 0.6))
    model_file.save_model(tmp_path / "m.safetensors", model, dataclasses.replace(card, preprocessing=own))
    assert load_base(card.architecture, tmp_path / "m.safetensors")[0].preprocessing == own


def test_an_artefact_of_another_architecture_is_refused(random_model: Callable[..., Any], tmp_path: Path) -> None:
    model, card = random_model("timm/test_vit")
    model_file.save_model(tmp_path / "m.safetensors", model, card)
    with pytest.raises(MismatchError, match=r"expected weights of timm/test_vit2.*found a model of timm/test_vit "):
        load_base(architecture("timm/test_vit2"), tmp_path / "m.safetensors")
