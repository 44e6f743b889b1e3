"""transformers' CLIP with its projection as open_clip's: the model's name, and the names of its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from edgex.errors import MismatchError
from edgex.importers.clip_shapes import Shape, open_clip_name
from edgex.importers.transformers import clip
from edgex.importers.transformers.names import Names, packed_modules
from edgex.models.backbones import Architecture
from edgex.runtime import schema

_VISION = Names(
    marks=clip.NAMES.marks,
    bases=("vision_model.",),
    parts={
        "embeddings.class_embedding": "class_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.patch_embedding": "conv1",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
        "visual_projection.weight": "proj",
    },
    block=clip.NAMES.block,
    block_parts={
        "layer_norm1": "ln_1",
        "self_attn.out_proj": "attn.out_proj",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    },
    packed=packed_modules("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", into="attn.in_proj_{}"),
    unread=r"embeddings\.position_ids",
    blocks="transformer.resblocks.",
)
_TEXT = dataclasses.replace(
    _VISION,
    marks=("embeddings.token_embedding.weight",),
    bases=("text_model.",),
    parts={
        "embeddings.token_embedding": "token_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
        "text_projection.weight": "text_projection",
    },
)
_TEXT_CHECKS = {
    "hidden_size": schema.Default(schema.whole(1), 512),
    "num_hidden_layers": schema.Default(schema.whole(1), 12),
    "num_attention_heads": schema.Default(schema.whole(1), 8),
    "vocab_size": schema.Default(schema.whole(1), 49408),
    "max_position_embeddings": schema.Default(schema.whole(1), 77),
}
"""What is read of "text_config", in the order of `Shape.text`, and transformers' own values."""
_OF_TEXT = ("text_model.", "text_projection.", "logit_scale")


def open_clip_architecture(content: Mapping[str, Any], file: str) -> str | None:
    """The model of open_clip ("open_clip/<name>") that a config.json describes; None where open_clip has none.

    Raises ArtefactError for a value of another type than transformers writes.
    """
    check = schema.object_with(projection_dim=schema.Default(schema.whole(1), 512))
    embed_dim = schema.checked(check, content, file).get("projection_dim", 512)
    vision = clip.FAMILIES[0].values(content, file)
    text = None
    if content.get("text_config") is not None:
        values = schema.checked(schema.object_with(**_TEXT_CHECKS), content["text_config"], f"{file}: text_config")
        text = tuple(values.get(name, default.value) for name, default in _TEXT_CHECKS.items())
    if vision["layer_norm_eps"] != 1e-5 or vision["hidden_act"] not in ("quick_gelu", "gelu"):
        return None
    tower = (vision["hidden_size"], vision["num_hidden_layers"], vision["num_attention_heads"])
    shape = Shape(embed_dim, vision["hidden_act"] == "quick_gelu", tower, vision["patch_size"][0], text)
    return open_clip_name(shape, vision["image_size"][0])


def open_clip_tensors(
    tensors: Mapping[str, Tensor], architecture: Architecture, *, source: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The image tower and the text tower under open_clip's names; the second is empty where there is none.

    source: names the weights in errors. Raises MismatchError for a tower without projection.
    """
    of_text = {name: tensor for name, tensor in tensors.items() if name.startswith(_OF_TEXT)}
    of_images = {name: tensor for name, tensor in tensors.items() if name not in of_text}
    image, text = _VISION.renamed(of_images, architecture), _TEXT.renamed(of_text, architecture)
    if "proj" not in image:
        raise MismatchError(
            f"{source}: missing tensor 'visual_projection.weight' that {architecture.name} needs: "
            "weights without projection go to timm's vit_base_patch32_clip_quickgelu_224 or the like"
        )
    for part, name in ((image, "proj"), (text, "text_projection")):
        if name in part:
            part[name] = part[name].T.contiguous()
    return image, text
