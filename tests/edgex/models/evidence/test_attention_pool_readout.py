"""Readouts of attention pooling: copies of the pool's weights that heatmaps are read with."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgex.errors import UsageError
from edgex.files.model_file import load_model, save_model
from edgex.models.evidence.selection import Evidence, Own, has_readout
from edgex.models.self_explaining import SelfExplainingViT
from edgex.training.vector_training import with_evidence

pytestmark = pytest.mark.usefixtures("tiny_clips")

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2, "patch_size": 16}
SIGLIP = "timm/vit_base_patch16_siglip_224"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SigLIP": (SIGLIP, {"image_size": 64, "options": SMALL}),
    "SigLIP with a class token that the pool leaves out": (
        SIGLIP,
        {"image_size": 64, "options": {**SMALL, "class_token": True}},
    ),
    "a register that the pool reads": ("timm/test_vit3", {"image_size": 64}),
    "a cosine head": (SIGLIP, {"image_size": 64, "options": SMALL, "head": "cosine"}),
    "rotary positions": (
        "timm/vit_pe_core_tiny_patch16_384",
        {"image_size": 64, "options": {"depth": 2, "embed_dim": 64, "num_heads": 2}},
    ),
    "CoCa": ("open_clip/tiny-coca", {}),
    "SigLIP of open_clip": ("open_clip/tiny-map", {}),
    "normed queries and keys": (SIGLIP, {"image_size": 64, "options": SMALL}),
    "keys of another width": ("open_clip/tiny-coca", {}),
}
"""The last two are changed below: no model by name has them."""


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tiny_clips: None, random_model: Callable[..., Any]) -> SelfExplainingViT:
    name, given = CASES[request.param]
    made = random_model(name, **given)[0]
    module = made.backbone.module
    torch.manual_seed(3)
    if request.param == "normed queries and keys":
        module.attn_pool.q_norm, module.attn_pool.k_norm = nn.LayerNorm(32), nn.LayerNorm(32)
        for norm in (module.attn_pool.q_norm, module.attn_pool.k_norm):
            nn.init.normal_(norm.weight, 1.0, 0.3)
            nn.init.normal_(norm.bias, 0.0, 0.3)
        # The parts of a copy are taken anew.
        return copy.deepcopy(made).freeze()
    if request.param == "keys of another width":
        # As CoCa has it where the pooled token is wider than the tokens: three weights in place of one.
        old = module.attn_pool.attn
        new = nn.MultiheadAttention(old.embed_dim, old.num_heads, kdim=64, vdim=64, batch_first=old.batch_first)
        new.out_proj.load_state_dict(old.out_proj.state_dict())
        module.attn_pool.attn, module.attn_pool.ln_k = new, nn.Sequential(module.attn_pool.ln_k, nn.Linear(128, 64))
        return copy.deepcopy(made).freeze()
    return made


def pictures(model: SelfExplainingViT) -> Tensor:
    size = model.backbone.architecture.image_size
    return torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))


def with_readout(model: SelfExplainingViT, noise: float = 0.0) -> Any:
    """The model with a readout, moved away from the weights that it is a copy of."""
    assert has_readout(model.backbone)
    read: Any = with_evidence(model, 4, readout=True)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in read.readout.tensors().values():
            tensor.add_(noise * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return read


@torch.no_grad()
def test_a_copy_reads_what_the_pool_reads(model: SelfExplainingViT) -> None:
    images = pictures(model)
    plain, read = model(images), with_readout(model)(images)
    assert torch.equal(plain.logits, read.logits)
    assert torch.allclose(plain.heatmap, read.heatmap, atol=1e-5 * float(plain.heatmap.abs().max()))
    assert plain.heatmap.flatten(1).std(dim=1).min() > 1e-4


def test_the_copies_are_the_attention_of_the_pool(model: SelfExplainingViT) -> None:
    own = {name for name in model.backbone.tensors() if "attn_pool" in name}
    copies = set(with_readout(model).readout.tensors())
    assert copies < own
    left_out = {name.rsplit("attn_pool.")[-1].split(".")[0] for name in own - copies}
    assert left_out <= {"latent", "query", "mlp", "norm", "ln_q", "ln_k", "proj", "attn", "q_norm", "k_norm"}
    biases = {name for name in own - copies if name.split("attn_pool.")[-1].startswith(("proj", "attn"))}
    assert all(name.endswith("proj.bias") for name in biases), "the output's bias belongs to no patch"


@torch.no_grad()
def test_changed_copies_read_as_a_pool_of_these_weights_would(model: SelfExplainingViT) -> None:
    read = with_readout(model, noise=0.5)
    changed = copy.deepcopy(model)
    for name, tensor in read.readout.tensors().items():
        changed.backbone.tensors()[name].copy_(tensor)
    tokens = model.backbone.embed(pictures(model))
    found, other = (one.strategy.encode(tokens, keep=True) for one in (read, changed))
    rows = torch.randn(3, model.backbone.output_width, generator=torch.Generator().manual_seed(1))
    # CoCa's final norm is held at the token that the model itself pools.
    pooled: Any = other.tokens
    expected = changed.strategy.evidence_along(rows, pooled._replace(token=found.tokens.token), other.kept)
    evidence = read.strategy.evidence_along(rows, found.tokens, found.kept)
    assert torch.allclose(evidence, expected, atol=1e-5 * float(expected.abs().max()))
    plain = model.strategy.evidence_along(rows, found.tokens, found.kept)
    assert (evidence - plain).abs().max() > 0.1 * plain.abs().max()


@torch.no_grad()
def test_class_scores_stay_bit_for_bit_and_heatmaps_add_up(model: SelfExplainingViT) -> None:
    images, classes = pictures(model), torch.tensor([0, 3, 4])
    read = with_readout(model, noise=0.5).fold_classes()
    logits, heatmap, base = read(images, classes)
    assert torch.equal(logits, model(images).logits)
    assert torch.equal(base, model(images, classes).base), "an empty picture has the model's own score"
    score = logits.gather(1, classes[:, None])[:, 0] - logits.mean(dim=1)
    assert torch.allclose(heatmap.sum((1, 2)) + base, score, atol=1e-4)


@torch.no_grad()
def test_evidence_of_features_is_that_of_every_class(model: SelfExplainingViT) -> None:
    read = with_readout(model, noise=0.5)
    tokens, classes = read.backbone.embed(pictures(model)), torch.tensor([[0, 1], [2, 3], [4, 0]])
    _, features, _ = read.feature_evidence(tokens)
    rows = read.head.explained_weight()[classes]
    encoded = read.strategy.encode(tokens, keep=True)
    assert torch.equal(read.strategy.feature_evidence(encoded.float(), read.head), features), "in float32 already"
    expected = read.evidence_of(tokens, classes)[1]
    assert torch.allclose(rows @ features, expected, atol=1e-5 * float(expected.abs().max()))


def test_an_own_part_beside_it_is_refused(model: SelfExplainingViT) -> None:
    with pytest.raises(UsageError, match="a readout which reads the class token alone"):
        SelfExplainingViT(model.backbone, model.head, Evidence("attention-pool", 0, 1.0, readout=True, own=Own(1)))


@pytest.mark.parametrize("name", ["SigLIP", "CoCa"])
def test_a_file_keeps_it(random_model: Callable[..., Any], tmp_path: Path, name: str) -> None:
    model, card = random_model(CASES[name][0], **CASES[name][1])
    read = with_readout(model, noise=0.5)
    save_model(tmp_path / "m.safetensors", read, dataclasses.replace(card, evidence=read.evidence))
    again, stated = load_model(tmp_path / "m.safetensors")
    assert str(stated.evidence) == "attention-pool with a readout, scale 1"
    images = pictures(read)
    with torch.no_grad():
        for one, other in zip(read(images), again(images), strict=True):
            assert torch.equal(one, other)
