"""What an evidence strategy is asked for, and what all of them share: the run over the blocks, the final norm."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UsageError
from edgex.models.attention import run
from edgex.models.backbones import Backbone, Block, Pooling
from edgex.models.evidence.weights import EvidenceWeights
from edgex.models.head import Head

Kept = TypeVar("Kept")
Pooled = TypeVar("Pooled")


class Encoded(NamedTuple, Generic[Kept, Pooled]):
    """One run over the blocks.

    features: what the head reads, [N, D']. tokens: what they are pooled from, such as the class token [N, D] before the
    final norm or the patch tokens [N, P, D]. kept: what the strategy kept of each block that its evidence is made of.
    """

    features: Tensor
    tokens: Pooled
    kept: list[Kept]

    def float(self) -> Encoded[Kept, Pooled]:
        """With features and tokens in float32; what was kept of the blocks stays as it is."""
        return self._replace(features=self.features.float(), tokens=_float(self.tokens))


class EvidenceStrategy(abc.ABC, Generic[Kept, Pooled]):
    """One way of reading evidence e[p, c], what patch p adds directly to the explained score of class c.

    Shapes: N pictures, P patches, T = prefix + P tokens, D width of the tokens, D' width of what the head reads, C
    classes. Evidence is never built for all classes at once: the explained class's weights are folded backwards to a
    direction [N, D] among the tokens, which everything that a patch writes is multiplied with.

    Class attributes: kind, its name in files; poolings, which it explains; has_readout, whether `Evidence.readout` asks
    for it; fewest_blocks, which its evidence can be made of.
    Attributes: backbone; blocks, how many of the last blocks its evidence is made of; weights, those of its own, which
    the network registers as `readout`; factors, what the parts of evidence of several parts are multiplied with, by
    name: numbers, or tensors while they are learned.
    """

    kind: ClassVar[str]
    poolings: ClassVar[tuple[Pooling, ...]]
    has_readout: ClassVar[bool] = False
    fewest_blocks: ClassVar[int] = 0
    weights: EvidenceWeights | None = None

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        self.backbone = backbone
        self.blocks = blocks
        self.factors: dict[str, float | Tensor] = {}

    @classmethod
    def default_blocks(cls, backbone: Backbone) -> int | None:  # noqa: ARG003
        """The number of blocks where this strategy is what its pooling is explained by before any vector, or None."""
        return None

    def run_block(
        self,
        index: int,  # noqa: ARG002
        block: Block,
        tokens: Tensor,
        normed: Tensor,
        keep: bool,  # noqa: ARG002
    ) -> tuple[Tensor, Kept | None]:
        """One block over [N, T, D], and what is kept of it where `keep` asks for it: nothing, unless a strategy does.

        index: its number. normed: the output [N, T, D] of its first norm.
        """
        return run(block, tokens, normed), None

    @abc.abstractmethod
    def pool(self, tokens: Tensor) -> tuple[Tensor, Pooled]:
        """The last block's output -> (what the head reads [N, D'], what it is pooled from); see `Encoded`."""

    @abc.abstractmethod
    def empty_features(self) -> Tensor:
        """What the head reads where no patch is visible, [1, D']."""

    @abc.abstractmethod
    def evidence_along(self, rows: Tensor, tokens: Pooled, kept: list[Kept]) -> Tensor:
        """Unscaled evidence [N, P] for the product of the features with `rows` [N, D'], one row per picture.

        tokens, kept: of `Encoded`.
        """

    @abc.abstractmethod
    def read(self, tokens: Tensor, pooled: Pooled) -> Tensor:
        """How much the head reads of each of the last block's tokens [N, T, D]: weights [N, 1, T] that add up to 1.

        pooled: what `pool` gives beside the features.
        """

    @property
    def pools_before_norm(self) -> bool:
        """Whether the final norm is applied to the pooled token, and not to each token before they are pooled."""
        return True

    def evidence(self, encoded: Encoded[Kept, Pooled], head: Head, explained: Tensor) -> Tensor:
        """Unscaled evidence [N, P] of one class per picture. explained: int64 [N]."""
        rows = F.embedding(explained, head.explained_weight()) * head.slope(encoded.features)
        return self.evidence_along(rows, encoded.tokens, encoded.kept)

    def encode(
        self, tokens: Tensor, *, keep: bool, start: int = 0, places: Tensor | None = None
    ) -> Encoded[Kept, Pooled]:
        """Runs the blocks from the input [N, T, D] of block `start`, and pools.

        keep: whether evidence will be asked for. Without it patch tokens may have been dropped.
        places: int64 [1 or N, K], the patches whose K tokens are left, where some were dropped.
        """
        blocks = self.backbone.blocks_at(places)
        first_kept = len(blocks) - self.blocks if keep else len(blocks)
        kept = []
        for index in range(start, len(blocks)):
            normed = blocks[index].norm1(tokens)
            tokens, found = self.run_block(index, blocks[index], tokens, normed, index >= first_kept)
            if found is not None:
                kept.append(found)
        features, pooled_from = self.pool(tokens)
        return Encoded(features, pooled_from, kept)

    def feature_evidence(self, encoded: Encoded[Kept, Pooled], head: Head) -> Tensor:  # noqa: ARG002
        """Unscaled evidence [N, D', P] of each feature that the head reads: of all classes at once, for learning.

        Raises UsageError where the strategy has no readout.
        """
        raise UsageError(f"expected a model with a readout, found evidence by {self.kind} without one")

    def fold_classes(self, head: Head) -> None:
        """Computes once what depends on weights alone, where it pays; `forget` undoes it."""

    def forget(self) -> None:
        """Drops what `fold_classes` computed: the weights are about to change."""

    def convert(self, function: Callable[[Tensor], Tensor]) -> None:
        """Applies a conversion of device or type to what `fold_classes` computed."""

    def of_features(self, written: Tensor, at: Tensor, encoded: Encoded[Kept, Pooled], head: Head) -> Tensor:
        """What is written into the pooled token, [N, P, D], as evidence [N, D', P] of each feature that the head reads.

        at: the token [N, D] that the final norm is given. The norm, and the length of a cosine head's features, are
        held at their actual values.
        """
        if self.pools_before_norm:
            centred = written - written.mean(dim=-1, keepdim=True)
            written = centred * self.backbone.norm.weight
        slope = self.norm_slope(at) * head.slope(encoded.features)
        return self.backbone.project_share(written * slope[:, None]).mT

    def directions(self, rows: Tensor) -> Tensor:
        """Class weights [M, D'] folded backwards through projection and final norm, but for `norm_slope`: [M, D].

        LN(x) = (x - mean(x)) / sigma * w + b (Ba et al., 2016, arXiv 1607.06450, section 3). With sigma held at its
        actual value the map is linear; its transpose multiplies by w / sigma and subtracts the mean.
        """
        projection = self.backbone.projection
        rows = rows if projection is None else rows @ projection.T
        if not self.pools_before_norm:
            return rows
        weighted = rows * self.backbone.norm.weight
        return weighted - weighted.mean(dim=-1, keepdim=True)

    def norm_slope(self, at: Tensor) -> Tensor | float:
        """Factor [N, 1] of each picture on `directions`: one over the final norm's sigma at its input [N, D]."""
        if not self.pools_before_norm:
            return 1.0
        centred = at - at.mean(dim=-1, keepdim=True)
        return torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + self.backbone.norm.eps)


def _float(pooled: Any) -> Any:
    """A tensor, a tuple or a named tuple of tensors, in float32."""
    if isinstance(pooled, Tensor):
        return pooled.float()
    parts = map(Tensor.float, pooled)
    return pooled._make(parts) if hasattr(pooled, "_make") else tuple(parts)
