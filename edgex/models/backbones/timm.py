"""timm's ViTs: which of them can be explained, and their parts under common names.

How a class lays out its modules is in `timm_vit`, `timm_eva` and `timm_beit`.
"""

from __future__ import annotations

import difflib
import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones.architectures import Architecture
from edgex.models.backbones.backbone import Family, Parts, final_layer_norm
from edgex.models.backbones.greyscale import for_colour
from edgex.models.backbones.options import shown
from edgex.models.backbones.timm_attention_pool import attention_pool
from edgex.runtime.errors import first_line
from edgex.runtime.preprocessing import Preprocessing, enlarged
from edgex.utils.text import nearest

_POOLINGS = {"attention": "map", "token+avg": "token", "token+distillation": "token"}
"""Our names of poolings -> timm's, where they differ. The features beside the class token are taken here."""
OWN_NAMES = {"map": "attention"}
"""timm's names of poolings -> ours, where they differ."""


_KNOWN = tuple(
    f"timm/{name}"
    for name in (
        *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"),
        *("beit_base_patch16_224", "eva02_base_patch14_224", "vit_small_patch16_dinov3"),
    )
)
"""Some of each class, to name the nearest of where another model is refused."""
_MOST_BYTES = 4 << 30
"""The memory that tensors which no file holds may take together."""


def describe(model: str, options: Mapping[str, Any], pooling: str | None) -> tuple[tuple[int, int], str]:
    """The model's own image size (height, width), and the pooling given or its own.

    timm calls the pooling of class and distillation token "token", as that of the class token alone.
    """
    with torch.device("meta"):
        module = _create(model, options, **({"global_pool": _POOLINGS.get(pooling, pooling)} if pooling else {}))
    check_class(module, f"timm/{model}")
    size = module.patch_embed.img_size
    pooling = pooling or module.global_pool or "none"
    ours = {**OWN_NAMES, "token": "token+distillation" if _is_distilled(module) else "token"}
    return (int(size[0]), int(size[1])), ours.get(pooling, pooling)


def create(architecture: Architecture) -> nn.Module:
    """timm's module without a head."""
    module = _create(
        architecture.model,
        architecture.options,
        img_size=architecture.image_size,
        global_pool=_timm_pooling(architecture),
        dynamic_img_size=False,
    )
    check(module, architecture)
    return module


def check(module: Any, architecture: Architecture) -> None:
    """Computes the tensors that no file holds; UnsupportedError for a module that cannot be explained."""
    name = architecture.name
    check_class(module, name)
    if _is_distilled(module) != (architecture.pooling == "token+distillation"):
        tokens = "a class and a distillation token" if _is_distilled(module) else "no distillation token"
        raise UnsupportedError(f"{name} has {tokens}, which does not go with {architecture.pooling} pooling")
    if getattr(module, "pool_include_prefix", False) and architecture.pooling == "avg":
        raise UnsupportedError(f"{name} averages its class token in with the patches, which has no heatmap")
    _fill_constants(module, name)


def arguments(architecture: Architecture) -> dict[str, Any]:
    """The arguments of `timm.create_model` that an architecture stands for, without those of its weights."""
    return {
        **_arguments(architecture.options),
        "img_size": architecture.image_size,
        "global_pool": _timm_pooling(architecture),
    }


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    from timm.layers import LayerNorm, Mlp, SwiGLU, SwiGLUPacked

    given = dict(options)
    if "norm_eps" in given:
        given["norm_layer"] = functools.partial(LayerNorm, eps=given.pop("norm_eps"))
    if "mlp_layer" in given:
        given["mlp_layer"] = {"mlp": Mlp, "swiglu": SwiGLU, "swiglu_packed": SwiGLUPacked}[given["mlp_layer"]]
    return given


def _create(model: str, options: Mapping[str, Any], **more: Any) -> Any:
    """timm's module without a head; UnsupportedError, with timm's reason, where it cannot be built in this way."""
    import timm

    if not timm.is_model(model):
        like = nearest(model, timm.list_models(["*vit*", "deit*"])) or "; timm.list_models('*vit*') names them"
        raise UsageError(f"timm has no model '{model}'{like}")
    try:
        return timm.create_model(model, num_classes=0, **_arguments(options), **more)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if more.pop("dynamic_img_size", None) is not None and "'dynamic_img_size'" in str(error):
            return _create(model, options, **more)  # Beit has fixed sizes only
        if "Token pooling needs" in str(error):  # timm's way of saying that there is no class token to pool
            raise UnsupportedError(f"timm/{model} has no token pooling ({error})") from error
        changed = f" with {shown(options)}" if options else ""
        raise UnsupportedError(f"timm/{model} cannot be built{changed}: {first_line(error)}") from error


def _layout(module: Any) -> Any:
    """What knows how a class of timm lays out its modules: `assemble` and `blocks`; None for another class."""
    from timm.models.beit import Beit
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    from edgex.models.backbones import timm_beit, timm_eva, timm_vit

    layouts = {VisionTransformer: timm_vit, VisionTransformerDistilled: timm_vit, Eva: timm_eva, Beit: timm_beit}
    return layouts.get(type(module))


def check_class(module: Any, name: str) -> None:
    """UnsupportedError for a module of another class than those that can be explained."""
    near = difflib.get_close_matches(name, _KNOWN, 1, cutoff=0.0)[0]
    if _layout(module) is None:
        raise UnsupportedError(
            f"{name} is a {type(module).__name__}: expected timm's VisionTransformer, Eva or Beit, whose patch tokens "
            f"go through all blocks; nearest: {near}"
        )
    if not isinstance(getattr(module.patch_embed, "proj", None), nn.Conv2d):
        kind = type(module.patch_embed).__name__
        raise UnsupportedError(
            f"{name} makes its patch tokens with a {kind}: expected one convolution (PatchEmbed); nearest: {near}"
        )


def _fill_constants(module: Any, name: str) -> None:
    """Computes the tensors that no file holds, such as the angles of rotary positions; the weights stay away.

    UnsupportedError where they would take more than `_MOST_BYTES`: their size follows from a file's few numbers.
    """
    size = sum(
        part.get_buffer(own).nbytes for part in module.modules() for own in sorted(part._non_persistent_buffers_set)
    )
    if size > _MOST_BYTES:
        raise UnsupportedError(
            f"{name} at this image size needs {size / 2**30:.0f} GB for positions alone: expected at most "
            f"{_MOST_BYTES >> 30} GB; take a smaller image size"
        )
    with torch.device("cpu"):
        for part in module.modules():
            if part._non_persistent_buffers_set:
                if not hasattr(part, "init_non_persistent_buffers"):
                    raise UnsupportedError(f"{name} needs a newer timm, which can compute its {type(part).__name__}")
                part.to_empty(device="cpu", recurse=False)
                part.init_non_persistent_buffers()
                for own, weight in list(part.named_parameters(recurse=False)):
                    part.register_parameter(own, nn.Parameter(weight.detach().to("meta")))


def adapt(module: Any, architecture: Architecture) -> Parts:
    """The parts of timm's module."""
    layout = _layout(module)
    norm_after_pool = not isinstance(module.fc_norm, nn.Identity)
    if norm_after_pool and not isinstance(module.norm, nn.Identity):
        raise UnsupportedError(f"{architecture.name} norms its tokens before and after pooling: expected one norm")
    return Parts(
        patch_projection=for_colour(module.patch_embed.proj),
        assemble=lambda patches: layout.assemble(module, patches),
        blocks=layout.blocks(module, architecture.name),
        norm=final_layer_norm(module.fc_norm if norm_after_pool else module.norm, architecture),
        norm_after_pool=norm_after_pool,
        projection=lambda: None,
        prefix_tokens=module.num_prefix_tokens,
        width=module.embed_dim,
        output_width=module.embed_dim,
        preprocessing=_preprocessing(module, architecture.image_size),
        attention_pool=attention_pool(module, architecture.name) if architecture.pooling == "attention" else None,
    )


def _timm_pooling(architecture: Architecture) -> str:
    return _POOLINGS.get(architecture.pooling, architecture.pooling)


def _is_distilled(module: nn.Module) -> bool:
    from timm.models.deit import VisionTransformerDistilled

    return isinstance(module, VisionTransformerDistilled)


def _preprocessing(module: nn.Module, size: tuple[int, int]) -> Preprocessing:
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    return Preprocessing(
        image_size=size,
        resize=enlarged(size, config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=_of_channels(config["mean"], module),
        std=_of_channels(config["std"], module),
        fit="crop",
    )


def _of_channels(values: Sequence[float], module: Any) -> tuple[float, float, float]:
    """Three values; of a model of one channel whose configuration states those of colours, three times their mean."""
    red, green, blue = (statistics.fmean(values),) * 3 if module.in_chans == 1 else values
    return red, green, blue


FAMILY = Family("timm", ("token", "avg", "attention", "token+avg", "token+distillation"), describe, create, adapt)
