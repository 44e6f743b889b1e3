"""Strategies: which one reads a model's evidence, and that a new file is all that a new one needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.errors import UnsupportedError, UsageError
from edgex.models import evidence
from edgex.models.backbones import Architecture
from edgex.models.evidence import Evidence, selection
from edgex.models.evidence.attention_pool import AttentionPooling
from edgex.models.evidence.attention_pool_readout import ReadoutOfAttentionPool
from edgex.models.evidence.class_attention import ClassAttention
from edgex.models.evidence.concatenated import ClassAndDistillationTokens, ClassAndPatchTokens
from edgex.models.evidence.concatenated_readout import (
    ReadoutOfClassAndDistillationTokens,
    ReadoutOfClassAndPatchTokens,
)
from edgex.models.evidence.patch_tokens import PatchTokens
from edgex.models.evidence.readout import ReadoutEvidence
from edgex.models.self_explaining import SelfExplainingViT

# What somebody would write who adds a strategy: the length of each patch token before the final norm.
ADDED = """
from edgex.models.attention import run
from edgex.models.evidence.class_token import ClassTokenEvidence


class TokenLength(ClassTokenEvidence):
    kind = "token-length"

    def run_block(self, index, block, tokens, normed, keep):
        tokens = run(block, tokens, normed)
        return tokens, tokens if keep else None

    def evidence_along(self, rows, tokens, kept):
        return kept[-1][:, self.backbone.prefix_tokens :].norm(dim=-1)
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A strategy whose file lies in the package's folder, as far as Python can tell."""
    (tmp_path / "token_length.py").write_text(ADDED, encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(evidence, "__path__", [*evidence.__path__, str(tmp_path)])
        selection.strategies.cache_clear()
        yield
    selection.strategies.cache_clear()


def test_every_strategy_is_found() -> None:
    concatenated: set[type] = {ClassAndDistillationTokens, ClassAndPatchTokens}
    concatenated |= {ReadoutOfClassAndDistillationTokens, ReadoutOfClassAndPatchTokens}
    single = {ClassAttention, ReadoutEvidence, PatchTokens, AttentionPooling, ReadoutOfAttentionPool}
    assert set(selection.strategies()) == single | concatenated


@pytest.mark.parametrize(
    ("pooling", "wanted", "strategy"),
    [
        ("token", Evidence("class-attention", 2, 1.0), ClassAttention),
        ("token", Evidence("class-attention", 2, 1.0, readout=True), ReadoutEvidence),
        ("avg", Evidence("patch-tokens", 0, 1.0), PatchTokens),
    ],
)
def test_evidence_names_its_strategy(
    random_model: Callable[..., Any], pooling: str, wanted: Evidence, strategy: type
) -> None:
    backbone = random_model("timm/test_vit", pooling=pooling)[0].backbone
    found = selection.strategy_of(backbone, wanted)
    assert type(found) is strategy
    assert found.blocks == wanted.blocks


@torch.no_grad()
def test_a_new_file_is_a_new_strategy(random_model: Callable[..., Any], added: None) -> None:
    plain = random_model("timm/test_vit")[0]
    model = SelfExplainingViT(plain.backbone, plain.head, Evidence("token-length", 1, 0.5))
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    out = model(images)
    assert torch.allclose(out.logits, plain(images).logits, atol=1e-5)
    tokens = model.run_blocks(model.backbone.embed(images), len(model.backbone.blocks))
    lengths = tokens[:, model.backbone.prefix_tokens :].norm(dim=-1)
    difference = out.heatmap.flatten(1) - 0.5 * lengths
    assert difference.std(dim=1).max() < 1e-4 < lengths.std(dim=1).min(), "the same correction on every patch"
    assert Evidence.default(plain.backbone).kind == "class-attention", "the default stays"


def test_without_its_file_a_strategy_is_unknown(random_model: Callable[..., Any]) -> None:
    backbone = random_model("timm/test_vit")[0].backbone
    with pytest.raises(UsageError, match="token pooling is explained by class-attention, not by token-length"):
        selection.strategy_of(backbone, Evidence("token-length", 1, 0.5))


def test_a_pooling_without_a_strategy_is_refused(
    random_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = random_model("timm/test_vit")[0].backbone
    monkeypatch.setattr(backbone, "architecture", Architecture("timm/test_vit", (160, 160), "map"))
    message = r"no evidence strategy explains timm/test_vit \(160x160 px, map pooling\)"
    with pytest.raises(UnsupportedError, match=message):
        Evidence.default(backbone)
    with pytest.raises(UnsupportedError, match=message):
        selection.strategy_of(backbone, Evidence("class-attention", 1, 1.0))
