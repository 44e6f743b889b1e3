"""AttnLRP and transformer attribution against computations of their own on timm's modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UnsupportedError
from edgex.evaluation.methods import parse
from edgex.evaluation.methods.attn_lrp import _AttnLrpRules, attn_lrp
from edgex.models.self_explaining import SelfExplainingViT, normalise

Model = tuple[SelfExplainingViT, Tensor]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-3) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def heads(packed: Tensor, block: Any) -> Tensor:
    return packed.unflatten(-1, (block.attn.num_heads, -1)).transpose(-3, -2)


def half(values: Tensor) -> Tensor:
    """The same values; half of their gradient."""
    return values / 2 + (values / 2).detach()


def test_without_gamma_attn_lrp_is_gradient_times_input_of_a_changed_backward_pass(model_and_images: Model) -> None:
    """The form in which the authors' library lxt computes it: the rules are gradients once activations have the slope
    f(x) / x, sigmas are constants and products pass on half.
    """
    model, images = model_and_images
    module: Any = model.backbone.module
    start = model.backbone.embed(images[:1]).detach().requires_grad_()

    def norm(layer: Any, values: Tensor) -> Tensor:
        centred = values - values.mean(dim=-1, keepdim=True)
        sigma = torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + layer.eps).detach()
        return centred / sigma * layer.weight + layer.bias

    def scaled(layer: Any, values: Tensor) -> Tensor:
        return values * layer.gamma if hasattr(layer, "gamma") else values

    tokens = start
    for block in module.blocks:
        query, key, value = (heads(p, block) for p in block.attn.qkv(norm(block.norm1, tokens)).chunk(3, dim=-1))
        scores = half(query) @ half(key).mT * block.attn.head_dim**-0.5
        mixed = half(scores.softmax(dim=-1)) @ half(value)
        tokens = tokens + scaled(block.ls1, block.attn.proj(mixed.transpose(1, 2).flatten(2)))
        hidden = block.mlp.fc1(norm(block.norm2, tokens))
        slope = (block.mlp.act(hidden) / hidden).detach()
        tokens = tokens + scaled(block.ls2, block.mlp.fc2(hidden * slope))
    logit = F.linear(norm(module.norm, tokens)[:, 0], model.head.weight, model.head.bias)[0, 2]
    (gradient,) = torch.autograd.grad(logit, start)
    expected = (start * gradient)[0, 1:].sum(dim=1).detach().reshape(10, 10)
    assert close(attn_lrp(model, images[:1], torch.tensor([2]), gamma=0)[0], expected)
    noisy = parse("attn-lrp").explain(model, images[:1], torch.tensor([2]), np.random.default_rng(0))[0]
    assert not close(noisy, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_the_gamma_rule_neuron_by_neuron(gamma: float) -> None:
    """Each output's relevance goes to its summands in proportion; those of the output's sign count 1 + gamma times."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5, generator=generator, requires_grad=True)
    weight, bias = torch.randn(4, 5, generator=generator), torch.randn(4, generator=generator)
    relevance = torch.randn(3, 4, generator=generator)
    output = _AttnLrpRules(gamma).linear(inputs, weight, bias)
    assert torch.allclose(output, F.linear(inputs, weight, bias))
    (found,) = torch.autograd.grad(output, inputs, relevance)
    expected = torch.zeros(3, 5)
    for row in range(3):
        for unit in range(4):
            summands = torch.cat([inputs[row].detach() * weight[unit], bias[unit, None]])
            alike = summands.sign() == output[row, unit].sign()
            shares = torch.where(alike, (1 + gamma) * summands, summands)
            expected[row] += relevance[row, unit] * shares[:-1] / shares.sum()
    assert torch.allclose(found, expected, atol=1e-4)


def positive_part(inputs: Tensor, layer: tuple[Tensor, Any], relevance: Tensor) -> Tensor:
    """Relevance of a linear layer's inputs by its positive summands alone, all of them laid out: [..., D', D]."""
    summands = (inputs[..., None, :] * layer[0]).clamp(min=0)
    return (relevance[..., None] * summands / (summands.sum(dim=-1, keepdim=True) + 1e-9)).sum(dim=-2)


def shared(first: Tensor, second: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    ratio = relevance / (first + second)
    a, b = first * ratio, second * ratio
    sizes = a.sum().abs() + b.sum().abs()
    return (
        a * (a.sum().abs() / sizes * relevance.sum() / a.sum()),
        b * (b.sum().abs() / sizes * relevance.sum() / b.sum()),
    )


def test_transformer_attribution_is_relevance_propagated_layer_by_layer(model_and_images: Model) -> None:
    """Backwards by hand, as the authors' code does it: sections 3.1 to 3.3 of arXiv 2012.09838."""
    # In double precision: relevance divides by sums that can be close to zero.
    model, images = model_and_images[0].double(), model_and_images[1].double()
    module: Any = model.backbone.module
    explained = 3
    tokens = model.backbone.embed(images[:1])[0].detach().requires_grad_()
    kept: list[dict[str, Tensor]] = []
    for block in module.blocks:
        normed = block.norm1(tokens)
        query, key, value = (heads(p, block) for p in block.attn.qkv(normed).chunk(3, dim=-1))
        attention = (query @ key.mT * block.attn.head_dim**-0.5).softmax(dim=-1)
        mixed = (attention @ value).transpose(0, 1).flatten(1)
        wrote = block.ls1(block.attn.proj(mixed))
        middle = tokens + wrote
        normed2 = block.norm2(middle)
        hidden = block.mlp.act(block.mlp.fc1(normed2))
        added = block.ls2(block.mlp.fc2(hidden))
        kept.append(
            {"tokens": tokens, "normed": normed, "q": query, "k": key, "v": value, "attention": attention,
             "mixed": mixed, "wrote": wrote, "middle": middle, "normed2": normed2, "hidden": hidden, "added": added}
        )  # fmt: skip
        tokens = middle + added
    features = module.norm(tokens)[0]
    logits = F.linear(features, model.head.weight, model.head.bias)
    gradients = torch.autograd.grad(logits[explained], [k["attention"] for k in kept])
    joint = torch.eye(101, dtype=torch.float64)
    with torch.no_grad():
        relevance = torch.zeros(101, tokens.shape[1], dtype=torch.float64)
        relevance[0] = positive_part(
            features, (model.head.weight, None), F.one_hot(torch.tensor(explained), 4).double()
        )
        maps = []
        for block, k in zip(reversed(module.blocks), reversed(kept), strict=True):
            stays, through = shared(k["middle"], k["added"], relevance)
            through = positive_part(k["hidden"], (block.mlp.fc2.weight, None), through)
            relevance = stays + positive_part(k["normed2"], (block.mlp.fc1.weight, None), through)
            stays, through = shared(k["tokens"], k["wrote"], relevance)
            through = heads(positive_part(k["mixed"], (block.attn.proj.weight, None), through), block)
            ratio = through / (2 * (k["attention"] @ k["v"]))
            of_attention, of_value = k["attention"] * (ratio @ k["v"].mT), k["v"] * (k["attention"].mT @ ratio)
            maps.append(of_attention)
            ratio = of_attention / (2 * (k["q"] @ k["k"].mT))
            parts = [k["q"] * (ratio @ k["k"]), k["k"] * (ratio.mT @ k["q"]), of_value]
            packed = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)
            relevance = stays + positive_part(k["normed"], (block.attn.qkv.weight, None), packed)
        for gradient, of_attention in zip(gradients, reversed(maps), strict=True):
            joint = (torch.eye(101, dtype=torch.float64) + (gradient * of_attention).clamp(min=0).mean(dim=0)) @ joint
    found = parse("transformer-attribution").explain(
        model, images[:1], torch.tensor([explained]), np.random.default_rng(0)
    )
    assert close(found[0], joint[0, 1:].reshape(10, 10))


def test_average_pooling_and_open_clip_towers_are_covered(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tiny_clips: None
) -> None:
    """What relevance is lost is that of biases: without gamma the tokens' sum follows the logit's sign and size."""
    for name, pooling in (("timm/test_vit", "avg"), ("open_clip/tiny-token", None), ("open_clip/tiny-avg", None)):
        model, card = random_model(name, classes=3, pooling=pooling)
        images = normalise(
            torch.from_numpy(natural_pictures(1, card.architecture.image_size)),
            card.preprocessing.mean,
            card.preprocessing.std,
        )
        for text in ("attn-lrp", "transformer-attribution"):
            found = parse(text).explain(model, images, torch.tensor([1]), np.random.default_rng(0))
            assert found.isfinite().all(), (name, text)
            assert float(found.std()) > 0, (name, text)


def test_a_gated_feed_forward_is_refused(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    from timm.layers import SwiGLU

    model, card = random_model("timm/test_vit", classes=3)
    block: Any = model.backbone.module.blocks[0]
    block.mlp = SwiGLU(model.backbone.width, 2 * model.backbone.width)
    images = normalise(
        torch.from_numpy(natural_pictures(1, (160, 160))), card.preprocessing.mean, card.preprocessing.std
    )
    with pytest.raises(UnsupportedError, match="feed-forward layers of two steps, found a gated one"):
        parse("attn-lrp").explain(model, images, torch.tensor([0]), np.random.default_rng(0))
    assert not any(module._forward_hooks for module in model.modules())
