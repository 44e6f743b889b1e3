"""Attention pooling and concatenated features: the library's logits, exact sums, and zeroed value paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgex.errors import UnsupportedError
from edgex.models.backbones import Architecture, architecture, build
from edgex.models.self_explaining import Evidence, SelfExplainingViT

pytestmark = pytest.mark.usefixtures("tiny_clips")

SMALL: dict[str, Any] = {"depth": 3, "embed_dim": 64, "num_heads": 2, "patch_size": 16}
ATTENTION = [
    (
        "timm/vit_pe_core_tiny_patch16_384",
        {"options": {"depth": 3, "embed_dim": 64, "num_heads": 2}},
    ),  # rotary positions
    ("timm/vit_base_patch16_siglip_224", {"options": SMALL}),  # no token but the patches
    ("timm/vit_base_patch16_siglip_224", {"options": {**SMALL, "class_token": True}}),  # which the pool leaves out
    ("timm/test_vit3", {}),  # a register that the pool reads
    ("timm/vit_base_patch16_siglip_224", {"options": SMALL, "head": "cosine"}),
]
OPEN_CLIP = [
    ("open_clip/tiny-coca", {}),
    ("open_clip/tiny-coca", {"head": "linear"}),
    ("open_clip/tiny-map", {}),
]
CONCATENATED = [
    ("timm/vit_small_patch14_reg4_dinov2", {"options": SMALL, "pooling": "token+avg"}),
    ("timm/vit_tiny_patch16_224", {"options": SMALL, "pooling": "token+avg", "head": "cosine"}),
    ("timm/deit_tiny_distilled_patch16_224", {"options": SMALL}),
    ("timm/deit_tiny_distilled_patch16_224", {"options": SMALL, "head": "cosine"}),
]
Case = tuple[str, dict[str, Any]]


def _identity(case: Case) -> str:
    more = [str(value) for name, value in case[1].items() if name != "options"]
    return "-".join([case[0], *more, *case[1].get("options", {}).keys() - SMALL.keys()])


@pytest.fixture(scope="module", params=ATTENTION + CONCATENATED, ids=_identity)
def model(request: pytest.FixtureRequest, random_model: Callable[..., Any]) -> SelfExplainingViT:
    """A small model of each pooling and kind of head."""
    return random_model(request.param[0], image_size=64, **request.param[1])[0]


@pytest.fixture(scope="module", params=ATTENTION, ids=_identity)
def attention_model(request: pytest.FixtureRequest, random_model: Callable[..., Any]) -> SelfExplainingViT:
    return random_model(request.param[0], image_size=64, **request.param[1])[0]


@pytest.fixture(scope="module", params=CONCATENATED, ids=_identity)
def concatenated_model(request: pytest.FixtureRequest, random_model: Callable[..., Any]) -> SelfExplainingViT:
    return random_model(request.param[0], image_size=64, **request.param[1])[0]


@pytest.fixture(scope="module", params=OPEN_CLIP, ids=_identity)
def clip_model(request: pytest.FixtureRequest, tiny_clips: None, random_model: Callable[..., Any]) -> SelfExplainingViT:
    return random_model(request.param[0], **request.param[1])[0]


def pictures(model: SelfExplainingViT, count: int = 3) -> Tensor:
    size = model.backbone.architecture.image_size
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def features(model: SelfExplainingViT, normed: Tensor) -> Tensor:
    """What the head reads, of timm's normed tokens [N, T, D], by timm's own pooling where it has that one."""
    module: Any = model.backbone.module
    pooling = model.backbone.pooling
    if pooling == "attention":
        return module.forward_head(normed, pre_logits=True)
    second = normed[:, 1] if pooling == "token+distillation" else normed[:, model.backbone.prefix_tokens :].mean(dim=1)
    return torch.cat([normed[:, 0], second], dim=1)


def library_blocks(model: SelfExplainingViT, tokens: Tensor, places: list[int]) -> Tensor:
    """timm's own blocks and final norm over tokens [N, T, D] of the patches at `places`."""
    module: Any = model.backbone.module
    if isinstance(module.blocks, nn.Sequential):
        return module.norm(module.blocks(tokens))
    angles = module.rope.get_embed(shape=module.patch_embed.grid_size)[places]
    for block in module.blocks:
        tokens = block(tokens, rope=angles)
    return module.norm(tokens)


def reads_prefix(model: SelfExplainingViT) -> bool:
    """Whether timm's attention pool reads class token and registers; Eva's does."""
    return getattr(model.backbone.module, "pool_include_prefix", True)


@torch.no_grad()
def test_logits_equal_the_librarys(model: SelfExplainingViT) -> None:
    module: Any = model.backbone.module
    images = pictures(model)
    expected = model.head(features(model, module.forward_features(images)))
    assert torch.allclose(model(images).logits, expected, rtol=1e-5, atol=1e-4)
    assert torch.allclose(model.logits(model.backbone.embed(images)), expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_logits_and_sums_of_open_clips_towers(clip_model: SelfExplainingViT) -> None:
    images = pictures(clip_model)
    logits, heatmap, base = clip_model(images)
    assert torch.allclose(logits, clip_model.head(clip_model.backbone.module(images)), rtol=1e-5, atol=1e-4)
    score = logits.max(dim=1).values - logits.mean(dim=1)
    assert torch.allclose(heatmap.sum((1, 2)) + base, score, atol=1e-4)
    assert heatmap.flatten(1).std(dim=1).min() > 1e-4
    fewer = clip_model.backbone.embed(images)[:, : clip_model.backbone.prefix_tokens + 3]
    assert clip_model.logits(fewer, torch.arange(3)[None]).isfinite().all()


@torch.no_grad()
def test_logits_of_two_heads_are_their_mean(random_model: Callable[..., Any]) -> None:
    """timm's distilled model averages the logits of two heads: those of one head with half the weights of each."""
    import timm

    model = random_model("timm/deit_tiny_distilled_patch16_224", image_size=64, options=SMALL)[0]
    whole: Any = timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, num_classes=5, **SMALL).eval()
    whole.load_state_dict(model.backbone.tensors(), strict=False)
    model.head.weight.copy_(torch.cat([whole.head.weight, whole.head_dist.weight], dim=1) / 2)
    model.head.bias.copy_((whole.head.bias + whole.head_dist.bias) / 2)
    images = pictures(model)
    assert torch.allclose(model(images).logits, whole(images), atol=1e-5)


@torch.no_grad()
def test_heatmap_and_base_add_up(model: SelfExplainingViT) -> None:
    images = pictures(model)
    for classes in (torch.tensor([-1, -1, -1]), torch.tensor([0, 4, 2])):
        logits, heatmap, base = model(images, classes)
        explained = torch.where(classes < 0, logits.argmax(dim=1), classes)
        wanted = logits.gather(1, explained[:, None])[:, 0] - logits.mean(dim=1)
        assert heatmap.shape == (3, *model.backbone.grid)
        assert (heatmap.sum((1, 2)) + base - wanted).abs().max() < 1e-4
        assert heatmap.flatten(1).std(dim=1).min() > 1e-4
        assert torch.equal(base, model.empty_logits()[explained])


@torch.no_grad()
def test_dropped_tokens(model: SelfExplainingViT) -> None:
    """Removing patch tokens equals the library's own blocks and pooling on the tokens that are left."""
    backbone = model.backbone
    tokens = backbone.embed(pictures(model))
    places = list(range(1, backbone.patches, 3))
    kept = tokens[:, [*range(backbone.prefix_tokens), *(backbone.prefix_tokens + place for place in places)]]
    expected = model.head(features(model, library_blocks(model, kept, places)))
    assert torch.allclose(model.logits(kept, torch.tensor([places])), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_empty_picture_leaves_the_pool_the_prefix_or_nothing(attention_model: SelfExplainingViT) -> None:
    """Its MLP adds what it makes of the projection's bias all the same."""
    backbone = attention_model.backbone
    module: Any = backbone.module
    pool = module.attn_pool
    if reads_prefix(attention_model):
        tokens = backbone.embed(pictures(attention_model, 1))[:, : backbone.prefix_tokens]
        pooled = pool(library_blocks(attention_model, tokens, []))
    else:
        taken_in = pool.proj(torch.zeros(1, pool.proj.in_features))
        pooled = taken_in + pool.mlp(pool.norm(taken_in))
    expected = attention_model.head(pooled)[0]
    assert torch.allclose(attention_model.empty_logits(), expected - expected.mean(), atol=1e-5)


@torch.no_grad()
def test_empty_features_of_concatenated_tokens(concatenated_model: SelfExplainingViT) -> None:
    backbone = concatenated_model.backbone
    module: Any = backbone.module
    normed = module.norm(module.blocks(backbone.embed(pictures(concatenated_model, 1))[:, : backbone.prefix_tokens]))
    second = normed[:, 1] if backbone.pooling == "token+distillation" else torch.zeros(1, backbone.width)
    expected = concatenated_model.head(torch.cat([normed[:, 0], second], dim=1))[0]
    assert torch.allclose(concatenated_model.empty_logits(), expected - expected.mean(), atol=1e-4)


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Changes a part's output in the library's forward pass; gives what it then was."""
    seen: list[Tensor] = []

    def hook(_: Any, __: Any, output: Tensor) -> Tensor:
        seen.append(change(output.clone()))
        return seen[-1]

    handle = module.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def row(model: SelfExplainingViT, read: Tensor, number: int) -> Tensor:
    """The explained weights [D'] of a class, with a cosine head's length of the features [1, D'] held."""
    rows = model.head.weight - model.head.weight.mean(dim=0)
    length = read.norm() if model.head.kind == "cosine" else 1.0
    return model.head.scale * rows[number] / length


@torch.no_grad()
def test_zeroing_a_value_of_the_pool_takes_its_evidence_away(attention_model: SelfExplainingViT) -> None:
    """In timm's own forward pass, one patch's value is zeroed and attention is left as it is."""
    model, backbone = attention_model, attention_model.backbone
    module: Any = backbone.module
    images = pictures(model, 1)
    read = module(images)
    first = backbone.prefix_tokens if reads_prefix(model) else 0

    def taken_in(patch: int | None) -> Tensor:
        """The output [1, 1, D] of the pool's projection."""

        def zero(packed: Tensor) -> Tensor:
            if patch is not None:
                packed[:, first + patch, backbone.width :] = 0
            return packed

        with hooked(module.attn_pool.kv, zero), hooked(module.attn_pool.proj, lambda output: output) as seen:
            module(images)
        return seen[0]

    _, evidence = model.evidence_of(backbone.embed(images), torch.tensor([[2]]))
    whole = taken_in(None)
    for patch in (0, 5, 15):
        lost = ((whole - taken_in(patch))[0, 0] * row(model, read, 2)).sum()
        assert torch.allclose(evidence[0, 0, patch], lost, rtol=1e-3, atol=1e-5)
        assert lost.abs() > 1e-5


def test_zeroing_a_value_of_cocas_pool_takes_its_evidence_away(
    tiny_clips: None, random_model: Callable[..., Any]
) -> None:
    """In open_clip's own pool, whose token is normed after it; the values' bias is zero, so that a zero stays one."""
    model = random_model("open_clip/tiny-coca", seed=1, head="linear")[0]
    backbone = model.backbone
    module: Any = backbone.module
    module.attn_pool.attn.in_proj_bias.chunk(3)[2].zero_()
    images = pictures(model, 1)

    def taken_in(patch: int | None) -> Tensor:
        """What enters the final norm: the first query's token [D]."""

        def zero(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            query, key, value = given
            value = value.clone()
            if patch is not None:
                value[:, 1 + patch] = 0
            return query, key, value

        handle = module.attn_pool.attn.register_forward_pre_hook(zero)
        with torch.no_grad(), hooked(module.attn_pool, lambda output: output) as seen:
            module(images)
        handle.remove()
        return seen[0][0, 0]

    whole = taken_in(None)
    entering = whole.clone().requires_grad_(True)
    with torch.enable_grad():
        deviation = (entering.detach().var(correction=0) + backbone.norm.eps).sqrt()
        normed = (entering - entering.mean()) / deviation * backbone.norm.weight
        (gradient,) = torch.autograd.grad(normed @ module.proj @ row(model, module(images), 2), entering)
    found = model.evidence_of(backbone.embed(images), torch.tensor([[2]]))[1][0, 0]
    for patch in (0, 5, 15):
        lost = (whole - taken_in(patch)) @ gradient
        assert torch.allclose(found[patch], lost, rtol=1e-3, atol=1e-5)
        assert lost.abs() > 1e-5


def test_zeroing_a_patch_in_every_part_takes_its_evidence_away(concatenated_model: SelfExplainingViT) -> None:
    """In timm's last block one patch's attention is zeroed, and its token in the mean; each norm's sigma is held."""
    backbone = concatenated_model.backbone
    evidence = Evidence(concatenated_model.evidence.kind, 1, 1.0)
    model = SelfExplainingViT(backbone, concatenated_model.head, evidence).freeze()
    module: Any = backbone.module
    images, prefix = pictures(model, 1), backbone.prefix_tokens
    module.blocks[-1].attn.fused_attn = False
    tokens_read = 2 if backbone.pooling == "token+distillation" else 1

    def written(patch: int | None) -> Tensor:
        """What the last attention writes into the tokens that are read, with the layer scale: [R, D]."""

        def zero(attention: Tensor) -> Tensor:
            if patch is not None:
                attention[:, :, :tokens_read, prefix + patch] = 0
            return attention

        block = module.blocks[-1]
        with torch.no_grad(), hooked(block.attn.attn_drop, zero), hooked(block.ls1, lambda output: output) as seen:
            module.forward_features(images)
        return seen[0][0, :tokens_read]

    with torch.no_grad():
        last = model.run_blocks(backbone.embed(images), len(backbone.blocks))
        read = features(model, module.norm(last))
        shares = row(model, read, 2).chunk(2)
    entering = last[0, :tokens_read].clone().requires_grad_(True)
    with torch.enable_grad():
        deviation = (entering.detach().var(-1, keepdim=True, correction=0) + backbone.norm.eps).sqrt()
        normed = (entering - entering.mean(-1, keepdim=True)) / deviation * backbone.norm.weight
        (gradient,) = torch.autograd.grad((normed * torch.stack(shares[:tokens_read])).sum(), entering)
    with torch.no_grad():
        found = model.evidence_of(backbone.embed(images), torch.tensor([[2]]))[1][0, 0]
    whole = written(None)
    for patch in (0, 5, 15):
        lost = ((whole - written(patch)) * gradient).sum()
        if tokens_read == 1:
            lost = lost + module.norm(last)[0, prefix + patch] @ shares[1] / backbone.patches
        assert torch.allclose(found[patch], lost, rtol=1e-3, atol=1e-5)
        assert lost.abs() > 1e-5


@torch.no_grad()
def test_what_the_head_reads_of_the_last_tokens(model: SelfExplainingViT) -> None:
    """Weights that add up to 1, with which the tokens that the head does not read have nothing to do."""
    backbone = model.backbone
    tokens = model.run_blocks(backbone.embed(pictures(model)), len(backbone.blocks))
    weights = model.strategy.read(tokens, model.strategy.pool(tokens)[1])
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 1))
    before = model.head(model.strategy.pool(tokens)[0])
    unread = (weights[0, 0] == 0).nonzero().flatten()
    tokens[:, unread] += torch.randn(backbone.width, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(model.head(model.strategy.pool(tokens)[0]), before, atol=1e-5)


@torch.no_grad()
def test_starting_from_a_later_block(model: SelfExplainingViT) -> None:
    tokens = model.backbone.embed(pictures(model))
    classes = torch.tensor([[0, 1], [2, 3], [4, 0]])
    start = len(model.backbone.blocks) - max(1, model.evidence.blocks)
    logits, evidence = model.evidence_of(tokens, classes)
    again, later = model.evidence_of(model.run_blocks(tokens, start), classes, start=start)
    assert torch.allclose(logits, again, atol=1e-4)
    assert torch.allclose(evidence, later, atol=1e-4)


def test_poolings_that_a_model_does_not_have_are_refused() -> None:
    distilled = "timm/deit_tiny_distilled_patch16_224"
    with pytest.raises(UnsupportedError, match="a class and a distillation token, which does not go with token poolin"):
        build(Architecture(distilled, (224, 224), "token"))
    with pytest.raises(UnsupportedError, match="no distillation token, which does not go with token.distillation"):
        build(Architecture("timm/vit_tiny_patch16_224", (224, 224), "token+distillation"))
    with pytest.raises(UnsupportedError, match="siglip_224 has no token pooling"):
        architecture("timm/vit_base_patch16_siglip_224", pooling="token+avg")
    assert architecture(distilled).pooling == "token+distillation"
    assert Evidence.default(build(architecture(distilled, options=SMALL))).blocks == 3
