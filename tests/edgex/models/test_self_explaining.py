"""The self-explaining forward against the libraries' own modules and against plain re-computation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UsageError
from edgex.models.backbones import Backbone
from edgex.models.self_explaining import Evidence, Head, SelfExplainingViT, normalise

pytestmark = pytest.mark.usefixtures("tiny_clips")


TOKEN = [
    ("timm/test_vit", {}),
    ("timm/deit3_small_patch16_224", {"image_size": 64}),  # layer scale, class token without a position
    ("timm/vit_small_patch14_reg4_dinov2", {"image_size": 56}),  # four registers and layer scale
    ("timm/vit_xsmall_patch16_clip_224", {"image_size": 64, "head": "cosine"}),
    ("open_clip/tiny-token", {}),
    ("open_clip/tiny-token", {"head": "linear"}),
    ("open_clip/tiny-quickgelu", {}),
    ("open_clip/tiny-layerscale", {"head": "linear"}),
]
AVERAGE = [
    ("timm/test_vit2", {}),
    ("timm/test_vit2", {"head": "cosine"}),
    ("timm/test_vit", {"pooling": "avg"}),
    ("timm/vit_base_patch16_siglip_gap_224", {"image_size": 64}),  # no class token, norm before the mean
    ("open_clip/tiny-avg", {}),
    ("open_clip/tiny-avg", {"head": "linear"}),
    ("open_clip/tiny-avg-norm-first", {}),
    ("open_clip/tiny-avg-norm-first", {"head": "linear"}),
]


def _identity(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *(str(value) for value in case[1].values())])


@pytest.fixture(scope="module")
def made(random_model: Callable[..., Any]) -> Callable[[tuple[str, dict[str, Any]]], SelfExplainingViT]:
    """Makes each case's model once: frozen models can be shared, tests that change one copy it."""
    models: dict[str, SelfExplainingViT] = {}

    def make(case: tuple[str, dict[str, Any]]) -> SelfExplainingViT:
        if _identity(case) not in models:
            models[_identity(case)] = random_model(case[0], **case[1])[0]
        return models[_identity(case)]

    return make


@pytest.fixture(params=TOKEN + AVERAGE, ids=_identity)
def model(request: pytest.FixtureRequest, made: Callable[..., SelfExplainingViT]) -> SelfExplainingViT:
    """Every family, pooling and kind of head, with random weights."""
    return made(request.param)


@pytest.fixture(params=TOKEN, ids=_identity)
def token_model(request: pytest.FixtureRequest, made: Callable[..., SelfExplainingViT]) -> SelfExplainingViT:
    """Class-token pooling only."""
    return made(request.param)


@pytest.fixture(params=AVERAGE, ids=_identity)
def average_model(request: pytest.FixtureRequest, made: Callable[..., SelfExplainingViT]) -> SelfExplainingViT:
    """Average pooling only."""
    return made(request.param)


def pictures(model: SelfExplainingViT, count: int = 3, seed: int = 0) -> Tensor:
    """Normalised noise pictures [count, 3, H, W]."""
    size = model.backbone.architecture.image_size
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def scores(model: SelfExplainingViT, features: Tensor) -> Tensor:
    """Logits by the definition of the head, written out."""
    head: Any = model.head
    if head.kind == "cosine":
        return head.scale * features @ head.weight.T / features.square().sum(-1, keepdim=True).sqrt()
    return features @ head.weight.T + head.bias


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=-1, keepdim=True)


@torch.no_grad()
def assert_adds_up(model: SelfExplainingViT, images: Tensor, tolerance: float = 1e-4) -> None:
    """sum(heatmap) + base is the centred logit of the explained class, given or predicted."""
    classes = model.head.classes
    for explain in (None, torch.full((len(images),), -1), torch.arange(len(images)) % classes):
        logits, heatmap, base = model(images, explain)
        assert heatmap.shape == (len(images), *model.backbone.grid)
        assert logits.shape == (len(images), classes)
        explained = logits.argmax(-1) if explain is None or explain[0] < 0 else explain
        wanted = centred(logits).gather(1, explained[:, None])[:, 0]
        assert (heatmap.sum((1, 2)) + base - wanted).abs().max() < tolerance
        assert torch.equal(base, model.empty_logits()[explained])


def test_heatmap_and_base_add_up(model: SelfExplainingViT) -> None:
    assert_adds_up(model, pictures(model))


@torch.no_grad()
def test_logits_equal_the_librarys(model: SelfExplainingViT) -> None:
    images = pictures(model)
    expected = scores(model, model.backbone.module(images))
    assert torch.allclose(model(images).logits, expected, rtol=1e-5, atol=1e-4)
    assert torch.allclose(model.logits(model.backbone.embed(images)), expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_real_weights_and_pictures(deit_tiny: Callable[[], Any], real_pictures: Callable[..., np.ndarray]) -> None:
    model, card = deit_tiny()
    preprocessing = card.preprocessing
    images = normalise(torch.from_numpy(real_pictures(4)), preprocessing.mean, preprocessing.std)
    assert_adds_up(model, images)
    expected = scores(model, model.backbone.module(images))
    assert torch.allclose(model(images).logits, expected, atol=1e-4)
    assert_evidence_matches(model, images, tolerance=1e-5)


@torch.no_grad()
def test_empty_logits_are_those_of_the_class_token_alone(token_model: SelfExplainingViT) -> None:
    backbone = token_model.backbone
    module: Any = backbone.module
    if backbone.architecture.family == "timm":
        grid = module.pos_embed.shape[1] - backbone.patches
        start = module.cls_token
        if grid:
            start = start + module.pos_embed[:, :1]
        if module.reg_token is not None:
            start = torch.cat([start, module.reg_token], dim=1)
        features = module.norm(module.blocks(module.norm_pre(start)))[:, 0]
    else:
        start = module.ln_pre(module.class_embedding + module.positional_embedding[0])[None, None]
        features = module.ln_post(module.transformer(start))[:, 0] @ module.proj
    expected = centred(scores(token_model, features))[0]
    assert torch.allclose(token_model.empty_logits(), expected, atol=1e-4)


@torch.no_grad()
def test_empty_logits_of_average_pooling_are_those_of_nothing(average_model: SelfExplainingViT) -> None:
    backbone = average_model.backbone
    features = torch.zeros(1, backbone.width)
    if backbone.norm_after_pool:
        features = backbone.norm(features)
    if backbone.projection is not None:
        features = features @ backbone.projection
    if average_model.head.kind == "cosine" and not features.any():
        expected = torch.zeros(average_model.head.classes)  # nothing points nowhere
    else:
        expected = centred(scores(average_model, features))[0]
    assert torch.allclose(average_model.empty_logits(), expected, atol=1e-5)


def held_centred_logit(model: SelfExplainingViT, last: Tensor, classes: Tensor) -> Tensor:
    """Centred logits [N] as a function of what enters the final norm, its deviation and CLIP's length held.

    last: the class token [N, D], or patch tokens [N, P, D] that are averaged.
    """
    backbone = model.backbone

    def norm(x: Tensor) -> Tensor:
        deviation = (x.detach().var(-1, keepdim=True, correction=0) + backbone.norm.eps).sqrt()
        return (x - x.mean(-1, keepdim=True)) / deviation * backbone.norm.weight + backbone.norm.bias

    if last.ndim == 2:
        features = norm(last)
    elif backbone.norm_after_pool:
        features = norm(last.mean(1))
    else:
        features = last.mean(1)  # normalised token by token before
    if backbone.projection is not None:
        features = features @ backbone.projection
    if model.head.kind == "cosine":
        length = features.detach().norm(dim=-1, keepdim=True)
        logits = model.head.scale * (features / length) @ model.head.weight.T
    else:
        assert model.head.bias is not None
        logits = features @ model.head.weight.T + model.head.bias
    return centred(logits).gather(1, classes[:, None])[:, 0]


class Written:
    """What every token writes into the class token through one attention layer, recomputed plainly.

    Catches the layer's input and output in the library's own forward pass.
    """

    def __init__(self, block: Any, heads: int) -> None:
        self.block, self.heads = block, heads
        self.handle = block.attn.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.input = args[0] if args else kwargs["query"]
        self.output = output[0] if isinstance(output, tuple) else output

    def shares(self) -> Tensor:
        """[N, T, D]: from each token into the class token, before the layer scale."""
        attention = self.block.attn
        timm = hasattr(attention, "qkv")
        weight = attention.qkv.weight if timm else attention.in_proj_weight
        bias = attention.qkv.bias if timm else attention.in_proj_bias
        out = attention.proj if timm else attention.out_proj
        width = self.input.shape[-1]
        size = width // self.heads
        total = torch.zeros_like(self.input)
        for head in range(self.heads):
            rows = [slice(part * width + head * size, part * width + (head + 1) * size) for part in range(3)]
            query, key, value = (self.input @ weight[r].T + (0 if bias is None else bias[r]) for r in rows)
            attended = torch.softmax(query[:, :1] @ key.transpose(1, 2) / size**0.5, dim=-1)  # [N, 1, T]
            columns = slice(head * size, (head + 1) * size)
            total += attended.transpose(1, 2) * (value @ out.weight[:, columns].T)
        assert torch.allclose(total.sum(1) + out.bias, self.output[:, 0], atol=1e-4), "shares miss the whole"
        return total


def library_blocks(backbone: Backbone) -> list[Any]:
    module: Any = backbone.module
    return list(module.blocks if backbone.architecture.family == "timm" else module.transformer.resblocks)


def layer_scale(block: Any) -> Tensor | float:
    scale = block.ls1 if hasattr(block, "ls1") else block.ls_1
    return getattr(scale, "gamma", 1.0)


def assert_evidence_matches(model: SelfExplainingViT, images: Tensor, tolerance: float = 1e-4) -> None:
    """Class-attention evidence equals gradient times written vector, summed over the last blocks."""
    backbone = model.backbone
    blocks = library_blocks(backbone)
    written = [Written(block, backbone.blocks[0].heads) for block in blocks]
    caught: list[Tensor] = []
    final = blocks[-1].register_forward_hook(lambda _, __, output: caught.append(output))
    with torch.no_grad():
        backbone.module(images)
    final.remove()
    for entry in written:
        entry.handle.remove()

    classes = torch.arange(len(images)) % model.head.classes
    last = caught[0][:, 0].clone().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(held_centred_logit(model, last, classes).sum(), last)
    with torch.no_grad():
        expected = torch.zeros(len(images), backbone.patches)
        for entry in written[-model.evidence.blocks :]:
            vectors = entry.shares()[:, backbone.prefix_tokens :] * layer_scale(entry.block)
            expected += torch.einsum("npd,nd->np", vectors, gradient)
        _, found = model.evidence_of(backbone.embed(images), classes[:, None])
    assert expected.std() > 1e-3
    assert (found[:, 0] - expected).abs().max() < tolerance * max(1.0, float(expected.abs().max()))
    assert_heatmap_is_corrected_evidence(model, images, classes, expected)


@torch.no_grad()
def assert_heatmap_is_corrected_evidence(
    model: SelfExplainingViT, images: Tensor, classes: Tensor, evidence: Tensor
) -> None:
    heatmap = model(images, classes).heatmap.flatten(1)
    correction = heatmap - model.evidence.scale * evidence
    spread = correction.max(1).values - correction.min(1).values
    assert spread.max() < 1e-4 * max(1.0, float(evidence.abs().max())), "the correction differs between patches"


def test_class_attention_evidence_is_what_patches_write(token_model: SelfExplainingViT) -> None:
    assert_evidence_matches(token_model, pictures(token_model))


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_evidence_of_fewer_and_more_blocks_and_another_scale(random_model: Callable[..., Any], blocks: int) -> None:
    plain = random_model("timm/test_vit")[0]
    evidence = Evidence("class-attention", blocks, 0.4)
    model = SelfExplainingViT(plain.backbone, plain.head, evidence).freeze()
    assert_evidence_matches(model, pictures(model))
    assert_adds_up(model, pictures(model))


def test_patch_token_evidence_is_each_patchs_own_share(average_model: SelfExplainingViT) -> None:
    model, backbone = average_model, average_model.backbone
    images = pictures(model)
    caught: list[Tensor] = []
    after = library_blocks(backbone)[-1].register_forward_hook(lambda _, __, output: caught.append(output))
    with torch.no_grad():
        backbone.module(images)
    after.remove()
    patches = caught[0][:, backbone.prefix_tokens :].clone()
    if not backbone.norm_after_pool:
        patches = F.layer_norm(patches, (backbone.width,), backbone.norm.weight, backbone.norm.bias, backbone.norm.eps)
    patches.requires_grad_(True)
    classes = torch.arange(len(images)) % model.head.classes
    with torch.enable_grad():
        total = held_centred_logit(model, patches, classes)
        (gradient,) = torch.autograd.grad(total.sum(), patches)
    expected = (patches * gradient).sum(-1).detach()
    with torch.no_grad():
        _, found = model.evidence_of(backbone.embed(images), classes[:, None])
    assert torch.allclose(found[:, 0], expected, atol=1e-4, rtol=1e-4)
    assert_heatmap_is_corrected_evidence(model, images, classes, expected)


@torch.no_grad()
def test_zeroing_a_patchs_value_path_takes_its_evidence_away(random_model: Callable[..., Any]) -> None:
    """In timm's own forward pass, attention[class token -> p] of the last block is zeroed for one patch."""
    plain = random_model("timm/test_vit")[0]
    model = SelfExplainingViT(plain.backbone, plain.head, Evidence("class-attention", 1, 1.0)).freeze()
    images, classes = pictures(model, 1), torch.tensor([2])
    block = library_blocks(model.backbone)[-1]
    block.attn.fused_attn = False

    def written(patch: int | None) -> Tensor:
        """The last attention's output for the class token [1, D]."""
        caught: list[Tensor] = []

        def zero(_: Any, __: Any, attention: Tensor) -> Tensor:
            attention = attention.clone()
            if patch is not None:
                attention[:, :, 0, model.backbone.prefix_tokens + patch] = 0
            return attention

        handles = [
            block.attn.attn_drop.register_forward_hook(zero),
            block.attn.register_forward_hook(lambda _, __, output: caught.append(output[:, 0])),
        ]
        model.backbone.module(images)
        for handle in handles:
            handle.remove()
        return caught[0]

    tokens = model.run_blocks(model.backbone.embed(images), len(model.backbone.blocks))
    last = tokens[:, 0].clone().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(held_centred_logit(model, last, classes).sum(), last)
    _, evidence = model.evidence_of(model.backbone.embed(images), classes[:, None])
    whole = written(None)
    for patch in (0, 17, 99):
        lost = ((whole - written(patch)) * gradient).sum()
        assert torch.allclose(evidence[0, 0, patch], lost, atol=1e-5)
        assert lost.abs() > 1e-5


@torch.no_grad()
def test_heatmap_follows_picture_and_class(model: SelfExplainingViT) -> None:
    images = pictures(model)
    zero, one = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    first, second = model(images, zero).heatmap, model(images, one).heatmap
    typical = first.flatten(1).std(dim=1).mean()
    assert typical > 1e-4

    def differs(a: Tensor, b: Tensor) -> bool:
        shape = (a - a.mean((-2, -1), keepdim=True)) - (b - b.mean((-2, -1), keepdim=True))
        return bool(shape.flatten(-2).std(dim=-1).min() > 0.1 * typical)

    assert differs(first, second)
    assert differs(first[:2], first[1:])


@torch.no_grad()
def test_every_picture_has_its_own_class(model: SelfExplainingViT) -> None:
    images = pictures(model)
    classes = torch.tensor([1, -1, 3])
    together = model(images, classes)
    for index in range(3):
        alone = model(images[index : index + 1], classes[index : index + 1])
        assert torch.allclose(together.heatmap[index], alone.heatmap[0], atol=1e-4)
        assert torch.allclose(together.base[index], alone.base[0], atol=1e-6)


@torch.no_grad()
def test_dropped_tokens(model: SelfExplainingViT) -> None:
    """Removing patch tokens equals the library's own blocks on the tokens that are left."""
    backbone = model.backbone
    module: Any = backbone.module
    tokens = backbone.embed(pictures(model))
    keep = [*range(backbone.prefix_tokens), *range(backbone.prefix_tokens + 2, tokens.shape[1], 3)]
    kept = tokens[:, keep]
    if backbone.architecture.family == "timm":
        features = module.forward_head(module.norm(module.blocks(kept)), pre_logits=True)
    else:
        left = module.transformer(kept)
        if backbone.pooling == "token":
            left = module.ln_post(left)[:, 0]
        elif backbone.norm_after_pool:
            left = module.ln_post(left[:, 1:].mean(1))
        else:
            left = module.ln_post(left)[:, 1:].mean(1)
        features = left @ module.proj
    assert torch.allclose(model.logits(kept), scores(model, features), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_starting_from_a_later_block(model: SelfExplainingViT) -> None:
    tokens = model.backbone.embed(pictures(model))
    classes = torch.tensor([[0, 1], [2, 3], [4, 0]])
    start = len(model.backbone.blocks) - max(1, model.evidence.blocks)
    logits, evidence = model.evidence_of(tokens, classes)
    again, later = model.evidence_of(model.run_blocks(tokens, start), classes, start=start)
    assert evidence.shape == (3, 2, model.backbone.patches)
    assert torch.allclose(logits, again, atol=1e-4)
    assert torch.allclose(evidence, later, atol=1e-4)


def test_gradients_reach_every_parameter(random_model: Callable[..., Any]) -> None:
    model = copy.deepcopy(random_model("timm/test_vit")[0]).train().requires_grad_(True)
    out = model(pictures(model))
    (out.heatmap.square().sum() + out.logits.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@torch.no_grad()
def test_freeze_keeps_the_empty_scores_and_training_forgets_them(random_model: Callable[..., Any]) -> None:
    model = copy.deepcopy(random_model("timm/test_vit")[0])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before = model.empty_logits()
    assert model.empty_logits() is before
    assert "_empty" not in model.state_dict()
    model.backbone.tensors()["cls_token"].mul_(-1)
    assert model.empty_logits() is before
    model.train()
    assert not torch.allclose(model.empty_logits(), before)
    assert torch.equal(model.freeze().empty_logits(), model.train().empty_logits())


def in_training(model: SelfExplainingViT) -> SelfExplainingViT:
    """A copy as a user may hold it while training: some parts frozen, some in eval mode."""
    model = copy.deepcopy(model).train().requires_grad_(True)
    model.backbone.blocks[0].module.eval().requires_grad_(False)
    return model


def test_an_inference_copy_shares_the_weights_and_leaves_the_model(
    model: SelfExplainingViT, unchanged: Callable[..., Any]
) -> None:
    model = in_training(model)
    images = pictures(model)
    with unchanged(model):
        copied = model.inference_copy()
        assert not any(module.training for module in copied.modules())
        assert not any(parameter.requires_grad for parameter in copied.parameters())
        pairs = list(zip(copied.state_dict().items(), model.state_dict().items(), strict=True))
        assert all(one == other and own.data_ptr() == tensor.data_ptr() for (one, own), (other, tensor) in pairs)
        assert copied.empty_logits() is copied.empty_logits(), "computed once"
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(copied(images), model(images), strict=True))
        copied.double().fold_classes()
    assert next(copied.parameters()).dtype == torch.float64
    loss = model(images).heatmap.square().sum()
    loss.backward()
    assert all((p.grad is not None) is p.requires_grad for p in model.parameters())


def test_an_inference_copy_keeps_the_models_class(random_model: Callable[..., Any]) -> None:
    class Doubled(SelfExplainingViT):
        def logits(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
            return 2 * super().logits(tokens, places)

    plain = random_model("timm/test_vit")[0]
    doubled = Doubled(plain.backbone, plain.head, plain.evidence)
    tokens = plain.backbone.embed(pictures(plain))
    assert torch.equal(doubled.inference_copy().logits(tokens), 2 * plain.logits(tokens))


@torch.no_grad()
def test_a_copy_is_independent(random_model: Callable[..., Any]) -> None:
    model = random_model("open_clip/tiny-token")[0]
    images = pictures(model)
    before = model(images)
    copied = copy.deepcopy(model)
    assert all(torch.equal(a, b) for a, b in zip(copied(images), before, strict=True))
    for parameter in copied.parameters():
        parameter.mul_(-1.5)
    assert not torch.allclose(copied(images).logits, before.logits)
    assert all(torch.equal(a, b) for a, b in zip(model(images), before, strict=True))


def test_parts_that_do_not_fit_are_refused(random_model: Callable[..., Any]) -> None:
    token, average = random_model("timm/test_vit")[0], random_model("timm/test_vit2")[0]
    with pytest.raises(UsageError, match="the head reads 65 features, timm/test_vit gives 64"):
        SelfExplainingViT(token.backbone, Head(torch.zeros(5, 65), None, kind="linear"), token.evidence)
    with pytest.raises(UsageError, match="token pooling is explained by class-attention, not by patch-tokens"):
        SelfExplainingViT(token.backbone, token.head, average.evidence)
    with pytest.raises(UsageError, match="avg pooling is explained by patch-tokens, not by class-attention"):
        SelfExplainingViT(average.backbone, average.head, token.evidence)
    for blocks in (0, -1, 7):
        evidence = dataclasses.replace(token.evidence, blocks=blocks)
        with pytest.raises(UsageError, match=f"evidence of {blocks} blocks, but the model has 6"):
            SelfExplainingViT(token.backbone, token.head, evidence)


def test_evidence_round_trip_and_default(random_model: Callable[..., Any]) -> None:
    token, average = random_model("timm/test_vit")[0], random_model("timm/test_vit2")[0]
    assert Evidence.default(token.backbone) == Evidence("class-attention", 4, 1.0)
    assert Evidence.default(average.backbone) == Evidence("patch-tokens", 0, 1.0)
    shallow = random_model("open_clip/tiny-token")[0]
    assert Evidence.default(shallow.backbone).blocks == 3
    evidence = Evidence("class-attention", 3, 0.45)
    assert Evidence.from_dict(evidence.to_dict()) == evidence


def test_normalise() -> None:
    pixels = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    found = normalise(pixels, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    assert found.shape == (1, 3, 1, 1)
    assert found.flatten().tolist() == pytest.approx([-1.0, (128 / 255 - 0.25) / 0.25, 1.0], abs=1e-6)
