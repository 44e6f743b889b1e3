"""torchvision's ViTs: recognised by their tensors, with torchvision's logits and preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import CLASSES, assert_same_logits, pictures, shaken
from torch import nn

from edgex.errors import MismatchError, UsageError
from edgex.importers import torchvision_vit
from edgex.importers.assembly import import_model
from edgex.importers.configuration import Stated
from edgex.importers.settings import settle
from edgex.importers.workflow import import_weights
from edgex.models.backbones import architecture, build

SMALL = architecture(
    "timm/vit_base_patch16_224", image_size=64, options={"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0}
)


def small(**changes: Any) -> Any:
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return shaken(VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=len(CLASSES), **changes))


@pytest.mark.parametrize("head", ["its own", "a layer in its place", "a list in its place"])
def test_logits_equal_torchvisions(head: str, tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    module = small()
    if head != "its own":
        layer = shaken(nn.Linear(48, len(CLASSES)))
        module.heads = layer if head == "a layer in its place" else nn.Sequential(layer)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    model, _ = import_model(tmp_path / "w.pth", SMALL, CLASSES, name="m")
    images = pictures(64)
    with torch.no_grad():
        assert_same_logits(model, images, module(images), record_property)


def test_a_layer_before_the_head_is_named(tmp_path: Path) -> None:
    torch.save(small(representation_size=32).state_dict(), tmp_path / "w.pth")
    with pytest.raises(MismatchError, match=r"extra tensor 'heads.pre_logits"):
        import_model(tmp_path / "w.pth", SMALL, CLASSES, name="m")


@pytest.mark.parametrize(
    ("name", "size", "arch", "resize", "interpolation"),
    [
        ("vit_b_16", 224, "vit_base_patch16_224", 256, "bilinear"),
        ("vit_b_16", 384, "vit_base_patch16_224", 384, "bicubic"),
        ("vit_b_32", 224, "vit_base_patch32_224", 256, "bilinear"),
        ("vit_l_16", 224, "vit_large_patch16_224", 256, "bilinear"),
        ("vit_l_32", 224, "vit_large_patch32_224", 256, "bilinear"),
        ("vit_h_14", 518, "vit_huge_patch14_224", 518, "bicubic"),
    ],
)
def test_each_of_its_models_is_recognised(name: str, size: int, arch: str, resize: int, interpolation: str) -> None:
    import torchvision

    with torch.device("meta"):
        module = torchvision.models.get_model(name, image_size=size)
    tensors = module.state_dict()
    settings = settle(torchvision_vit.state(tensors, Stated()), {"classes": ("a", "b")}, source="w.pth")
    assert (settings.architecture.name, settings.architecture.image_size) == (f"timm/{arch}", (size, size))
    assert (settings.preprocessing.resize, settings.preprocessing.interpolation) == (resize, interpolation)
    assert settings.preprocessing.mean == (0.485, 0.456, 0.406)
    assert settings.taken_from["mean"] == settings.taken_from["arch"] == "torchvision's tensors"
    renamed = torchvision_vit.NAMES.renamed(tensors, settings.architecture)
    shapes = {key: tensor.shape for key, tensor in renamed.items() if not key.startswith("head.")}
    assert shapes == {key: tensor.shape for key, tensor in build(settings.architecture).tensors().items()}


def test_preprocessing_is_its_own_unless_something_is_said(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match="no file beside w.pth states the architecture"):
        import_weights(weights=tmp_path / "w.pth", classes=",".join(CLASSES), out=tmp_path / "m.safetensors")
    stated = torchvision_vit.state(small().state_dict(), Stated())
    assert stated.values["image_size"] == (64, 64) and "arch" not in stated.values
    assert torchvision_vit.state({"patch_embed.proj.weight": torch.ones(1)}, Stated()) == Stated()
