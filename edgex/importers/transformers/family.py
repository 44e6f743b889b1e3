"""What a family of transformers' models is: its classes, its configuration, and the timm model that each equals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from edgex.errors import UnsupportedError
from edgex.importers.transformers.names import Names
from edgex.models.backbones import Pooling
from edgex.runtime import schema

Values = Mapping[str, Any]
"""A configuration with the family's defaults for what it leaves out."""

_SIDE = schema.whole(1, schema.MAX_SIDE)


def _sides(value: Any) -> tuple[int, int]:
    """A number of pixels for both sides, or height and width."""
    return schema.row(_SIDE, _SIDE)(value) if isinstance(value, (list, tuple)) else (_SIDE(value),) * 2


_SIZE = schema.whole(1, 1 << 16)
_CHECKS: dict[str, schema.Check[Any]] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), _SIZE),
    **dict.fromkeys(("image_size", "patch_size"), _sides),
    **dict.fromkeys(("mlp_ratio", "layer_norm_eps", "rope_theta"), schema.positive),
    **dict.fromkeys(("layer_scale_init_value", "layerscale_value"), schema.number),
    "num_channels": schema.whole(1, 3),
    "num_register_tokens": schema.whole(0, 256),
    "hidden_act": schema.text,
}
"""The keys of all families' configurations; those that are not listed are true or false."""

# transformers' names of activations -> those of `edgex.models.backbones.options`.
_ACTIVATIONS = {
    **{"gelu": "gelu", "gelu_python": "gelu", "quick_gelu": "quick_gelu"},
    **{"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh"},
    **{"relu": "relu", "silu": "silu", "swish": "silu"},
}


@dataclasses.dataclass(frozen=True)
class Family:
    """Models of transformers that share a configuration and the names of their tensors.

    classes: the classes of these models, as config.json names them -> how they pool.
    defaults: the keys that are read, and transformers' own values for those that a config.json leaves out.
    options: configuration and pooling -> the options that timm builds the same model with, see
        `edgex.models.backbones.options`. UnsupportedError, with the reason, for a configuration that it cannot.
    bases: timm's models of this shape -> their own options, where these are not the same for all.
    names: of the tensors.
    section: the part of config.json that describes the image tower, None where all of it does.
    resizes_positions: whether positions are resampled to the size of the pictures, whatever size config.json states.
    """

    classes: Mapping[str, Pooling]
    defaults: Values
    options: Callable[[Values, Pooling], dict[str, Any]]
    bases: Mapping[str, Mapping[str, Any]]
    names: Names
    section: str | None = None
    resizes_positions: bool = False

    def values(self, content: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The configuration that a config.json holds; ArtefactError names a value of another type."""
        part = content
        if self.section is not None and self.section in content:
            part, where = content[self.section], f"{where}: {self.section}"
        given = schema.checked(schema.mapping, part, where)
        stated = {name: value for name, value in given.items() if value is not None}
        checks = {
            name: schema.Default(_CHECKS.get(name, schema.flag), _CHECKS.get(name, schema.flag)(default))
            for name, default in self.defaults.items()
        }
        return schema.checked(schema.record(dict, **checks), stated, where)

    def nearest(self, values: Values, pooling: Pooling) -> tuple[str, dict[str, Any]]:
        """The timm model with the fewest options that differ, and these."""
        wanted = self.options(values, pooling)

        def differing(name: str) -> dict[str, Any]:
            return {option: value for option, value in wanted.items() if self.bases[name].get(option) != value}

        name = min(self.bases, key=lambda base: len(differing(base)))
        return f"timm/{name}", differing(name)


def common_options(values: Values, *, hidden: int | None = None) -> dict[str, Any]:
    """The options that all families state alike. hidden: width of the MLP, else that of the configuration."""
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise UnsupportedError(f"expected a hidden_size that is a multiple of {heads} heads, found {width}")
    patch = values["patch_size"]
    return {
        "embed_dim": width,
        "depth": values["num_hidden_layers"],
        "num_heads": heads,
        "mlp_ratio": _ratio(hidden or values["intermediate_size"], width),
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "in_chans": values["num_channels"],
        "norm_eps": values["layer_norm_eps"],
    }


def activation(values: Values) -> str:
    """The activation of the MLPs under timm's name."""
    if (name := values["hidden_act"]) not in _ACTIVATIONS:
        raise UnsupportedError(f"expected hidden_act {', '.join(_ACTIVATIONS)}, found '{name[:60]}'")
    return _ACTIVATIONS[name]


def require(values: Values, **wanted: Any) -> None:
    """Raises UnsupportedError for a key that has another value than timm's models can be built with."""
    for name, value in wanted.items():
        if values[name] != value:
            raise UnsupportedError(f"expected {name} {_json(value)}, found {_json(values[name])}")


def shapes(*rows: tuple[str, int, int, int, int], kind: str = "", **more: Any) -> dict[str, dict[str, Any]]:
    """`Family.bases` of rows with a name, width, depth, heads and patch size.

    kind: what "{}" in the names stands for. more: options that all of them have.
    """
    return {
        name.format(kind): {
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "patch_size": patch,
            "mlp_ratio": 4.0,
            **more,
        }
        for name, width, depth, heads, patch in rows
    }


def _ratio(hidden: int, width: int) -> float:
    """The ratio of which timm makes `hidden` by rounding `width` times the ratio down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
