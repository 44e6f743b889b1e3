"""Readouts of models whose head reads the class token beside another token or the patches' mean."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgex.models.attention import run, run_attended
from edgex.models.backbones import Backbone, Block, Pooling
from edgex.models.evidence.base import Encoded
from edgex.models.evidence.concatenated import ConcatenatedEvidence, Sources
from edgex.models.evidence.patch_tokens import PatchTokens
from edgex.models.evidence.readout import Readout, ReadoutEvidence
from edgex.models.head import Head


class ReadoutOfClassAndDistillationTokens(ConcatenatedEvidence[Tensor]):
    """As `edgex.models.evidence.readout`, for each of the tokens that are read: the copies are those of both.

        e[p, c] = sum over tokens i of  e_i[p, c_i]

    e_i: what patch p writes into token i through the copied weights, along the class's weights c_i on its features.
    """

    kind: ClassVar[str] = ReadoutEvidence.kind
    poolings: ClassVar[tuple[Pooling, ...]] = ("token+distillation",)
    has_readout: ClassVar[bool] = True
    class_tokens: ClassVar[int] = 2
    weights: Readout

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__(backbone, blocks)
        self.weights = Readout(backbone, blocks)
        self.parts = [ReadoutEvidence(backbone, blocks, token, self.weights) for token in range(self.class_tokens)]

    def run_block(
        self, index: int, block: Block, tokens: Tensor, normed: Tensor, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Keeps the output of the block's first norm."""
        if self.reads_rows_alone(index):
            tokens, _ = run_attended(block, tokens, normed, rows=slice(0, self.class_tokens), only_rows=True)
        else:
            tokens = run(block, tokens, normed)
        return tokens, normed if keep else None

    def kept_of(self, part: int, kept: list[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """All of it."""
        return kept

    def feature_evidence(self, encoded: Encoded[Tensor, Sources], head: Head) -> Tensor:
        """Unscaled evidence [N, D', P] of each feature that the head reads."""
        found = [
            part.feature_evidence(Encoded(encoded.features, source, encoded.kept), head)
            for part, source in zip(self.parts, encoded.tokens, strict=True)
        ]
        return torch.cat(found, dim=1)


class ReadoutOfClassAndPatchTokens(ReadoutOfClassAndDistillationTokens):
    """As its parent, of the class token alone; what the patches' mean gives a class is the model's own."""

    kind: ClassVar[str] = f"{ReadoutEvidence.kind}+{PatchTokens.kind}"
    poolings: ClassVar[tuple[Pooling, ...]] = ("token+avg",)
    class_tokens: ClassVar[int] = 1

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__(backbone, blocks)
        self.parts = [*self.parts, PatchTokens(backbone, 0)]
