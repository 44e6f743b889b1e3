"""Adapters: one uniform view of the Vision Transformers of timm and open_clip.

A `Backbone` owns the library's own module (so tensor names stay the library's) and shows its parts under
one set of names: patch projection, token assembly, blocks, final norm, projection, grid. Nothing outside
this file asks which family a model belongs to. What a heatmap is made of lives in `edgex.models.self_explaining`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from edgex.errors import UnsupportedError, UsageError
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils.text import nearest

Pooling = Literal["token", "avg"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is needed to build a backbone without its weights.

    name: "timm/<model>" or "open_clip/<model>".
    image_size: (height, width) in pixels.
    pooling: "token" (class token) or "avg" (mean over patch tokens).
    """

    name: str
    image_size: tuple[int, int]
    pooling: Pooling

    @property
    def family(self) -> str:
        """The library: "timm" or "open_clip"."""
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        """The model's name inside its library."""
        return self.name.partition("/")[2]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"name": self.name, "image_size": list(self.image_size), "pooling": self.pooling}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """Inverse of `to_dict`."""
        height, width = data["image_size"]
        return cls(data["name"], (int(height), int(width)), data["pooling"])

    def __str__(self) -> str:
        return f"{self.name} ({self.image_size[0]}x{self.image_size[1]} px, {self.pooling} pooling)"


class Block:
    """One pre-norm transformer block under common names; holds no parameters of its own.

    x -> x + gamma1 * project(attention(norm1(x))); then x -> x + feed_forward(x).
    """

    def __init__(
        self,
        *,
        module: nn.Module,
        norm1: nn.Module,
        packed_projection: Callable[[], tuple[Tensor, Tensor | None]],
        normalise_qk: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        project: nn.Linear,
        gamma1: Callable[[], Tensor | None],
        feed_forward: Callable[[Tensor], Tensor],
        heads: int,
        head_dim: int,
    ) -> None:
        self.module = module
        self.norm1 = norm1
        self.packed_projection = packed_projection
        self.normalise_qk = normalise_qk or (lambda query, key: (query, key))
        self.normalises_qk = normalise_qk is not None
        self.project = project
        self.gamma1 = gamma1
        self.feed_forward = feed_forward
        self.heads, self.head_dim = heads, head_dim


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a family's adapter hands to `Backbone`."""

    module: nn.Module
    patch_projection: nn.Conv2d
    assemble: Callable[[Tensor], Tensor]
    blocks: list[Block]
    norm: nn.LayerNorm
    norm_after_pool: bool
    projection: Callable[[], Tensor | None]
    prefix_tokens: int
    width: int
    output_width: int
    preprocessing: Preprocessing


class Backbone(nn.Module):
    """A ViT up to its final norm and projection, without a head.

    Attributes: module (the library's own), architecture, preprocessing, patch_projection (nn.Conv2d),
    blocks, norm, norm_after_pool, prefix_tokens (class token and registers), grid (rows, columns),
    width D of the tokens, output_width of what the head reads.
    """

    def __init__(self, architecture: Architecture, parts: _Parts) -> None:
        super().__init__()
        self.module = parts.module
        self.architecture = architecture
        self.preprocessing = parts.preprocessing
        self.blocks = parts.blocks
        self.norm_after_pool = parts.norm_after_pool
        self.prefix_tokens = parts.prefix_tokens
        self.width = parts.width
        self.output_width = parts.output_width
        # Plain attributes: registering these modules again would double every tensor's name.
        self.__dict__["patch_projection"] = parts.patch_projection
        self.__dict__["norm"] = parts.norm
        self._assemble = parts.assemble
        self._projection = parts.projection
        patch = parts.patch_projection.kernel_size
        self.grid = (architecture.image_size[0] // patch[0], architecture.image_size[1] // patch[1])

    patch_projection: nn.Conv2d
    norm: nn.LayerNorm

    @property
    def pooling(self) -> Pooling:
        """ "token" or "avg"."""
        return self.architecture.pooling

    @property
    def patches(self) -> int:
        """Number of patch tokens P."""
        return self.grid[0] * self.grid[1]

    @property
    def projection(self) -> Tensor | None:
        """Projection [D, output_width] after the final norm (CLIP), or None."""
        return self._projection()

    def assemble(self, patches: Tensor) -> Tensor:
        """Patch embeddings [N, P, D] -> input of the first block [N, prefix + P, D], positions added."""
        return self._assemble(patches)

    def embed(self, image: Tensor) -> Tensor:
        """Normalised pictures [N, 3, H, W] float -> input of the first block [N, prefix + P, D]."""
        return self.assemble(self.patch_projection(image).flatten(2).transpose(1, 2))

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """A backbone of its own: the blocks refer to the library's module, so the copy is built anew."""
        copied = build(self.architecture)
        weights = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
        copied.module.load_state_dict(weights, strict=True, assign=True)
        for name, parameter in copied.module.named_parameters():
            parameter.requires_grad_(self.module.get_parameter(name).requires_grad)
        copied.train(self.training)
        copied.preprocessing = self.preprocessing
        memo[id(self)] = copied
        return copied

    def tensors(self) -> dict[str, Tensor]:
        """The backbone's tensors under the library's own names."""
        return dict(self.module.state_dict())


def build(architecture: Architecture) -> Backbone:
    """An uninitialised backbone on the meta device: give it weights with `load_tensors`.

    Raises UsageError for a name that no library knows, UnsupportedError for a model that cannot be
    explained (with the reason).
    """
    builder = _FAMILIES.get(architecture.family)
    if builder is None or not architecture.model:
        raise UsageError(f"expected an architecture 'timm/<model>' or 'open_clip/<model>', found '{architecture.name}'")
    with torch.device("meta"):
        parts = builder(architecture)
    patch = parts.patch_projection.kernel_size
    if any(length % side for length, side in zip(architecture.image_size, patch, strict=True)):
        raise UsageError(
            f"image size {architecture.image_size} is no multiple of {architecture.name}'s patch size {patch}"
        )
    return Backbone(architecture, parts)


def architecture(name: str, *, image_size: int | None = None, pooling: str | None = None) -> Architecture:
    """Completes a name with the library's own image size and pooling where they are not given."""
    family, _, model = name.partition("/")
    describe = _DESCRIBE.get(family)
    if describe is None or not model:
        raise UsageError(f"expected an architecture 'timm/<model>' or 'open_clip/<model>', found '{name}'")
    own_size, own_pooling = describe(model)
    size = (image_size, image_size) if image_size else own_size
    chosen = pooling or own_pooling
    if chosen not in ("token", "avg"):
        raise UnsupportedError(
            f"{name} pools with '{chosen}': edgex explains class-token ('token') and average ('avg') pooling"
        )
    return Architecture(name, size, cast(Pooling, chosen))


def _like(model: str) -> str:
    import timm

    return nearest(model, timm.list_models(["*vit*", "deit*"])) or "; timm.list_models('*vit*') names them"


def _timm_describe(model: str) -> tuple[tuple[int, int], str]:
    import timm
    from timm.models.vision_transformer import VisionTransformer

    if not timm.is_model(model):
        raise UsageError(f"timm has no model '{model}'{_like(model)}")
    with torch.device("meta"):
        module = timm.create_model(model, num_classes=0)
    if type(module) is not VisionTransformer:
        raise UnsupportedError(
            f"timm/{model} is a {type(module).__name__}: edgex explains timm's VisionTransformer models"
        )
    size = module.patch_embed.img_size
    return (int(size[0]), int(size[1])), module.global_pool or "none"


def _timm_parts(arch: Architecture) -> _Parts:
    import timm
    from timm.models.vision_transformer import Attention, VisionTransformer
    from timm.models.vision_transformer import Block as TimmBlock

    if not timm.is_model(arch.model):
        raise UsageError(f"timm has no model '{arch.model}'{_like(arch.model)}")
    try:
        module = timm.create_model(
            arch.model,
            num_classes=0,
            img_size=arch.image_size,
            global_pool=arch.pooling,
            dynamic_img_size=False,
            pretrained=False,
        )
    except AssertionError as error:  # timm's way of saying that there is no class token to pool
        raise UnsupportedError(f"{arch.name} has no {arch.pooling} pooling ({error})") from error
    if type(module) is not VisionTransformer:
        raise UnsupportedError(f"{arch.name} is a {type(module).__name__}: edgex explains VisionTransformer models")
    if module.pool_include_prefix and arch.pooling == "avg":
        raise UnsupportedError(f"{arch.name} averages its class token in with the patches, which has no heatmap")
    if module.dynamic_img_size:
        raise UnsupportedError(f"{arch.name} resizes its positions at run time: build it with a fixed image size")

    def block(source: Any) -> Block:
        if type(source) is not TimmBlock or type(source.attn) is not Attention:
            raise UnsupportedError(f"{arch.name} has {type(source).__name__} blocks: expected pre-norm attention")
        attention = source.attn
        if attention.gate is not None or not isinstance(attention.norm, nn.Identity):
            raise UnsupportedError(f"{arch.name} gates or normalises its attention output, which cannot be split")
        plain = isinstance(attention.q_norm, nn.Identity) and isinstance(attention.k_norm, nn.Identity)
        return Block(
            module=source,
            norm1=source.norm1,
            packed_projection=lambda: (attention.qkv.weight, attention.qkv.bias),
            normalise_qk=None if plain else lambda q, k: (attention.q_norm(q), attention.k_norm(k)),
            project=attention.proj,
            gamma1=lambda: getattr(source.ls1, "gamma", None),
            feed_forward=lambda x: source.ls2(source.mlp(source.norm2(x))),
            heads=attention.num_heads,
            head_dim=attention.head_dim,
        )

    def assemble(patches: Tensor) -> Tensor:
        return module.norm_pre(module._pos_embed(module.patch_embed.norm(patches)))

    norm_after_pool = not isinstance(module.fc_norm, nn.Identity)
    norm = module.fc_norm if norm_after_pool else module.norm
    return _Parts(
        module=module,
        patch_projection=module.patch_embed.proj,
        assemble=assemble,
        blocks=[block(b) for b in module.blocks],
        norm=_layer_norm(norm, arch),
        norm_after_pool=norm_after_pool,
        projection=lambda: None,
        prefix_tokens=module.num_prefix_tokens,
        width=module.embed_dim,
        output_width=module.embed_dim,
        preprocessing=_timm_preprocessing(module, arch.image_size),
    )


def _timm_preprocessing(module: nn.Module, size: tuple[int, int]) -> Preprocessing:
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    return Preprocessing(
        image_size=size,
        resize=math.floor(min(size) / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _open_clip_config(model: str) -> dict[str, Any]:
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise UsageError(f"open_clip has no model '{model}'{nearest(model, open_clip.list_models())}")
    vision = config["vision_cfg"]
    if "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        raise UnsupportedError(f"open_clip/{model} has no CLIP VisionTransformer image tower: edgex explains those")
    return config


def _open_clip_describe(model: str) -> tuple[tuple[int, int], str]:
    vision = _open_clip_config(model)["vision_cfg"]
    if vision.get("attentional_pool"):
        return (0, 0), "attention"
    size = vision["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    pooling = vision.get("pool_type", "tok")
    return (int(height), int(width)), {"tok": "token"}.get(pooling, pooling)


def _open_clip_parts(arch: Architecture) -> _Parts:
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.model import CLIPVisionCfg, _build_vision_tower
    from open_clip.transformer import ResidualAttentionBlock

    config = _open_clip_config(arch.model)
    vision = dict(config["vision_cfg"])
    if vision.get("attentional_pool"):
        raise UnsupportedError(f"{arch.name} pools with attention: edgex explains class-token and average pooling")
    vision["image_size"] = arch.image_size
    vision["pool_type"] = {"token": "tok"}.get(arch.pooling, arch.pooling)
    module = _build_vision_tower(
        config["embed_dim"], CLIPVisionCfg(**vision), quick_gelu=config.get("quick_gelu", False)
    )

    def block(source: Any) -> Block:
        if type(source) is not ResidualAttentionBlock:
            raise UnsupportedError(f"{arch.name} has {type(source).__name__} blocks: expected pre-norm attention")
        attention = source.attn
        return Block(
            module=source,
            norm1=source.ln_1,
            packed_projection=lambda: (attention.in_proj_weight, attention.in_proj_bias),
            project=attention.out_proj,
            gamma1=lambda: getattr(source.ls_1, "gamma", None),
            feed_forward=lambda x: source.ls_2(source.mlp(source.ln_2(x))),
            heads=attention.num_heads,
            head_dim=attention.head_dim,
        )

    def assemble(patches: Tensor) -> Tensor:
        token = module.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([token, patches], dim=1) + module.positional_embedding.to(patches.dtype)
        return module.ln_pre(tokens)

    return _Parts(
        module=module,
        patch_projection=module.conv1,
        assemble=assemble,
        blocks=[block(b) for b in module.transformer.resblocks],
        norm=_layer_norm(module.ln_post, arch),
        norm_after_pool=arch.pooling == "avg" and module.final_ln_after_pool,
        projection=lambda: module.proj,
        prefix_tokens=1,
        width=module.conv1.out_channels,
        output_width=config["embed_dim"],
        preprocessing=Preprocessing(
            image_size=arch.image_size,
            resize=min(arch.image_size),
            interpolation="bicubic",
            mean=OPENAI_DATASET_MEAN,
            std=OPENAI_DATASET_STD,
        ),
    )


def _layer_norm(norm: nn.Module, arch: Architecture) -> nn.LayerNorm:
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None:
        raise UnsupportedError(f"{arch.name} ends in {type(norm).__name__}: edgex linearises a final LayerNorm")
    return norm


_FAMILIES: dict[str, Callable[[Architecture], _Parts]] = {"timm": _timm_parts, "open_clip": _open_clip_parts}
_DESCRIBE: dict[str, Callable[[str], tuple[tuple[int, int], str]]] = {
    "timm": _timm_describe,
    "open_clip": _open_clip_describe,
}
