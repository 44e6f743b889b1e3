"""Softmax and sigmoid heads: which score a heatmap adds up to, and losses against torch's own distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Categorical, Independent, kl_divergence

from edgex.models.activations import ACTIVATIONS
from edgex.runtime import activations as on_the_device

SMALL = {"depth": 3, "embed_dim": 64, "num_heads": 2, "patch_size": 16}
CASES = [
    ("timm/test_vit", {}),
    ("timm/test_vit", {"pooling": "avg"}),
    ("timm/test_vit", {"head": "cosine"}),
    ("timm/vit_base_patch16_siglip_224", {"options": SMALL}),  # attention pooling
    ("timm/vit_tiny_patch16_224", {"options": SMALL, "pooling": "token+avg"}),
    ("timm/deit_tiny_distilled_patch16_224", {"options": SMALL}),  # two tokens
    ("timm/test_vit", {"classes": 1}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_multi_label_heatmap_adds_up_to_the_class_own_logit(
    name: str, options: dict[str, Any], random_model: Callable[..., Any]
) -> None:
    model, _ = random_model(name, activation="sigmoid", **options)
    side = model.backbone.architecture.image_size[0]
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    count = model.head.classes
    with torch.no_grad():
        found = model(image.expand(count, -1, -1, -1), torch.arange(count))
        nothing = model.head(model.strategy.empty_features())[0]
    own = found.logits.diagonal()
    assert own.abs().min() > 1e-3 and found.heatmap.flatten(1).std(dim=1).min() > 0
    torch.testing.assert_close(found.heatmap.sum(dim=(1, 2)) + found.base, own, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.base, nothing, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), CASES[:-1])
def test_evidence_less_its_mean_over_classes_is_that_of_a_softmax(
    name: str, options: dict[str, Any], random_model: Callable[..., Any]
) -> None:
    """Evidence is linear in the class weights, so centring it is explaining the centred logit."""
    (one, _), (several, _) = (random_model(name, activation=a, **options) for a in ("softmax", "sigmoid"))
    side = one.backbone.architecture.image_size[0]
    tokens = one.backbone.embed(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)))
    every = torch.arange(one.head.classes).expand(2, -1)
    with torch.no_grad():
        logits, centred = one.evidence_of(tokens, every)
        same, own = several.evidence_of(tokens, every)
    assert torch.equal(logits, same)
    torch.testing.assert_close(own - own.mean(dim=1, keepdim=True), centred, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(own, centred, atol=1e-2)


def test_the_predicted_class_is_the_most_probable_one(random_model: Callable[..., Any]) -> None:
    model, _ = random_model("timm/test_vit", activation="sigmoid")
    image = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted = model(image)
        named = model(image, predicted.logits.argmax(dim=1))
    torch.testing.assert_close(predicted.heatmap, named.heatmap)


def logits_of(seed: int) -> torch.Tensor:
    return 3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_divergence_is_that_of_the_distributions(name: str) -> None:
    now, start = logits_of(1), logits_of(2)
    of = {
        "softmax": lambda logits: Categorical(logits=logits),
        "sigmoid": lambda logits: Independent(Bernoulli(logits=logits), 1),
    }[name]
    found = ACTIVATIONS[name].divergence(now, start)
    torch.testing.assert_close(found, kl_divergence(of(start), of(now)), atol=1e-5, rtol=1e-4)
    assert ACTIVATIONS[name].divergence(now, now).abs().max() < 1e-5


def test_losses_are_torch_own() -> None:
    logits, true = logits_of(1), torch.tensor([0, 3, 5, 3])
    expected = F.cross_entropy(logits, true, label_smoothing=0.1)
    assert torch.equal(ACTIVATIONS["softmax"].loss(logits, true, 0.1), expected)
    several = (logits_of(2) > 0).float()
    plain = F.binary_cross_entropy(logits.sigmoid(), several)
    torch.testing.assert_close(ACTIVATIONS["sigmoid"].loss(logits, several), plain)
    softened = F.binary_cross_entropy(logits.sigmoid(), several * 0.9 + 0.05)
    torch.testing.assert_close(ACTIVATIONS["sigmoid"].loss(logits, several, 0.1), softened)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_workstation_and_device_agree(name: str) -> None:
    assert ACTIVATIONS.keys() == on_the_device.ACTIVATIONS.keys()
    logits, classes = logits_of(1), torch.tensor([[0], [1], [2], [5]])
    here, there = ACTIVATIONS[name], on_the_device.ACTIVATIONS[name]
    assert here.multi_label == there.multi_label
    assert np.allclose(here.probabilities(logits).numpy(), there.probabilities(logits.numpy()), atol=1e-7)
    explained = here.explained(logits)
    assert np.allclose(explained.numpy(), there.explained(logits.numpy()), atol=1e-6)
    torch.testing.assert_close(here.score(logits, classes), explained.gather(1, classes))
