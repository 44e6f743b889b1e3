"""timm's VisionTransformer, Eva and Beit in all their variants: against timm's own forward pass, and by autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones import architecture, build
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.training.vector_training import with_evidence

SMALL: dict[str, Any] = {"depth": 3, "embed_dim": 48, "num_heads": 3, "patch_size": 16}
FOUR = {**SMALL, "num_heads": 4}  # rotary positions need heads of a multiple of four numbers
SIZE = (48, 64)
VIT = "timm/vit_tiny_patch16_224"
EVA, DINOV3 = "timm/eva02_base_patch14_224", "timm/vit_small_patch16_dinov3"
MIXED, ROPE = "timm/vit_small_patch16_rope_mixed_224", "timm/vit_small_patch16_rope_224"
BEIT = "timm/beit_base_patch16_224"

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "patches of 8": (VIT, "token", {**SMALL, "patch_size": 8}),
    "patches of 8x16": (VIT, "token", {**SMALL, "patch_size": (8, 16)}),
    "no bias": (VIT, "token", {**SMALL, "qkv_bias": False}),
    "registers": (VIT, "token", {**SMALL, "reg_tokens": 3}),
    "registers without positions": (VIT, "token", {**SMALL, "reg_tokens": 3, "no_embed_class": True}),
    "layer scale": (VIT, "token", {**SMALL, "init_values": 0.5}),
    "norms of queries and keys": (VIT, "token", {**SMALL, "qk_norm": True}),
    "norm before the blocks": (VIT, "token", {**SMALL, "pre_norm": True, "norm_eps": 1e-3}),
    "norm inside attention": (VIT, "token", {**SMALL, "scale_attn_norm": True, "scale_mlp_norm": True}),
    "gated mlp": (VIT, "token", {**SMALL, "mlp_layer": "swiglu_packed", "mlp_ratio": 3.0}),
    "quick gelu": (VIT, "token", {**SMALL, "act_layer": "quick_gelu"}),
    "no positions": (VIT, "token", {**SMALL, "pos_embed": "none"}),
    "mean beside a class token": (VIT, "avg", SMALL),
    "mean without a class token": (VIT, "avg", {**SMALL, "class_token": False}),
    "norm before the mean": (VIT, "avg", {**SMALL, "fc_norm": False}),
    "EVA-02": (EVA, "avg", FOUR),
    "EVA-02 by its class token": (EVA, "token", FOUR),
    "EVA-02 with a norm inside attention": (EVA, "token", {**FOUR, "scale_attn_inner": True}),
    "EVA-02 tiny": ("timm/eva02_tiny_patch14_224", "avg", FOUR),
    "EVA": ("timm/eva_giant_patch14_224", "avg", FOUR),
    "DINOv3": (DINOV3, "token", FOUR),
    "DINOv3 with biases": ("timm/vit_small_patch16_dinov3_qkvb", "token", FOUR),
    "DINOv3, mean": (DINOV3, "avg", FOUR),
    "DINOv3 with a gated mlp": (DINOV3, "token", {**FOUR, "swiglu_mlp": True, "swiglu_align_to": 8}),
    "rotary positions": (ROPE, "token", FOUR),
    "rotary positions of each head": (MIXED, "token", FOUR),
    "rotary positions of each head, mean": (MIXED, "avg", FOUR),
    "BEiT": (BEIT, "avg", SMALL),
    "BEiT by its class token": (BEIT, "token", SMALL),
    "BEiT with a shared bias": (BEIT, "token", {**SMALL, "use_shared_rel_pos_bias": True}),
    "BEiT with nothing but a shared bias": (
        BEIT,
        "avg",
        {**SMALL, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_abs_pos_emb": True},
    ),
    "BEiT v2": ("timm/beitv2_base_patch16_224", "avg", SMALL),
}
TOKEN = [name for name, (_, pooling, _) in CASES.items() if pooling == "token"]


@pytest.fixture(scope="module")
def made(random_model: Callable[..., Any]) -> Callable[[str], SelfExplainingViT]:
    """Makes each case's model once."""
    models: dict[str, SelfExplainingViT] = {}

    def make(case: str) -> SelfExplainingViT:
        if case not in models:
            name, pooling, options = CASES[case]
            models[case] = random_model(name, image_size=SIZE, pooling=pooling, options=options)[0]
        return models[case]

    return make


def images() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_timms_and_heatmaps_add_up(case: str, made: Callable[[str], SelfExplainingViT]) -> None:
    model = made(case)
    classes = torch.tensor([2, 0, 4])
    logits, heatmap, base = model(images(), classes)
    expected = model.head(model.backbone.module(images()))
    assert torch.allclose(logits, expected, atol=2e-5)
    assert torch.allclose(model.logits(model.backbone.embed(images())), expected, atol=2e-5)
    centred = expected.gather(1, classes[:, None])[:, 0] - expected.mean(1)
    assert torch.allclose(heatmap.sum((1, 2)) + base, centred, atol=2e-5)
    assert heatmap.flatten(1).std(dim=1).min() > 1e-3
    assert torch.equal(base, model.empty_logits()[classes])


def library_tokens(model: SelfExplainingViT, hidden: Tensor) -> Tensor:
    """The last block's output [N, T, D] of timm's own blocks that cannot see some keys. hidden: bool [N, P]."""
    module: Any = model.backbone.module
    prefix = model.backbone.prefix_tokens
    mask = torch.zeros(len(hidden), 1, 1, prefix + hidden.shape[1])
    mask[:, 0, 0, prefix:] = torch.where(hidden, -torch.inf, 0.0)
    tokens = module.patch_embed(images())
    if type(module).__name__ == "Beit":
        tokens = torch.cat([module.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens if module.pos_embed is None else tokens + module.pos_embed
        shared = mask if module.rel_pos_bias is None else mask + module.rel_pos_bias()
        for block in module.blocks:
            tokens = block(tokens, shared_rel_pos_bias=shared)
        return tokens
    positions = module._pos_embed(tokens)
    tokens, rope = positions if isinstance(positions, tuple) else (positions, None)
    tokens = module.norm_pre(tokens)
    for index, block in enumerate(module.blocks):
        own = {} if rope is None else {"rope": rope[index] if module.rope_mixed else rope}
        tokens = block(tokens, attn_mask=mask.expand(-1, -1, tokens.shape[1], -1), **own)
    return tokens


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_dropped_patches_are_patches_whose_keys_are_hidden(case: str, made: Callable[[str], SelfExplainingViT]) -> None:
    model = made(case)
    backbone, module = model.backbone, model.backbone.module
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(3, backbone.patches, generator=generator).argsort(dim=1)[:, :5]
    tokens = backbone.embed(images())
    prefix, width = backbone.prefix_tokens, backbone.width
    left = tokens[:, prefix:].gather(1, places[..., None].expand(-1, -1, width))
    found = model.logits(torch.cat([tokens[:, :prefix], left], dim=1), places)

    hidden = torch.ones(3, backbone.patches, dtype=torch.bool).scatter_(1, places, False)
    after = library_tokens(model, hidden)
    if backbone.pooling == "avg":
        after = after[:, prefix:].gather(1, places[..., None].expand(-1, -1, width))
        after = after if backbone.norm_after_pool else backbone.norm(after)
        features = module.fc_norm(after.mean(dim=1))  # type: ignore[operator]
    else:
        features = module.fc_norm(module.norm(after))[:, 0]  # type: ignore[operator]
    assert torch.allclose(found, model.head(features), atol=2e-5)
    # One coalition of all pictures, and no patch at all.
    same = model.logits(torch.cat([tokens[:, :prefix], tokens[:, prefix + places[0]]], dim=1), places[:1])
    assert torch.allclose(same[0], found[0], atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", TOKEN)
def test_the_empty_picture_hides_all_patches(case: str, made: Callable[[str], SelfExplainingViT]) -> None:
    model = made(case)
    hidden = torch.ones(3, model.backbone.patches, dtype=torch.bool)
    module: Any = model.backbone.module
    logits = model.head(module.fc_norm(module.norm(library_tokens(model, hidden)))[:, 0])
    assert torch.allclose(model.empty_logits(), (logits - logits.mean(1, keepdim=True))[0], atol=2e-5)


@pytest.mark.parametrize("case", TOKEN)
def test_class_attention_is_what_timms_attention_writes(case: str, made: Callable[[str], SelfExplainingViT]) -> None:
    """Derivative of the class token's output by a factor on its attention to each patch, in timm's own modules."""
    model = made(case)
    backbone, classes = model.backbone, torch.tensor([1, 3, 0])
    factors: list[Tensor] = []
    outputs: list[Tensor] = []

    def scale(_: Any, __: Any, attention: Tensor) -> Tensor:
        factor = torch.ones(3, backbone.patches, requires_grad=True)
        factors.append(factor)
        row = F.pad(factor, (backbone.prefix_tokens, 0), value=1.0)[:, None, None]
        return torch.cat([attention[:, :, :1] * row, attention[:, :, 1:]], dim=2)

    def hold(norm: Any, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        sigma = (inputs[0].detach().var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
        return (inputs[0] - inputs[0].mean(-1, keepdim=True)) / sigma * norm.weight + norm.bias

    handles = []
    module: Any = backbone.module
    for source in module.blocks:
        source.attn.fused_attn = False
        handles += [
            source.attn.attn_drop.register_forward_hook(scale),
            source.attn.register_forward_hook(lambda _, __, output: outputs.append(output)),
        ]
        if isinstance(getattr(source.attn, "norm", None), torch.nn.LayerNorm):
            handles.append(source.attn.norm.register_forward_hook(hold))
    try:
        last = library_tokens(model, torch.zeros(3, backbone.patches, dtype=torch.bool))[:, 0].detach().requires_grad_()
        deviation = (last.detach().var(-1, keepdim=True, correction=0) + backbone.norm.eps).sqrt()
        features = (last - last.mean(-1, keepdim=True)) / deviation * backbone.norm.weight + backbone.norm.bias
        logits = model.head(features)
        score = logits.gather(1, classes[:, None])[:, 0] - logits.mean(1)
        (direction,) = torch.autograd.grad(score.sum(), last)
        expected = torch.zeros(3, backbone.patches)
        for block, output, factor in zip(backbone.blocks, outputs, factors, strict=True):
            gamma = block.gamma1()
            added = output[:, 0] if gamma is None else output[:, 0] * gamma
            expected += torch.autograd.grad((added * direction).sum(), factor, retain_graph=True)[0]
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        _, found = model.evidence_of(backbone.embed(images()), classes[:, None])
    assert expected.std() > 1e-3
    assert torch.allclose(found[:, 0], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/vit_small_patch16_18x2_224", {}, "has ParallelThingsBlock blocks: expected pre-norm attention"),
        ("timm/eva02_enormous_patch14_clip_224", {}, "has EvaBlockPostNorm blocks: expected pre-norm attention"),
        (EVA, {"use_fc_norm": True, "use_post_transformer_norm": True}, "norms its tokens before and after pooling"),
        (EVA, {"num_heads": 5}, "cannot be built with num_heads=5"),
    ],
)
def test_what_cannot_be_split_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build(architecture(name, pooling="avg", options=options))


@torch.no_grad()
@pytest.mark.parametrize("case", TOKEN)
def test_a_readout_reads_what_its_copies_would_write(case: str, made: Callable[[str], SelfExplainingViT]) -> None:
    """Copies of the last block's weights that moved, against the model's own evidence after the same move."""
    model = made(case)
    tokens, classes = model.backbone.embed(images()), torch.tensor([[2], [0], [4]])
    read = with_evidence(model, 3, readout=True)
    own = with_evidence(model, 3).evidence_of(tokens, classes)[1]
    assert torch.allclose(read.evidence_of(tokens, classes)[1], own, atol=1e-5 * float(own.abs().max())), "unmoved"

    read = with_evidence(model, 1, readout=True)
    moved = with_evidence(copy.deepcopy(model), 1)
    assert read.readout is not None
    generator, tensors = torch.Generator().manual_seed(2), dict(moved.backbone.module.named_parameters())
    for name, tensor in read.readout.tensors().items():
        tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator) * tensor.std())
        tensors[name].copy_(tensor)
    found = read.evidence_of(tokens, classes)[1][:, 0]
    expected = moved.evidence_of(tokens, classes)[1][:, 0]
    assert not torch.allclose(found, with_evidence(model, 1).evidence_of(tokens, classes)[1][:, 0], rtol=0.1)
    # The final norm is linearised at the class token of the model itself, so the two differ by a factor per picture.
    assert torch.allclose(F.normalize(found, dim=1), F.normalize(expected, dim=1), atol=1e-5)
    per_feature = read.feature_evidence(tokens)[1]
    of_class = (model.head.explained_weight()[classes] @ per_feature)[:, 0]
    assert torch.allclose(of_class, found, atol=1e-5 * float(found.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_one_channel_reads_grey_as_pillow_makes_it(pooling: str, random_model: Callable[..., Any]) -> None:
    model, card = random_model(VIT, image_size=SIZE, pooling=pooling, options={**SMALL, "in_chans": 1})
    assert model.backbone.module.patch_embed.proj.weight.shape == (48, 1, 16, 16)
    mean, std = card.preprocessing.mean, card.preprocessing.std
    assert mean == std == (0.5, 0.5, 0.5)
    pixels = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for colours, tolerance in ((pixels, 0.1), (pixels[..., :1].expand(-1, -1, -1, 3), 2e-5)):
        grey = torch.stack(
            [torch.from_numpy(np.array(Image.fromarray(picture).convert("L"))) for picture in colours.numpy()]
        )
        expected = model.head(model.backbone.module((grey[:, None] / 255 - 0.5) / 0.5))
        logits, heatmap, base = model(normalise(colours, mean, std), torch.tensor([1, 2]))
        assert torch.allclose(logits, expected, atol=tolerance)
        centred = logits[[0, 1], [1, 2]] - logits.mean(1)
        assert torch.allclose(heatmap.sum((1, 2)) + base, centred, atol=2e-5)


def test_one_channel_has_one_mean_and_takes_gradients(random_model: Callable[..., Any]) -> None:
    model, card = random_model("timm/deit_tiny_patch16_224", image_size=SIZE, options={**SMALL, "in_chans": 1})
    assert card.preprocessing.mean == pytest.approx((0.449,) * 3) and len(set(card.preprocessing.std)) == 1
    model.requires_grad_(True).train()
    model(images()).logits.sum().backward()
    assert model.backbone.module.patch_embed.proj.weight.grad.abs().max() > 0
    with pytest.raises(UsageError, match="in_chans: expected 1 or 3, found 2"):
        architecture(VIT, options={"in_chans": 2})
