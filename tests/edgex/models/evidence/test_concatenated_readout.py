"""Readouts of models whose head reads the class token beside the distillation token or the patches' mean."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from edgex.errors import UsageError
from edgex.models.evidence.selection import Evidence, Own, has_readout
from edgex.models.self_explaining import SelfExplainingViT
from edgex.training.vector_training import with_evidence

SMALL = {"depth": 3, "embed_dim": 64, "num_heads": 2, "patch_size": 16}
CASES = {
    "token+distillation": ("timm/deit_tiny_distilled_patch16_224", {}),
    "token+avg": ("timm/vit_small_patch14_reg4_dinov2", {"pooling": "token+avg"}),
    "token+avg of cosines": ("timm/vit_tiny_patch16_224", {"pooling": "token+avg", "head": "cosine"}),
}


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, random_model: Callable[..., Any]) -> SelfExplainingViT:
    name, given = CASES[request.param]
    return random_model(name, image_size=64, options=SMALL, **given)[0]


def pictures() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def with_readout(model: SelfExplainingViT, blocks: int, noise: float = 0.0) -> Any:
    """The model with a readout, moved away from the weights that it is a copy of."""
    assert has_readout(model.backbone)
    read: Any = with_evidence(model, blocks, readout=True)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in read.readout.tensors().values():
            tensor.add_(noise * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return read


@torch.no_grad()
def test_a_copy_reads_what_the_model_reads(model: SelfExplainingViT) -> None:
    images = pictures()
    plain, read = with_evidence(model, 2)(images), with_readout(model, 2)(images)
    assert torch.equal(plain.logits, read.logits)
    assert torch.allclose(plain.heatmap, read.heatmap, atol=1e-5 * float(plain.heatmap.abs().max()))


@torch.no_grad()
def test_changed_copies_read_as_a_model_of_these_weights_would(model: SelfExplainingViT) -> None:
    """The last block's evidence alone: what enters that block is the same in both models."""
    read = with_readout(model, 1, noise=0.5)
    changed = copy.deepcopy(with_evidence(model, 1))
    for name, tensor in read.readout.tensors().items():
        changed.backbone.tensors()[name].copy_(tensor)
    tokens = model.backbone.embed(pictures())
    found, own = read.strategy.encode(tokens, keep=True), changed.strategy.encode(tokens, keep=True)
    rows = torch.randn(3, model.backbone.output_width, generator=torch.Generator().manual_seed(1))
    expected = changed.strategy.evidence_along(rows, found.tokens, own.kept)
    evidence = read.strategy.evidence_along(rows, found.tokens, found.kept)
    assert torch.allclose(evidence, expected, atol=1e-5)
    unchanged = with_evidence(model, 1).strategy
    plain = unchanged.evidence_along(rows, found.tokens, unchanged.encode(tokens, keep=True).kept)
    assert (evidence - plain).abs().max() > 1e-2


@torch.no_grad()
def test_class_scores_stay_bit_for_bit_and_heatmaps_add_up(model: SelfExplainingViT) -> None:
    images, classes = pictures(), torch.tensor([0, 3, 4])
    read = with_readout(model, 2, noise=0.5).fold_classes()
    logits, heatmap, base = read(images, classes)
    assert torch.equal(logits, with_evidence(model, 2)(images).logits)
    score = logits.gather(1, classes[:, None])[:, 0] - logits.mean(dim=1)
    assert torch.allclose(heatmap.sum((1, 2)) + base, score, atol=1e-4)


@torch.no_grad()
def test_evidence_of_features_is_that_of_every_class(model: SelfExplainingViT) -> None:
    read = with_readout(model, 2, noise=0.5)
    tokens, classes = read.backbone.embed(pictures()), torch.tensor([[0, 1], [2, 3], [4, 0]])
    _, features, _ = read.feature_evidence(tokens)
    rows = read.head.explained_weight()[classes]
    encoded = read.strategy.encode(tokens, keep=True)
    assert torch.equal(read.strategy.feature_evidence(encoded.float(), read.head), features), "in float32 already"
    assert torch.allclose(rows @ features, read.evidence_of(tokens, classes)[1], atol=1e-4)


def test_an_own_part_beside_them_is_refused(model: SelfExplainingViT) -> None:
    evidence = Evidence(model.evidence.kind, 2, 1.0, readout=True, own=Own(1))
    with pytest.raises(UsageError, match="a readout which reads the class token alone"):
        SelfExplainingViT(model.backbone, model.head, evidence)
