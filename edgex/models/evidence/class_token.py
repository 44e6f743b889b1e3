"""What strategies of class-token pooling share: which token the head reads, and what it sees of an empty picture."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from edgex.models.backbones import NO_PLACES, Backbone, Pooling
from edgex.models.evidence.base import EvidenceStrategy, Kept


class ClassTokenEvidence(EvidenceStrategy[Kept, Tensor]):
    """Evidence is what each patch writes into the class token, in the last `blocks` blocks.

    Class-token pooling reads nothing but the class token from the last block, so strategies run only the class token
    through that block's query, output projection and MLP: the same result for less work.

    token: which of the first tokens is read, where a model has several (`edgex.models.evidence.concatenated`).
    """

    kind: ClassVar[str] = "class-attention"
    poolings: ClassVar[tuple[Pooling, ...]] = ("token",)
    fewest_blocks: ClassVar[int] = 1

    def __init__(self, backbone: Backbone, blocks: int, token: int = 0) -> None:
        super().__init__(backbone, blocks)
        self.token = token

    def is_last(self, index: int) -> bool:
        """Whether a block is the last one, of which only the class token is read."""
        return index == len(self.backbone.blocks) - 1

    def pool(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The class token, normed and projected, and before the norm."""
        class_token = tokens[:, self.token]
        return self.backbone.project(self.backbone.norm(class_token)), class_token

    def read(self, tokens: Tensor, pooled: Tensor) -> Tensor:  # noqa: ARG002
        """The class token alone."""
        weights = tokens.new_zeros(len(tokens), 1, tokens.shape[1])
        weights[..., self.token] = 1
        return weights

    def empty_features(self) -> Tensor:
        """Features [1, D'] of class token and registers alone, all patch tokens dropped."""
        return self.encode(self.backbone.prefix(), keep=False, places=NO_PLACES).features
