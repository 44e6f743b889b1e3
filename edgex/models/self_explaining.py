"""The self-explaining forward: one pass gives class scores and a heatmap that adds up to the score.

What each patch adds to a class score is `edgex.models.evidence`'s, one strategy a pooling; what makes a heatmap of it
lies here. One block's forward is in `edgex.models.attention`, class weights in `edgex.models.head`, files in
`edgex.files.model_file`, device graphs in `edgex.export`.

Definitions (c is the explained class, p a patch, logits centred over classes where the head has a softmax, see
`edgex.models.activations`):

    evidence e[p]    what patch p adds directly to logit c
    heatmap phi[p] = scale * e[p] + correction,  sum_p phi[p] + base_c == logit_c

base_c is the same logit with nothing visible but the class token. This is local accuracy of additive feature
attributions (Lundberg and Lee, 2017, arXiv 1705.07874, section 3) in one forward pass. Where `Evidence.correction` says
"base", the correction stands there instead: phi[p] = scale * e[p], and base_c is what is left of the logit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgex.errors import UsageError
from edgex.models.attention import run
from edgex.models.backbones import Backbone
from edgex.models.evidence import Evidence
from edgex.models.evidence.selection import strategy_of
from edgex.models.head import Head


class Explained(NamedTuple):
    """Output of one forward pass: logits [N, C], heatmap [N, gh, gw], base [N], all in logit units."""

    logits: Tensor
    heatmap: Tensor
    base: Tensor


class SelfExplainingViT(nn.Module):
    """A ViT classifier whose forward pass returns class scores and the heatmap of one class per picture.

    Attributes: backbone, head, evidence; strategy, which reads the evidence; readout, the strategy's own weights or
    None. Raises UsageError where the head does not fit the backbone or the evidence does not fit its pooling.
    """

    _empty: Tensor | None

    def __init__(self, backbone: Backbone, head: Head, evidence: Evidence) -> None:
        super().__init__()
        if head.weight.shape[1] != backbone.output_width:
            raise UsageError(
                f"the head reads {head.weight.shape[1]} features, {backbone.architecture.name} gives "
                f"{backbone.output_width}"
            )
        self.backbone = backbone
        self.head = head
        self.evidence = evidence
        self.strategy = strategy_of(backbone, evidence)
        self.readout = self.strategy.weights
        self.register_buffer("_empty", None, persistent=False)

    def forward(self, image: Tensor, explain_class: Tensor | None = None) -> Explained:
        """One pass over normalised pictures.

        image: float [N, 3, H, W], normalised by the preprocessing's mean and std.
        explain_class: int64 [N], the class to explain; -1 or None means the predicted one. Any other number than a
            class's gives that picture a heatmap and a base of NaN; its logits are as they would be.
        """
        return self.explain(self.backbone.embed(image), explain_class)

    def explain(self, tokens: Tensor, explain_class: Tensor | None = None) -> Explained:
        """Like `forward`, from the first block's input [N, prefix + P, D]; all P patches are present."""
        encoded = self.strategy.encode(tokens, keep=True)
        logits = self.head(encoded.features)
        wanted = explained = logits.argmax(dim=-1)
        if explain_class is not None:
            wanted = torch.where(explain_class == -1, explained, explain_class)
            explained = wanted.clamp(0, logits.shape[-1] - 1)
        evidence = self.evidence.scale * self.strategy.evidence(encoded, self.head, explained)
        score = self.head.score(logits, explained[:, None]).squeeze(1)
        if self.evidence.correction == "base":
            base = score - evidence.sum(dim=-1)
            if explain_class is not None:
                known = wanted == explained
                base = torch.where(known, base, math.nan)
                evidence = torch.where(known[:, None], evidence, math.nan)
            return Explained(logits, evidence.unflatten(1, self.backbone.grid), base)
        base = self.empty_logits().index_select(0, explained)
        if explain_class is not None:
            # A class that there is not has no base, and with it no heatmap: the correction takes the NaN on.
            base = torch.where(wanted == explained, base, math.nan)
        correction = (score - base - evidence.sum(dim=-1)) / self.backbone.patches
        heatmap = evidence + correction[:, None]
        return Explained(logits, heatmap.unflatten(1, self.backbone.grid), base)

    def logits(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """Class scores [N, C] from the first block's input.

        places: int64 [1 or N, K], the patches whose K tokens are left, where some were dropped.
        """
        return self.head(self.strategy.encode(tokens, keep=False, places=places).features)

    def evidence_of(self, tokens: Tensor, classes: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Logits [N, C] and unscaled evidence [N, K, P] of K classes [N, K], from the input of block `start`.

        Raises UsageError where `start` lies behind the first block that the evidence is made of.
        """
        self._check_start(start)
        encoded = self.strategy.encode(tokens, keep=True, start=start)
        logits = self.head(encoded.features)
        evidence = [self.strategy.evidence(encoded, self.head, column) for column in classes.unbind(dim=1)]
        return logits, torch.stack(evidence, dim=1)

    def feature_evidence(self, tokens: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """What a readout's evidence of all classes is learned from, from the input of block `start`.

        Returns what the class weights are multiplied with [N, D'], the unscaled evidence of each of the features that
        the head reads [N, D', P], and what the class weights are multiplied with for an empty picture [D'].
        Raises UsageError for a model without a readout, and as `evidence_of` does for `start`.
        """
        self._check_start(start)
        encoded = self.strategy.encode(tokens, keep=True, start=start)
        evidence = self.strategy.feature_evidence(encoded, self.head)
        empty = self.head.scaled(self.strategy.empty_features())[0]
        return self.head.scaled(encoded.features), evidence, empty

    def features(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """What class weights are multiplied with, [N, D'], from the first block's input. places: as in `logits`."""
        return self.head.scaled(self.strategy.encode(tokens, keep=False, places=places).features)

    def logits_from(self, tokens: Tensor, start: int) -> Tensor:
        """Class scores [N, C] from the input of block `start`."""
        return self.head(self.strategy.encode(tokens, keep=False, start=start).features)

    def run_blocks(self, tokens: Tensor, stop: int) -> Tensor:
        """The first `stop` blocks only: [N, T, D] -> [N, T, D]."""
        for block in self.backbone.blocks[:stop]:
            tokens = run(block, tokens, block.norm1(tokens))
        return tokens

    def empty_logits(self) -> Tensor:
        """Explained scores [C] with no patch visible: of the class token alone, or of a pooled zero vector.

        A constant of the weights; `freeze` keeps it so that inference does not compute it again.
        """
        if self._empty is not None:
            return self._empty
        return self.head.explained(self.head(self.strategy.empty_features()))[0]

    def train(self, mode: bool = True) -> SelfExplainingViT:
        """As for any module; training forgets what `freeze` and `fold_classes` computed."""
        if mode:
            self._forget()
        return super().train(mode)

    def freeze(self) -> SelfExplainingViT:
        """Switches to inference: eval mode, no gradients, the empty-picture scores computed once."""
        self.eval().requires_grad_(False)
        self._forget()
        with torch.inference_mode(False), torch.no_grad():
            self._empty = self.empty_logits()
        return self

    def inference_copy(self, device: torch.device | str | None = None) -> SelfExplainingViT:
        """A frozen network for measuring and exporting; this one is left exactly as it is.

        The copy has this network's weights, not copies of them, unless `device` is another than theirs: a later change
        of the weights in place changes both. Mode, requires_grad, dtype, device and whatever `freeze` and
        `fold_classes` compute are the copy's own, so it may be folded, moved and converted freely.
        """
        shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in self.parameters()}
        shared |= {id(buffer): buffer for buffer in self.buffers()}
        copied = copy.deepcopy(self, shared)
        return (copied if device is None else copied.to(device)).freeze()

    def fold_classes(self) -> SelfExplainingViT:
        """For devices: folds all class weights through a readout once, where classes are few enough for it to pay."""
        self.strategy.fold_classes(self.head)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SelfExplainingViT:
        """As for any module: `to` and its like convert what `fold_classes` computed, too."""
        super()._apply(fn, recurse)
        self.strategy.convert(fn)
        return self

    def _forget(self) -> None:
        self._empty = None
        self.strategy.forget()

    def _check_start(self, start: int) -> None:
        if start > len(self.backbone.blocks) - self.strategy.blocks:
            raise UsageError(f"evidence of the last {self.strategy.blocks} blocks cannot start at block {start}")


def normalise(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, H, W, 3] RGB -> normalised float32 [N, 3, H, W]."""
    shift = torch.tensor(mean, device=image.device) * 255
    factor = torch.tensor(std, device=image.device) * 255
    return ((image.float() - shift) / factor).permute(0, 3, 1, 2)
