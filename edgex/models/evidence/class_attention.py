"""Class attention: what each patch writes into the class token through the model's own attention."""

from __future__ import annotations

import torch
from torch import Tensor

from edgex.models.attention import Attended, run, run_attended
from edgex.models.backbones import Backbone, Block
from edgex.models.evidence.class_token import ClassTokenEvidence


class ClassAttention(ClassTokenEvidence[Attended]):
    """Evidence by the class token's attention in the last `blocks` blocks.

        e[p, c] = sum over blocks l and heads k of  a[l, k, p] * (W_o[l, k] v[l, k, p]) . d_c

    a: the class token's attention to patch p, softmax of scaled dot products [N, h, 1, T]. v: the patch's value,
    [N, h, T, d]. W_o: the head's part of the output projection, with the block's layer scale. d_c: the centred weights
    of class c folded backwards through projection and final norm, [N, D]. This is an exact share of the logit: the
    class token is the sum of what all tokens wrote into it and of what its own MLPs added. Direct effects only; what a
    patch changes by way of later blocks is not counted.

    Sources: attention weighted by the transformed values, Kobayashi et al., 2020, arXiv 2004.10102; the class score as
    a sum of direct contributions of layers, heads and tokens, Gandelsman et al., 2023, arXiv 2310.05916.
    """

    @classmethod
    def default_blocks(cls, backbone: Backbone) -> int:
        """The last four blocks, measured to be best before any vector; all of them in a shallower model."""
        return min(4, len(backbone.blocks))

    def run_block(
        self, index: int, block: Block, tokens: Tensor, normed: Tensor, keep: bool
    ) -> tuple[Tensor, Attended | None]:
        """Keeps the class token's attention and all values."""
        if not keep and not self.is_last(index):
            return run(block, tokens, normed), None
        tokens, attended = run_attended(block, tokens, normed, only_rows=self.is_last(index))
        return tokens, attended if keep else None

    def written(self, kept: list[Attended]) -> Tensor:
        """What each patch writes into the class token, [N, P, D], before the final norm: for learning."""
        written = [attended.written() for attended in kept]
        return sum(written[1:], start=written[0])[:, self.backbone.prefix_tokens :]

    def evidence_along(self, rows: Tensor, tokens: Tensor, kept: list[Attended]) -> Tensor:
        """See the class. The direction is folded into each block's output projection, so that no [N, P, D] is made."""
        direction = self.directions(rows) * self.norm_slope(tokens)
        written = [attended.values @ attended.folded(direction)[..., None] for attended in kept]
        # All blocks' heads side by side, and the prefix cut off once at the end: fewer and smaller steps than block
        # by block, which is most of what a heatmap costs.
        seen = torch.cat([attended.attention for attended in kept], dim=1).squeeze(2)
        return (seen * torch.cat(written, dim=1).squeeze(3)).sum(dim=1)[:, self.backbone.prefix_tokens :]
