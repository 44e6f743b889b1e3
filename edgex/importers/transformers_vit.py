"""transformers' ViTForImageClassification under timm's names: the same network as timm's VisionTransformer.

The two differ in the epsilon of their layer norms, 1e-12 and 1e-6. On ViT-tiny's and DeiT-tiny's ImageNet weights, that
moves logits by 5e-5 of a range of 13 to 22, and probabilities by 3e-6. Sorting the tensors of other models is
`edgex.importers.state_dicts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

NAME = "ViTForImageClassification"
MARK = "vit.embeddings.patch_embeddings.projection.weight"
"""A tensor that every such model has."""

# Width, blocks, heads and patch size in pixels -> timm's name, of models whose mlp is four times as wide.
_NAMES = {
    (192, 12, 3, 16): "vit_tiny_patch16_224",
    (384, 12, 6, 16): "vit_small_patch16_224",
    (384, 12, 6, 32): "vit_small_patch32_224",
    (768, 12, 12, 16): "vit_base_patch16_224",
    (768, 12, 12, 32): "vit_base_patch32_224",
    (1024, 24, 16, 16): "vit_large_patch16_224",
    (1024, 24, 16, 32): "vit_large_patch32_224",
    (1280, 32, 16, 14): "vit_huge_patch14_224",
}
_PARTS = {
    "vit.embeddings.cls_token": "cls_token",
    "vit.embeddings.position_embeddings": "pos_embed",
    "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "vit.layernorm": "norm",
    "classifier": "head",
}
_BLOCK_PARTS = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_BLOCK = re.compile(r"vit\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_PROJECTION = re.compile(r"(vit\.encoder\.layer\.\d+\.attention\.attention\.)(query|key|value)\.(weight|bias)")


def timm_architecture(config: Mapping[str, object]) -> str | None:
    """The model of timm ("timm/vit_base_patch16_224") that a config.json describes; None where timm has none."""
    width, mlp = config.get("hidden_size"), config.get("intermediate_size")
    shape = (width, *(config.get(key) for key in ("num_hidden_layers", "num_attention_heads", "patch_size")))
    if not all(isinstance(number, int) for number in (*shape, mlp)) or mlp != 4 * width:  # type: ignore[operator]
        return None
    name = _NAMES.get(shape)  # type: ignore[arg-type]
    return f"timm/{name}" if name else None


def timm_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names; others keep theirs, and an incomplete projection is left in its parts."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _PROJECTION.fullmatch(name)
        if match is None:
            result[_timm_name(name)] = tensor
            continue
        parts = [tensors.get(f"{match[1]}{part}.{match[3]}") for part in ("query", "key", "value")]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            result[name] = tensor
        elif match[2] == "query":
            block = name.removeprefix("vit.encoder.layer.").partition(".")[0]
            result[f"blocks.{block}.attn.qkv.{match[3]}"] = torch.cat(whole)
    return result


def _timm_name(name: str) -> str:
    if (match := _BLOCK.fullmatch(name)) and match[2] in _BLOCK_PARTS:
        return f"blocks.{match[1]}.{_BLOCK_PARTS[match[2]]}.{match[3]}"
    if name in _PARTS:
        return _PARTS[name]
    part, _, kind = name.rpartition(".")
    return f"{_PARTS[part]}.{kind}" if part in _PARTS else name
