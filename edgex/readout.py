"""The readout: attention weights of their own, with which a heatmap is read while class scores are made without them.

A vector that changes the weights which classes are made of changes how sure the classes are, for better on its source
and for worse elsewhere (built_in/RECORD.md). A readout is a copy of the last blocks' query, key, value and output
weights; a vector is added to the copy alone. The class token's attention and what each patch writes through it come
from the copy, everything else from the model: its class scores are the same at every alpha.

Nothing of the size of a block is computed twice. For one class per picture, query and class direction are folded
backwards through the copy: per head, scores are x_p . (W_k^T q) and contributions x_p . (W_v^T W_o^T d), where x_p is
the output of the block's first norm. The key's bias adds the same to all scores and drops out of the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from edgex.backbones import Backbone, Block
from edgex.errors import UnsupportedError


class _Copied(NamedTuple):
    """One block's attention weights: query, key, value packed [3 h d, D] with bias [3 h d], output [D, h d]."""

    weight: Tensor
    bias: Tensor | None
    project: Tensor


class Readout(nn.Module):
    """Copies of a backbone's last `blocks` blocks' attention weights, under the library's own tensor names.

    Raises UnsupportedError where queries and keys are normalised, which cannot be folded.
    """

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__()
        chosen = backbone.blocks[-blocks:]
        if any(block.normalises_qk for block in chosen):
            raise UnsupportedError(f"{backbone.architecture.name} normalises its queries and keys: it has no readout")
        self.names = [_names(backbone, block) for block in chosen]
        own = backbone.tensors()
        self.copies = nn.ParameterDict(
            {_key(name): nn.Parameter(own[name].detach().clone()) for names in self.names for name in names if name}
        )

    def tensors(self) -> dict[str, nn.Parameter]:
        """The copies by the names of what they are copies of."""
        return {name: self.copies[_key(name)] for names in self.names for name in names if name}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives all copies new values."""
        for name in self.tensors():
            self.copies[_key(name)] = nn.Parameter(tensors[name])

    def evidence(self, backbone: Backbone, normed: Sequence[Tensor], direction: Tensor) -> Tensor:
        """What each patch writes into the class token along a direction, [N, P].

        normed: output [N, T, D] of each block's first norm. direction: [N, D], before the final norm.
        """
        total: Tensor | None = None
        for block, names, tokens in zip(backbone.blocks[-len(normed) :], self.names, normed, strict=True):
            seen = self._attention(block, names, tokens)
            folded, shift = self._folded(block, names, direction)
            written = (tokens @ folded.mT).mT + shift
            contribution = (seen * written).sum(dim=1)
            total = contribution if total is None else total + contribution
        assert total is not None
        return total[:, backbone.prefix_tokens :]

    def written(self, backbone: Backbone, normed: Sequence[Tensor]) -> Tensor:
        """What each patch writes into the class token, [N, P, D], before the final norm: for learning.

        The whole of which `evidence` is one direction.
        """
        total: Tensor | None = None
        for block, names, tokens in zip(backbone.blocks[-len(normed) :], self.names, normed, strict=True):
            copied = self._copied(names)
            size = block.heads * block.head_dim
            seen = self._attention(block, names, tokens)[:, :, backbone.prefix_tokens :]
            bias = None if copied.bias is None else copied.bias[2 * size :]
            values = F.linear(tokens[:, backbone.prefix_tokens :], copied.weight[2 * size :], bias)
            carried = (values.unflatten(2, (block.heads, block.head_dim)) * seen.mT[..., None]).flatten(2)
            contribution = F.linear(carried, copied.project)
            gamma = block.gamma1()
            contribution = contribution if gamma is None else contribution * gamma
            total = contribution if total is None else total + contribution
        assert total is not None
        return total

    def _copied(self, names: _Names) -> _Copied:
        weight, bias, project = names
        return _Copied(self.copies[_key(weight)], self.copies[_key(bias)] if bias else None, self.copies[_key(project)])

    def _attention(self, block: Block, names: _Names, tokens: Tensor) -> Tensor:
        """The class token's attention to all tokens, [N, h, T]."""
        copied = self._copied(names)
        size = block.heads * block.head_dim
        query = F.linear(tokens[:, 0], copied.weight[:size], None if copied.bias is None else copied.bias[:size])
        folded = _through_heads(query * block.head_dim**-0.5, copied.weight[size : 2 * size], block)
        return (tokens @ folded.mT).mT.softmax(dim=-1)

    def _folded(self, block: Block, names: _Names, direction: Tensor) -> tuple[Tensor, Tensor | float]:
        """The direction seen from the tokens, [N, h, D], and what the value's bias adds, [N, h, 1]."""
        copied = self._copied(names)
        size = block.heads * block.head_dim
        gamma = block.gamma1()
        scaled = direction if gamma is None else direction * gamma
        per_head = scaled @ copied.project
        folded = _through_heads(per_head, copied.weight[2 * size :], block)
        if copied.bias is None:
            return folded, 0.0
        shift = (per_head * copied.bias[2 * size :]).unflatten(1, (block.heads, block.head_dim)).sum(dim=2)
        return folded, shift[..., None]


_Names = tuple[str, str | None, str]
"""A block's packed projection, its bias and its output projection."""


def _through_heads(vectors: Tensor, weight: Tensor, block: Block) -> Tensor:
    """Rows [N, h d] seen from the inputs of a projection [h d, D], head by head: [N, h, D]."""
    heads = vectors.unflatten(1, (block.heads, block.head_dim)).transpose(0, 1)
    return (heads @ weight.unflatten(0, (block.heads, block.head_dim))).transpose(0, 1)


def _names(backbone: Backbone, block: Block) -> _Names:
    """Names of a block's attention weights among the backbone's tensors."""
    name_of = {id(parameter): name for name, parameter in backbone.module.named_parameters()}
    weight, bias = block.packed_projection()
    return name_of[id(weight)], None if bias is None else name_of[id(bias)], name_of[id(block.project.weight)]


def _key(name: str) -> str:
    """A module's parts cannot have dots in their names."""
    return name.replace(".", "/")
