"""The self-explaining forward: one pass gives class scores and a heatmap that adds up to the score.

Everything that turns tokens into logits and evidence lives here, once, for both families and both poolings; one block's
forward, in `edgex.models.attention`; weights that only heatmaps are read with, in `edgex.models.readout`; files, in
`edgex.files.model_file`; device graphs, in `edgex.export`.

Definitions (c is the explained class, p a patch, logits centred over classes):

    evidence e[p]   what patch p adds directly to logit c
    heatmap phi[p] = scale * e[p] + correction,  sum_p phi[p] + base_c == logit_c

base_c is the same logit with nothing visible but the class token. This is local accuracy of additive feature
attributions (Lundberg and Lee, 2017, arXiv 1705.07874, section 3) in one forward pass.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgex.errors import UsageError
from edgex.models.attention import Attended, run, run_attended
from edgex.models.backbones import Backbone
from edgex.models.readout import Along, Readout

HeadKind = Literal["linear", "cosine"]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Which forward-only quantity becomes the heatmap.

    kind: "class-attention" (class-token pooling: what each patch writes into the class token through the
    attention of the last `blocks` blocks) or "patch-tokens" (average pooling: each patch's own share).
    scale: factor on the evidence before the additive correction; stored with the vector that learned it.
    readout: whether those blocks are read with attention weights of their own, see `edgex.models.readout`.
    """

    kind: Literal["class-attention", "patch-tokens"]
    blocks: int
    scale: float
    readout: bool = False

    def __str__(self) -> str:
        blocks = f" of the last {self.blocks} blocks" if self.blocks else ""
        return f"{self.kind}{blocks}{' with a readout' if self.readout else ''}, scale {self.scale:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evidence:
        """Inverse of `to_dict`."""
        return cls(
            kind=data["kind"],
            blocks=int(data["blocks"]),
            scale=float(data["scale"]),
            # Files from before there were readouts do not mention them.
            readout=bool(data.get("readout", False)),
        )

    @classmethod
    def default(cls, backbone: Backbone) -> Evidence:
        """What was measured to be best before any vector: the last four blocks for class-token pooling."""
        if backbone.pooling == "avg":
            return cls("patch-tokens", 0, 1.0)
        return cls("class-attention", min(4, len(backbone.blocks)), 1.0)


class Head(nn.Module):
    """Class weights [C, D]: a linear head with bias, or cosine similarity to zero-shot text embeddings.

    kind "linear": logits = z @ weight.T + bias.
    kind "cosine": logits = scale * (z / |z|) @ weight.T, rows of weight have length 1 (CLIP).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, kind: HeadKind, scale: float = 1.0) -> None:
        super().__init__()
        self.kind: HeadKind = kind
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias) if bias is not None else None
        self.scale = scale

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self.weight.shape[0]

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features [N, D] -> logits [N, C]."""
        return F.linear(self.scaled(pooled), self.weight, self.bias)

    def scaled(self, pooled: Tensor) -> Tensor:
        """What the class weights are multiplied with, [N, D]: the features, or CLIP's of fixed length."""
        return self.scale * F.normalize(pooled, dim=-1) if self.kind == "cosine" else pooled

    def centred(self) -> Tensor:
        """Class weights less their mean over classes [C, D]: they give centred logits."""
        return self.weight - self.weight.mean(dim=0, keepdim=True)

    def slope(self, pooled: Tensor) -> Tensor:
        """Factor [N, 1] from pooled features to what the class weights are multiplied with; 1 of linear heads, [1, 1].

        CLIP's length is linearised at its actual value: it is taken as a constant of the picture.
        """
        return self.scale / pooled.norm(dim=-1, keepdim=True) if self.kind == "cosine" else pooled.new_ones(1, 1)


class Explained(NamedTuple):
    """Output of one forward pass: logits [N, C], heatmap [N, gh, gw], base [N], all in logit units."""

    logits: Tensor
    heatmap: Tensor
    base: Tensor


class _Encoded(NamedTuple):
    """Features that the head reads, what enters the final norm, and of the blocks that evidence is made of either
    what they attended or, for a readout, the outputs [N, T, D] of their first norms.
    """

    features: Tensor
    unnormalised: Tensor
    attended: list[Attended]
    normed: list[Tensor]


class SelfExplainingViT(nn.Module):
    """A ViT classifier whose forward pass returns class scores and the heatmap of one class per picture."""

    def __init__(self, backbone: Backbone, head: Head, evidence: Evidence) -> None:
        super().__init__()
        if head.weight.shape[1] != backbone.output_width:
            raise UsageError(
                f"the head reads {head.weight.shape[1]} features, {backbone.architecture.name} gives "
                f"{backbone.output_width}"
            )
        expected = "patch-tokens" if backbone.pooling == "avg" else "class-attention"
        if evidence.kind != expected:
            raise UsageError(f"{backbone.pooling} pooling is explained by {expected}, not by {evidence.kind}")
        if not int(backbone.pooling == "token") <= evidence.blocks <= len(backbone.blocks):
            raise UsageError(f"evidence of {evidence.blocks} blocks, but the model has {len(backbone.blocks)}")
        if evidence.readout and backbone.pooling == "avg":
            raise UsageError("a readout reads the class token's attention, which average pooling does not have")
        self.backbone = backbone
        self.head = head
        self.evidence = evidence
        self.readout = Readout(backbone, evidence.blocks) if evidence.readout else None
        self.register_buffer("_empty", None, persistent=False)
        self._folded: Along | None = None

    _empty: Tensor | None

    def forward(self, image: Tensor, explain_class: Tensor | None = None) -> Explained:
        """One pass over normalised pictures.

        image: float [N, 3, H, W], normalised by the preprocessing's mean and std.
        explain_class: int64 [N], the class to explain; -1 or None means the predicted one.
        """
        return self.explain(self.backbone.embed(image), explain_class)

    def explain(self, tokens: Tensor, explain_class: Tensor | None = None) -> Explained:
        """Like `forward`, from the first block's input [N, prefix + P, D]; all P patches are present."""
        encoded = self._encode(tokens, keep_attention=True)
        logits = self.head(encoded.features)
        explained = logits.argmax(dim=-1)
        if explain_class is not None:
            explained = torch.where(explain_class < 0, explained, explain_class)
        evidence = self.evidence.scale * self._evidence(encoded, explained)
        centred = logits.gather(1, explained[:, None]).squeeze(1) - logits.mean(dim=-1)
        base = self.empty_logits().index_select(0, explained)
        correction = (centred - base - evidence.sum(dim=-1)) / self.backbone.patches
        heatmap = evidence + correction[:, None]
        return Explained(logits, heatmap.unflatten(1, self.backbone.grid), base)

    def logits(self, tokens: Tensor) -> Tensor:
        """Class scores [N, C] from the first block's input; patch tokens may have been dropped."""
        return self.logits_from(tokens, 0)

    def evidence_of(self, tokens: Tensor, classes: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Logits [N, C] and unscaled evidence [N, K, P] of K classes [N, K], from the input of block `start`.

        Raises UsageError where `start` lies behind the first block that the evidence is made of.
        """
        self._check_start(start)
        encoded = self._encode(tokens, keep_attention=True, start=start)
        logits = self.head(encoded.features)
        evidence = [self._evidence(encoded, column) for column in classes.unbind(dim=1)]
        return logits, torch.stack(evidence, dim=1)

    def feature_evidence(self, tokens: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """What the head reads [N, D], unscaled evidence [N, D, P] of each of its features, and what it reads of an
        empty picture [D]: a readout's evidence of all classes at once, which is learned from.
        """
        if self.readout is None:
            raise UsageError("expected a model with a readout")
        self._check_start(start)
        backbone = self.backbone
        encoded = self._encode(tokens, keep_attention=True, start=start)
        written = self.readout.written(backbone, encoded.normed)
        seen = (written - written.mean(dim=-1, keepdim=True)) * backbone.norm.weight * self._slope(encoded)[:, None]
        evidence = self._project(seen)
        empty = self.head.scaled(self._empty_features())[0]
        return self.head.scaled(encoded.features), evidence.mT, empty

    def features(self, tokens: Tensor) -> Tensor:
        """What the head reads [N, D] from the first block's input; patch tokens may have been dropped."""
        return self.head.scaled(self._encode(tokens, keep_attention=False).features)

    def logits_from(self, tokens: Tensor, start: int) -> Tensor:
        """Class scores [N, C] from the input of block `start`."""
        return self.head(self._encode(tokens, keep_attention=False, start=start).features)

    def run_blocks(self, tokens: Tensor, stop: int) -> Tensor:
        """The first `stop` blocks only: [N, T, D] -> [N, T, D]."""
        for block in self.backbone.blocks[:stop]:
            tokens = run(block, tokens, block.norm1(tokens))
        return tokens

    def empty_logits(self) -> Tensor:
        """Centred logits [C] with no patch visible: of the class token alone, or of a pooled zero vector.

        A constant of the weights; `freeze` keeps it so that inference does not compute it again.
        """
        if self._empty is not None:
            return self._empty
        logits = self.head(self._empty_features())[0]
        return logits - logits.mean()

    def _empty_features(self) -> Tensor:
        """Features [1, D] with no patch visible."""
        backbone = self.backbone
        if backbone.pooling == "avg":
            pooled = self.head.weight.new_zeros(1, backbone.width)
            return self._project(backbone.norm(pooled) if backbone.norm_after_pool else pooled)
        nothing = backbone.patch_projection.weight.new_zeros(1, backbone.patches, backbone.width)
        prefix = backbone.assemble(nothing)[:, : backbone.prefix_tokens]
        return self._encode(prefix, keep_attention=False).features

    def train(self, mode: bool = True) -> SelfExplainingViT:
        """As for any module; training forgets what `freeze` and `fold_classes` computed."""
        if mode:
            self._empty = self._folded = None
        return super().train(mode)

    def freeze(self) -> SelfExplainingViT:
        """Switches to inference: eval mode, no gradients, the empty-picture scores computed once."""
        self.eval().requires_grad_(False)
        self._empty = self._folded = None
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
        """For devices: computes once what every class is to a readout, where there are so few that it pays."""
        if self.readout is not None and self.readout.folds_well(self.backbone, self.head.classes):
            with torch.no_grad():
                self._folded = self.readout.along(self.backbone, self._directions(self.head.centred()))
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SelfExplainingViT:
        """As for any module, `to` and its like: what `fold_classes` computed goes along."""
        super()._apply(fn, recurse)
        if self._folded is not None:
            shift = self._folded.shift
            self._folded = Along(tuple(map(fn, self._folded.vectors)), None if shift is None else fn(shift))
        return self

    def _check_start(self, start: int) -> None:
        if start > len(self.backbone.blocks) - self.evidence.blocks:
            raise UsageError(f"evidence of the last {self.evidence.blocks} blocks cannot start at block {start}")

    def _project(self, features: Tensor) -> Tensor:
        projection = self.backbone.projection
        return features if projection is None else features @ projection

    def _encode(self, tokens: Tensor, *, keep_attention: bool, start: int = 0) -> _Encoded:
        backbone = self.backbone
        blocks = backbone.blocks
        attended: list[Attended] = []
        kept_normed: list[Tensor] = []
        token_pooling = backbone.pooling == "token"
        first_kept = len(blocks) - self.evidence.blocks if keep_attention and token_pooling else len(blocks)
        for index in range(start, len(blocks)):
            # Class-token pooling reads nothing but the class token from the last block, so only the class
            # token goes through its query, output projection and MLP: the same result for less work.
            only_class_token = token_pooling and index == len(blocks) - 1
            normed = blocks[index].norm1(tokens)
            if index >= first_kept and self.readout is not None:
                kept_normed.append(normed)
            if only_class_token or (index >= first_kept and self.readout is None):
                tokens, kept = run_attended(blocks[index], tokens, normed, only_class_token)
                if index >= first_kept and self.readout is None:
                    attended.append(kept)
            else:
                tokens = run(blocks[index], tokens, normed)
        if token_pooling:
            unnormalised = tokens[:, 0]
            return _Encoded(self._project(backbone.norm(unnormalised)), unnormalised, attended, kept_normed)
        patches = tokens[:, backbone.prefix_tokens :]
        if backbone.norm_after_pool:
            return _Encoded(self._project(backbone.norm(patches.mean(dim=1))), patches, attended, kept_normed)
        patches = backbone.norm(patches)
        return _Encoded(self._project(patches.mean(dim=1)), patches, attended, kept_normed)

    def _directions(self, rows: Tensor) -> Tensor:
        """Class weights [N, D'] folded backwards through projection and final norm, but for `_slope`: [N, D]."""
        backbone = self.backbone
        if backbone.projection is not None:
            rows = rows @ backbone.projection.T
        if backbone.pooling == "avg" and not backbone.norm_after_pool:
            return rows
        # LN(x) = (x - mean(x)) / sigma * w + b; with sigma held at its value the map is linear and symmetric up to w.
        weighted = rows * backbone.norm.weight
        return weighted - weighted.mean(dim=-1, keepdim=True)

    def _slope(self, encoded: _Encoded) -> Tensor:
        """Factor [N, 1] of each picture on `_directions`: the head's, over the final norm's sigma."""
        slope, at = self.head.slope(encoded.features), encoded.unnormalised
        if self.backbone.pooling == "avg":
            if not self.backbone.norm_after_pool:
                return slope
            at = at.mean(dim=1)
        centred = at - at.mean(dim=-1, keepdim=True)
        return slope / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + self.backbone.norm.eps)

    def _evidence(self, encoded: _Encoded, explained: Tensor) -> Tensor:
        """Unscaled evidence [N, P]: the class direction folded backwards, so that no [N, P, C] is made."""
        backbone = self.backbone
        if self._folded is not None and self.readout is not None:
            evidence = self.readout.evidence(backbone, encoded.normed, self._folded.of(explained))
            return evidence * self._slope(encoded)
        direction = self._directions(F.embedding(explained, self.head.centred())) * self._slope(encoded)
        if backbone.pooling == "avg":
            patches = encoded.unnormalised
            return (patches @ direction[:, :, None])[:, :, 0] / patches.shape[1]
        if self.readout is not None:
            return self.readout.evidence(backbone, encoded.normed, self.readout.along(backbone, direction))
        written = []
        for block, _, values in encoded.attended:
            gamma = block.gamma1()
            scaled = direction if gamma is None else direction * gamma
            per_head = (scaled @ block.project.weight).unflatten(1, (block.heads, block.head_dim, 1))
            written.append(values @ per_head)
        # All blocks' heads side by side, and the prefix cut off once at the end: fewer and smaller steps than block
        # by block, which is most of what a heatmap costs.
        seen = torch.cat([attended.attention for attended in encoded.attended], dim=1).squeeze(2)
        return (seen * torch.cat(written, dim=1).squeeze(3)).sum(dim=1)[:, backbone.prefix_tokens :]


def normalise(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, H, W, 3] RGB -> normalised float32 [N, 3, H, W]."""
    shift = torch.tensor(mean, device=image.device) * 255
    factor = torch.tensor(std, device=image.device) * 255
    return ((image.float() - shift) / factor).permute(0, 3, 1, 2)
