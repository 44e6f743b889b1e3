"""transformers' CLIP with its projection, under open_clip's names: what a zero-shot head needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from edgex.errors import MismatchError
from edgex.importers.transformers import clip
from edgex.importers.transformers.names import Names, packed_modules
from edgex.models.backbones import Architecture

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
_OF_TEXT = ("text_model.", "text_projection.", "logit_scale")


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
