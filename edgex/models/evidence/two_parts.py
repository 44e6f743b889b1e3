"""Evidence of two parts: a readout's and the model's own.

A readout is learned to be faithful and loses the object in part; what the model's own attention writes into the class
token is less faithful and lies on the object (docs/benchmarks.md, "Evidence of two parts"). Their weighted sum has
both. Each part is a strategy of its own: `edgex.models.evidence.readout`, `edgex.models.evidence.class_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from edgex.models.attention import Attended
from edgex.models.backbones import Block
from edgex.models.evidence.base import Encoded
from edgex.models.evidence.class_attention import ClassAttention
from edgex.models.evidence.class_token import ClassTokenEvidence
from edgex.models.evidence.readout import Readout, ReadoutEvidence
from edgex.models.head import Head


class KeptOfBoth(NamedTuple):
    """What one block keeps for each part: its first norm's output for the readout, its attention for the model's own.

    None where the block is none of those that a part is made of.
    """

    normed: Tensor | None
    attended: Attended | None


class TwoParts(ClassTokenEvidence[KeptOfBoth]):
    """A readout's evidence and the model's own contributions, summed.

        e[p, c] = readout[p, c] + weight * ((1 - blur) * own[p, c] + blur * mean of own over p and its neighbours)

    Neighbours are the up to eight patches around p on the patch grid. `weight` and `blur` are constants of the file;
    the evidence's scale multiplies the sum. Learning changes those that are among `factors`.
    """

    weights: Readout

    def __init__(self, readout: ReadoutEvidence, own: ClassAttention, weight: float, blur: float) -> None:
        super().__init__(readout.backbone, max(readout.blocks, own.blocks))
        self.readout, self.own = readout, own
        self.weights = readout.weights
        self.given: dict[str, float | Tensor] = {"weight": weight, "blur": blur}
        self.factors = dict(self.given)

    def run_block(
        self, index: int, block: Block, tokens: Tensor, normed: Tensor, keep: bool
    ) -> tuple[Tensor, KeptOfBoth | None]:
        """Keeps what each part does of its own blocks."""
        following = len(self.backbone.blocks) - index
        tokens, attended = self.own.run_block(index, block, tokens, normed, keep and following <= self.own.blocks)
        if not keep:
            return tokens, None
        return tokens, KeptOfBoth(normed if following <= self.readout.blocks else None, attended)

    def evidence(self, encoded: Encoded[KeptOfBoth, Tensor], head: Head, explained: Tensor) -> Tensor:
        """See the class."""
        readout = self.readout.evidence(_of_readout(encoded), head, explained)
        own = self.own.evidence(Encoded(encoded.features, encoded.tokens, _attended(encoded.kept)), head, explained)
        return readout + self._weighted(own[:, None])[:, 0]

    def evidence_along(self, rows: Tensor, tokens: Tensor, kept: list[KeptOfBoth]) -> Tensor:
        """See the class."""
        own = self.own.evidence_along(rows, tokens, _attended(kept))
        return self.readout.evidence_along(rows, tokens, _normed(kept)) + self._weighted(own[:, None])[:, 0]

    def feature_evidence(self, encoded: Encoded[KeptOfBoth, Tensor], head: Head) -> Tensor:
        """Unscaled evidence [N, D', P] of each feature that the head reads."""
        own = self.of_features(self.own.written(_attended(encoded.kept)), encoded.tokens, encoded, head)
        return self.readout.feature_evidence(_of_readout(encoded), head) + self._weighted(own)

    def fold_classes(self, head: Head) -> None:
        """As the readout does."""
        self.readout.fold_classes(head)

    def forget(self) -> None:
        """As the readout does."""
        self.readout.forget()

    def convert(self, function: Callable[[Tensor], Tensor]) -> None:
        """As the readout does."""
        self.readout.convert(function)

    def _weighted(self, own: Tensor) -> Tensor:
        """The second summand of K maps [N, K, P]."""
        factors = self.given | self.factors
        weight, blur = factors["weight"], factors["blur"]
        if not isinstance(blur, Tensor) and blur == 0:
            return weight * own
        maps = own.unflatten(2, self.backbone.grid)
        blurred = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False).flatten(2)
        if not isinstance(blur, Tensor) and blur == 1:
            return weight * blurred
        return weight * (1 - blur) * own + weight * blur * blurred


def _of_readout(encoded: Encoded[KeptOfBoth, Tensor]) -> Encoded[Tensor, Tensor]:
    return Encoded(encoded.features, encoded.tokens, _normed(encoded.kept))


def _normed(kept: list[KeptOfBoth]) -> list[Tensor]:
    return [one.normed for one in kept if one.normed is not None]


def _attended(kept: list[KeptOfBoth]) -> list[Attended]:
    return [one.attended for one in kept if one.attended is not None]
