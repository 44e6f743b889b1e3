"""Evidence of models whose head reads several poolings side by side: the sum of what each of them is explained by."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from edgex.models.attention import Attended, run, run_attended
from edgex.models.backbones import NO_PLACES, Backbone, Block, Pooling
from edgex.models.evidence.base import EvidenceStrategy, Kept
from edgex.models.evidence.class_attention import ClassAttention
from edgex.models.evidence.patch_tokens import PatchTokens

Sources = tuple[Tensor, ...]
"""What each part is pooled from."""


class ConcatenatedEvidence(EvidenceStrategy[Kept, Sources]):
    """Evidence of features z = [z_1, ..., z_K] that are pooled in K ways from one run over the blocks.

        e[p, c] = sum over parts i of  e_i[p, c_i]

    c_i: the class's weights on the features of part i. e_i: the evidence of that part's own strategy. A logit is the
    sum of what the parts add to it, so the evidence is an exact share of it as each part's is.

    Class attribute: class_tokens R, how many of the first tokens are features as they are, one for each of the first R
    parts. Attribute: parts, the strategies.
    """

    fewest_blocks: ClassVar[int] = ClassAttention.fewest_blocks
    class_tokens: ClassVar[int]
    parts: list[EvidenceStrategy[Any, Tensor]]

    @abc.abstractmethod
    def kept_of(self, part: int, kept: list[Kept]) -> list[Kept]:
        """What a part's strategy is given of what was kept of each block."""

    def reads_rows_alone(self, index: int) -> bool:
        """Whether of a block nothing is read but the first R tokens."""
        return len(self.parts) == self.class_tokens and index == len(self.backbone.blocks) - 1

    def pool(self, tokens: Tensor) -> tuple[Tensor, Sources]:
        """The features of all parts side by side, and what each is pooled from."""
        pooled = [part.pool(tokens) for part in self.parts]
        return torch.cat([features for features, _ in pooled], dim=-1), tuple(source for _, source in pooled)

    def read(self, tokens: Tensor, pooled: Sources) -> Tensor:
        """What the parts read, each with the same weight."""
        parts = [part.read(tokens, source) for part, source in zip(self.parts, pooled, strict=True)]
        return torch.stack(parts).mean(dim=0)

    def empty_features(self) -> Tensor:
        """Those of the first R tokens alone, all patch tokens dropped, and the other parts' own."""
        tokens = self.backbone.prefix()
        for block in self.backbone.blocks_at(NO_PLACES):
            tokens = run(block, tokens, block.norm1(tokens))
        read = [part.pool(tokens)[0] for part in self.parts[: self.class_tokens]]
        return torch.cat([*read, *(part.empty_features() for part in self.parts[self.class_tokens :])], dim=-1)

    def evidence_along(self, rows: Tensor, tokens: Sources, kept: list[Kept]) -> Tensor:
        """See the class."""
        shares = rows.chunk(len(self.parts), dim=-1)
        each = enumerate(zip(self.parts, shares, tokens, strict=True))
        found = [
            part.evidence_along(share, source, self.kept_of(number, kept)) for number, (part, share, source) in each
        ]
        return sum(found[1:], start=found[0])


class ClassAndDistillationTokens(ConcatenatedEvidence[Attended]):
    """Evidence of class token and distillation token, each by its own row of attention.

    The head's weights on each are half of those that were trained for it, because a distilled model's logits are the
    mean of two heads'. Source: DeiT, Touvron et al., 2020, arXiv 2012.12877, section 4.
    """

    kind: ClassVar[str] = ClassAttention.kind
    poolings: ClassVar[tuple[Pooling, ...]] = ("token+distillation",)
    class_tokens: ClassVar[int] = 2

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__(backbone, blocks)
        self.parts = [ClassAttention(backbone, blocks, token) for token in range(self.class_tokens)]

    @classmethod
    def default_blocks(cls, backbone: Backbone) -> int:
        """As many as for class attention alone."""
        return ClassAttention.default_blocks(backbone)

    def run_block(
        self, index: int, block: Block, tokens: Tensor, normed: Tensor, keep: bool
    ) -> tuple[Tensor, Attended | None]:
        """Keeps the attention of the first R tokens and all values."""
        only_rows = self.reads_rows_alone(index)
        if not keep and not only_rows:
            return run(block, tokens, normed), None
        tokens, attended = run_attended(block, tokens, normed, rows=slice(0, self.class_tokens), only_rows=only_rows)
        return tokens, attended if keep else None

    def kept_of(self, part: int, kept: list[Attended]) -> list[Attended]:
        """The part's own row of attention."""
        return [attended._replace(attention=attended.attention[:, :, part : part + 1]) for attended in kept]


class ClassAndPatchTokens(ClassAndDistillationTokens):
    """Evidence of the class token beside the mean of the patch tokens.

    Source: DINOv2's linear probes, Oquab et al., 2023, arXiv 2304.07193, appendix B.3.
    """

    kind: ClassVar[str] = f"{ClassAttention.kind}+{PatchTokens.kind}"
    poolings: ClassVar[tuple[Pooling, ...]] = ("token+avg",)
    class_tokens: ClassVar[int] = 1

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__(backbone, blocks)
        self.parts.append(PatchTokens(backbone, 0))
