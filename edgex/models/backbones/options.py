"""The options that change a named model's shape, with their types and bounds; no weights, no torch.

Most names are those of the arguments of timm's VisionTransformer, Eva and Beit. A card is data from strangers: whatever
is not in this list is refused before a model is built with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from edgex.runtime import schema
from edgex.runtime.printable import printable

_MOST_TOKENS = 256
_flags = dict.fromkeys(
    (
        *("class_token", "no_embed_class", "pre_norm", "final_norm", "fc_norm"),
        *("qkv_bias", "proj_bias", "qk_norm", "scale_attn_norm", "scale_mlp_norm"),
        # Of Eva and Beit.
        *("qkv_fused", "swiglu_mlp", "scale_mlp", "scale_attn_inner", "attn_only_layer_scale"),
        *("use_abs_pos_emb", "use_rot_pos_emb", "rope_rotate_half"),
        *("use_rel_pos_bias", "use_shared_rel_pos_bias"),
        *("use_pre_transformer_norm", "use_post_transformer_norm", "use_fc_norm"),
    ),
    schema.flag,
)


def _sides(value: Any) -> Any:
    """A whole number of pixels or patches, or two of them: height and width."""
    side = schema.whole(1, 1024)
    return schema.row(side, side)(value) if isinstance(value, (list, tuple)) else side(value)


def _channels(value: Any) -> int:
    """The channels of a picture: 3 of colour, or 1 of grey."""
    if schema.whole(1, 3)(value) == 2:
        raise schema.MisfitError("expected 1 or 3, found 2")
    return int(value)


def _ratio(value: Any) -> float:
    """A number above 0 that a width may be multiplied with."""
    if schema.positive(value) > 64:
        raise schema.MisfitError(f"expected a number of at most 64, found {value:g}")
    return float(value)


_CHECKS: dict[str, schema.Check[Any]] = {
    **_flags,
    "in_chans": _channels,
    "patch_size": _sides,
    "embed_dim": schema.whole(1, 1 << 14),
    "depth": schema.whole(1, 256),
    "num_heads": schema.whole(1, 1024),
    "mlp_ratio": _ratio,
    "init_values": schema.positive,
    "reg_tokens": schema.whole(0, _MOST_TOKENS),
    "num_reg_tokens": schema.whole(0, _MOST_TOKENS),
    "pos_embed": schema.one_of("learn", "none"),
    "norm_eps": schema.positive,
    "act_layer": schema.one_of("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),
    "mlp_layer": schema.one_of("mlp", "swiglu", "swiglu_packed"),
    "attn_type": schema.one_of("eva", "rope"),
    "swiglu_align_to": schema.whole(0, 1024),
    "rope_type": schema.one_of("cat", "dinov3", "mixed"),
    "rope_grid_offset": schema.number,
    "rope_grid_indexing": schema.one_of("ij", "xy"),
    "rope_temperature": schema.positive,
    "ref_feat_shape": _sides,
}
OPTIONS = tuple(_CHECKS)
"""The names of all options, of whichever family."""


def checked_options(value: Any) -> dict[str, Any]:
    """Options as an architecture holds them, in alphabetical order; `schema.MisfitError` names what is unusable."""
    found = {}
    for name, given in sorted(schema.mapping(value).items()):
        if name not in _CHECKS:
            near = difflib.get_close_matches(str(name), OPTIONS, 1)
            hint = f": did you mean '{near[0]}'?" if near else f" of {', '.join(OPTIONS)}"
            raise schema.MisfitError(f"'{printable(str(name)[:60])}' is no option{hint}")
        try:
            found[name] = _CHECKS[name](given)
        except schema.MisfitError as misfit:
            raise misfit.below(name) from None
    return found


def shown(options: Mapping[str, Any]) -> str:
    """Options in a message: "depth=3, embed_dim=64"."""
    return ", ".join(f"{name}={value}" for name, value in options.items())
