"""What strategies of class-token pooling share: which token the head reads, and what it sees of an empty picture."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from edgex.models.backbones import Backbone, Pooling
from edgex.models.evidence.base import EvidenceStrategy, Kept


class ClassTokenEvidence(EvidenceStrategy[Kept]):
    """Evidence is what each patch writes into the class token, in the last `blocks` blocks.

    Class-token pooling reads nothing but the class token from the last block, so strategies run only the class token
    through that block's query, output projection and MLP: the same result for less work.
    """

    kind: ClassVar[str] = "class-attention"
    pooling: ClassVar[Pooling] = "token"
    fewest_blocks: ClassVar[int] = 1

    def is_last(self, index: int) -> bool:
        """Whether a block is the last one, of which only the class token is read."""
        return index == len(self.backbone.blocks) - 1

    def pool(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The class token, normed and projected, and before the norm."""
        class_token = tokens[:, 0]
        return self.backbone.project(self.backbone.norm(class_token)), class_token

    def empty_features(self) -> Tensor:
        """Features [1, D'] of class token and registers alone, all patch tokens dropped."""
        backbone: Backbone = self.backbone
        nothing = backbone.patch_projection.weight.new_zeros(1, backbone.patches, backbone.width)
        prefix = backbone.assemble(nothing)[:, : backbone.prefix_tokens]
        return self.encode(prefix, keep=False).features
