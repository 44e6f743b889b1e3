"""The models that edgex imports, as the tests make them small, and the rows of docs/models.md that they stand for.

transformers' are listed in `transformers_models`, timm's here. `python tests/support/usable_models.py` prints the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from libraries import CLASSES, shaken
from transformers_models import BACKBONES, MODELS

from edgex.importers.transformers import registry
from edgex.models.backbones import architecture, build
from edgex.models.evidence import Evidence
from edgex.models.evidence.selection import has_readout

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 64, "num_heads": 2, "patch_size": 8, "img_size": 32}
_POOLINGS = {
    "token": "class token",
    "avg": "mean of the patch tokens",
    "attention": "attention pooling",
    "token+avg": "class token beside the patches' mean",
    "token+distillation": "class and distillation token",
}

TIMM: Mapping[str, tuple[str, dict[str, Any]]] = {
    "VisionTransformer: ViT, DeiT, DINO, AugReg and their like": ("vit_tiny_patch16_224", {}),
    "VisionTransformer without biases (`qkv_bias=False`)": ("vit_tiny_patch16_224", {"qkv_bias": False}),
    "VisionTransformer with layer scale and registers: DINOv2, DeiT III": ("vit_small_patch14_reg4_dinov2", {}),
    "VisionTransformer with norms of queries and keys": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "VisionTransformer of CLIP": ("vit_base_patch32_clip_quickgelu_224", {}),
    "VisionTransformer with average pooling": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "VisionTransformer with average pooling and no class token": ("vit_base_patch16_siglip_gap_224", {}),
    "VisionTransformer with attention pooling: SigLIP, SigLIP 2": ("vit_base_patch16_siglip_224", {}),
    "VisionTransformerDistilled: distilled DeiT": ("deit_tiny_distilled_patch16_224", {}),
    "Eva: EVA, EVA-02": ("eva02_tiny_patch14_224", {}),
    "Eva: DINOv3": ("vit_small_patch16_dinov3", {"num_heads": 4, "global_pool": "token"}),
    "Beit: BEiT, BEiT v2": ("beit_base_patch16_224", {}),
}
"""What the page calls them -> timm's name and the arguments that it is made with."""

_OTHERS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("timm", "VisionTransformer with one channel (`in_chans=1`)", "timm/vit_tiny_patch16_224", {"in_chans": 1}),
    ("torchvision", "`vit_b_16`, `vit_b_32`, `vit_l_16`, `vit_l_32`, `vit_h_14`", "timm/vit_base_patch16_224", {}),
    ("open_clip", "CLIP's image towers, with prompts or a head of its own (`--head`)", "open_clip/ViT-B-32", {}),
    ("open_clip", "SigLIP, SigLIP 2, Perception Encoder, in the same way", "open_clip/ViT-B-16-SigLIP", {}),
    ("open_clip", "CLIPA, in the same way", "open_clip/ViT-L-14-CLIPA", {}),
    ("open_clip", "EVA-CLIP, MobileCLIP2-L, in the same way", "open_clip/EVA02-B-16", {}),
    ("open_clip", "CoCa, in the same way", "open_clip/coca_ViT-B-32", {}),
)
"""Models that other tests import: those of grey models, of torchvision's, and of open_clip's towers."""


def make_timm(name: str, folder: Path) -> Any:
    """A small model of timm with random weights, saved as timm does for a hub."""
    import timm
    from timm.models import save_for_hf

    model, given = TIMM[name]
    arguments = {**_SMALL, **given}
    torch.manual_seed(0)
    module = shaken(timm.create_model(model, num_classes=len(CLASSES), **arguments))
    save_for_hf(
        module, str(folder), model_config={"label_names": CLASSES}, model_args=arguments, safe_serialization=True
    )
    return module


def row(library: str, name: str, pooling: str, evidence: str, *, readout: bool) -> str:
    """A row of the page's table."""
    return f"| {library} | {name} | {_POOLINGS[pooling]} | {evidence} | {'yes' if readout else 'no'} |"


def rows() -> list[str]:
    """The rows that the page should have, of the architectures that the names stand for."""
    found = []
    for name, (model, given) in TIMM.items():
        options = {key: value for key, value in given.items() if key != "global_pool"}
        found.append(_row("timm", name, f"timm/{model}", given.get("global_pool"), options))
    for name, _, values in (*MODELS.values(), *BACKBONES.values()):
        described = registry.describe(name, values, name)
        assert described is not None
        shown = f"`{name}`" + ("" if "ForImageClassification" in name else " and a head of its own (`--head`)")
        found.append(_row("transformers", shown, described.arch, described.pooling, described.options))
    found += [_row(library, name, arch, None, options) for library, name, arch, options in _OTHERS]
    return list(dict.fromkeys(found))


def _row(library: str, name: str, arch: str, pooling: str | None, options: Mapping[str, Any]) -> str:
    size = {"image_size": 32} if "patch_size" in options else {}
    backbone = build(architecture(arch, pooling=pooling, options=options, **size))
    kind = Evidence.default(backbone).kind
    return row(library, name, backbone.pooling, kind, readout=has_readout(backbone))


if __name__ == "__main__":
    print("\n".join(rows()))
