"""The readout: copies of attention weights that heatmaps are read with and class scores are computed without.

A vector that changes the weights which produce class scores changes how confident the classes are, for better on its
source and for worse elsewhere (built_in/RECORD.md). A readout is a copy of the last blocks' query, key, value and
output weights; a vector is added to the copy alone. The class token's attention and what each patch writes through it
come from the copy, everything else from the model: its class scores are the same at every alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.models.attention import inner_sigma, outgoing_weight, run, run_attended
from edgex.models.backbones import Backbone, Block
from edgex.models.backbones.backbone import packed
from edgex.models.evidence.base import Encoded
from edgex.models.evidence.class_token import ClassTokenEvidence
from edgex.models.evidence.weights import EvidenceWeights
from edgex.models.head import Head


class _Copied(NamedTuple):
    """One block, and copies of its attention weights: query, key and value [h d, D], biases [h d], output [D, h d]."""

    block: Block
    query: Tensor
    query_bias: Tensor | None
    key: Tensor
    key_bias: Tensor | None
    value: Tensor
    value_bias: Tensor | None
    project: Tensor


class FoldedDirections(NamedTuple):
    """M directions folded backwards through a readout's output projections and values, of L blocks of h heads.

    vectors: of each block [M, D, h], which tokens are multiplied with. shift: what the values' bias adds, [M, L h].
    """

    vectors: tuple[Tensor, ...]
    shift: Tensor | None

    def of(self, chosen: Tensor) -> FoldedDirections:
        """N of them, by their numbers int64 [N]."""
        return self.converted(lambda tensor: tensor.index_select(0, chosen))

    def converted(self, function: Callable[[Tensor], Tensor]) -> FoldedDirections:
        """The same function applied to every tensor."""
        return FoldedDirections(
            tuple(map(function, self.vectors)), None if self.shift is None else function(self.shift)
        )


class Readout(EvidenceWeights):
    """Copies of the attention weights of a backbone's last `blocks` blocks, under the library's own tensor names."""

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__(backbone, backbone.blocks[-blocks:])

    def fold(self, backbone: Backbone, directions: Tensor) -> FoldedDirections:
        """Directions [M, D] among the tokens before the final norm, folded through the copies."""
        copies, heads = self._copies(backbone), _head_shape(backbone)
        # All blocks' weights side by side, so that one product serves them all: constants, once exported.
        project = torch.cat([copied.project for copied in copies], dim=1)
        value = torch.stack([copied.value.unflatten(0, heads) for copied in copies])
        per_head = (directions @ project).unflatten(1, value.shape[:3]).permute(1, 2, 0, 3)
        shifts = [
            (copied.project * copied.value_bias).unflatten(1, heads).sum(dim=2)
            for copied in copies
            if copied.value_bias is not None
        ]
        shift = directions @ torch.cat(shifts, dim=1) if shifts else None
        return FoldedDirections((per_head @ value).permute(0, 2, 3, 1).unbind(), shift)

    def folds_well(self, backbone: Backbone, classes: int) -> bool:
        """Whether the folded directions of all classes are at most twice as large as the weights they come from."""
        return classes <= 4 * _head_shape(backbone)[1]

    def evidence(
        self, backbone: Backbone, normed: Sequence[Tensor], folded: FoldedDirections, token: int = 0
    ) -> Tensor:
        """What each patch writes into the class token along a direction, [N, P].

        normed: output [N, T, D] of each block's first norm. folded: one direction per picture. token: the number of
        another token that is read in its place.
        """
        seen = _attention(normed, self._copies(backbone), _head_shape(backbone), token)
        written = _projected(normed, folded.vectors)
        if folded.shift is not None:
            written = written + folded.shift[:, None]
        return (seen * written).sum(dim=2)[:, backbone.prefix_tokens :]

    def written(self, backbone: Backbone, normed: Sequence[Tensor], token: int = 0) -> Tensor:
        """What each patch writes into the class token, [N, P, D], before the final norm: for learning.

        `evidence` is its product with one direction.
        """
        copies, prefix = self._copies(backbone), backbone.prefix_tokens
        seen = _attention(normed, copies, _head_shape(backbone), token)[:, prefix:]
        total: Tensor | None = None
        for tokens, copied, part in zip(normed, copies, seen.chunk(len(normed), dim=2), strict=True):
            values = F.linear(tokens[:, prefix:], copied.value, copied.value_bias)
            carried = (values.unflatten(2, (part.shape[2], -1)) * part[..., None]).flatten(2)
            contribution = F.linear(carried, copied.project)
            total = contribution if total is None else total + contribution
        assert total is not None
        return total

    def _copies(self, backbone: Backbone) -> list[_Copied]:
        copies = []
        for number, block in enumerate(backbone.blocks[-len(self.names) :]):
            weights, given, project = self.of(number)
            weight, bias = packed(weights, given)
            query, key, value = _thirds(weight)
            biases = (None, None, None) if bias is None else _thirds(bias)
            # The block's layer scale is the model's own; multiplied into the projection, it costs nothing.
            outgoing = outgoing_weight(block, project)
            copies.append(_Copied(block, query, biases[0], key, biases[1], value, biases[2], outgoing))
        return copies


class ReadoutEvidence(ClassTokenEvidence[Tensor]):
    """Class attention through copied weights: what each patch writes into the class token through a `Readout`.

        e[p, c] = sum over blocks l and heads k of  a'[l, k, p] * (W_o'[l, k] v'[l, k, p]) . d_c

    As in `edgex.models.evidence.class_attention`, with attention a' and values v' computed by the copies from the
    output x_p of the block's first norm in the model. Nothing of the size of a block is computed twice. For one class
    per picture, query and class direction are folded backwards through the copies: per head, scores are
    x_p . (W_k^T q) and contributions x_p . (W_v^T W_o^T d_c). All blocks go through one product where their weights
    allow it. Keys that the model normalises or rotates are no linear function of x_p and are computed.
    """

    has_readout: ClassVar[bool] = True
    weights: Readout

    def __init__(self, backbone: Backbone, blocks: int, token: int = 0, weights: Readout | None = None) -> None:
        super().__init__(backbone, blocks, token)
        self.weights = weights or Readout(backbone, blocks)
        self.folded: FoldedDirections | None = None

    def run_block(
        self, index: int, block: Block, tokens: Tensor, normed: Tensor, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Keeps the output of the block's first norm."""
        if self.is_last(index):
            tokens, _ = run_attended(block, tokens, normed, only_rows=True)
        else:
            tokens = run(block, tokens, normed)
        return tokens, normed if keep else None

    def evidence(self, encoded: Encoded[Tensor, Tensor], head: Head, explained: Tensor) -> Tensor:
        """See the class."""
        if self.folded is None:
            return super().evidence(encoded, head, explained)
        evidence = self.weights.evidence(self.backbone, encoded.kept, self.folded.of(explained), self.token)
        return evidence * self.norm_slope(encoded.tokens) * head.slope(encoded.features)

    def evidence_along(self, rows: Tensor, tokens: Tensor, kept: list[Tensor]) -> Tensor:
        """See the class."""
        direction = self.directions(rows) * self.norm_slope(tokens)
        return self.weights.evidence(self.backbone, kept, self.weights.fold(self.backbone, direction), self.token)

    def feature_evidence(self, encoded: Encoded[Tensor, Tensor], head: Head) -> Tensor:
        """Unscaled evidence [N, D', P] of each feature that the head reads."""
        written = self.weights.written(self.backbone, encoded.kept, self.token)
        return self.of_features(written, encoded.tokens, encoded, head)

    def fold_classes(self, head: Head) -> None:
        """Folds the directions of all classes, where there are so few that it pays."""
        if self.weights.folds_well(self.backbone, head.classes):
            with torch.no_grad():
                self.folded = self.weights.fold(self.backbone, self.directions(head.explained_weight()))

    def forget(self) -> None:
        """Drops the folded directions."""
        self.folded = None

    def convert(self, function: Callable[[Tensor], Tensor]) -> None:
        """Converts the folded directions."""
        self.folded = None if self.folded is None else self.folded.converted(function)


def _head_shape(backbone: Backbone) -> tuple[int, int]:
    """Number of heads and their size, which all blocks share."""
    block = backbone.blocks[-1]
    return block.heads, block.head_dim


def _attention(normed: Sequence[Tensor], copies: Sequence[_Copied], heads: tuple[int, int], token: int) -> Tensor:
    """The attention of the class token, or another one, to all tokens, of all blocks' heads side by side: [N, T, L h].

    In blocks with a norm between attention and output projection, over that norm's sigma.
    """
    if any(copied.block.normalises_qk for copied in copies):
        each = zip(normed, copies, strict=True)
        scores = torch.cat([_scores(tokens, copied, heads, token) for tokens, copied in each], dim=2)
    else:
        scores = _folded_scores(normed, copies, heads, token)
    biases = [bias for copied in copies if (bias := copied.block.score_bias()) is not None]
    if biases:
        scores = scores + torch.cat([bias[:, :, token].mT for bias in biases], dim=2)
    seen = scores.softmax(dim=1)
    if all(copied.block.inner_norm is None for copied in copies):
        return seen
    parts = zip(normed, copies, seen.chunk(len(copies), dim=2), strict=True)
    return torch.cat([part / _sigma(tokens, copied, part, heads)[:, None] for tokens, copied, part in parts], dim=2)


def _sigma(normed: Tensor, copied: _Copied, seen: Tensor, heads: tuple[int, int]) -> Tensor:
    """Sigma [N, 1] of a block's inner norm at what the class token mixes from the copy's values."""
    # The mean token of each head before its values: one product of the size of a token instead of all of them.
    mixed = (copied.value.unflatten(0, heads) @ (seen.mT @ normed)[..., None]).flatten(1)
    return inner_sigma(copied.block, mixed if copied.value_bias is None else mixed + copied.value_bias)


def _scores(normed: Tensor, copied: _Copied, heads: tuple[int, int], token: int) -> Tensor:
    """The read token's scores [N, T, h] in one block that normalises or rotates its queries and keys."""
    query = F.linear(normed[:, token : token + 1], copied.query, copied.query_bias).unflatten(2, heads).transpose(1, 2)
    key = F.linear(normed, copied.key, copied.key_bias).unflatten(2, heads).transpose(1, 2)
    query, key = copied.block.normalise_qk(query, key)
    return (key @ query.mT * heads[1] ** -0.5).squeeze(3).mT


def _folded_scores(normed: Sequence[Tensor], copies: Sequence[_Copied], heads: tuple[int, int], token: int) -> Tensor:
    """The read token's scores [N, T, L h], each query folded backwards through the keys' weights.

    The keys' bias is left out: it adds the same to all scores of a query and cancels in the softmax.
    """
    weight = torch.stack([copied.query.T for copied in copies])
    biases = [copied.query_bias for copied in copies if copied.query_bias is not None]
    key = torch.stack([copied.key.unflatten(0, heads) for copied in copies]) * heads[1] ** -0.5
    query = torch.cat([tokens[:, token : token + 1] for tokens in normed], dim=1).transpose(0, 1) @ weight
    query = query + torch.stack(biases)[:, None] if biases else query
    # [L, h, N, D] to one [N, D, h] for each block.
    columns = (query.unflatten(2, heads).transpose(1, 2) @ key).permute(0, 2, 3, 1)
    return _projected(normed, columns.unbind())


def _projected(normed: Sequence[Tensor], vectors: Sequence[Tensor]) -> Tensor:
    """Each block's tokens [N, T, D] along its heads' vectors [N, D, h], side by side: [N, T, L h]."""
    return torch.cat([tokens @ part for tokens, part in zip(normed, vectors, strict=True)], dim=2)


def _thirds(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of packed weights; by slices, which the exporter folds into constants."""
    size = len(packed) // 3
    return packed[:size], packed[size : 2 * size], packed[2 * size :]
