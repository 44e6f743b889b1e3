"""The readout: attention weights of their own, with which a heatmap is read while class scores are made without them.

A vector that changes the weights which classes are made of changes how sure the classes are, for better on its source
and for worse elsewhere (built_in/RECORD.md). A readout is a copy of the last blocks' query, key, value and output
weights; a vector is added to the copy alone. The class token's attention and what each patch writes through it come
from the copy, everything else from the model: its class scores are the same at every alpha.

Nothing of the size of a block is computed twice. For one class per picture, query and class direction are folded
backwards through the copy: per head, scores are x_p . (W_k^T q) and contributions x_p . (W_v^T W_o^T d), where x_p is
the output of the block's first norm. All blocks go through one product where their weights allow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgex.errors import UnsupportedError
from edgex.models.backbones import Backbone, Block

_Names = tuple[str, str | None, str]
"""A block's packed query, key and value weights, their bias and the output projection."""


class _Copied(NamedTuple):
    """One block's attention weights: query, key and value [h d, D] with biases [h d], output [D, h d].

    The key's bias is missed by nobody: it adds the same to all scores and drops out of the softmax.
    """

    query: Tensor
    query_bias: Tensor | None
    key: Tensor
    value: Tensor
    value_bias: Tensor | None
    project: Tensor


class Along(NamedTuple):
    """M directions as a readout's values see them.

    vectors: of each block [M, D, h], which tokens are multiplied with. shift: what the values' bias adds, [M, L h].
    """

    vectors: tuple[Tensor, ...]
    shift: Tensor | None

    def of(self, chosen: Tensor) -> Along:
        """Some of them, by their numbers [N]."""
        vectors = tuple(vector.index_select(0, chosen) for vector in self.vectors)
        return Along(vectors, None if self.shift is None else self.shift.index_select(0, chosen))


def has_readout(backbone: Backbone) -> bool:
    """Whether a backbone's heatmap can be read with weights of its own."""
    return backbone.pooling == "token" and not any(block.normalises_qk for block in backbone.blocks)


class Readout(nn.Module):
    """Copies of a backbone's last `blocks` blocks' attention weights, under the library's own tensor names.

    Raises UnsupportedError where queries and keys are normalised, which cannot be folded.
    """

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__()
        chosen = backbone.blocks[-blocks:]
        if any(block.normalises_qk for block in chosen):
            raise UnsupportedError(
                f"{backbone.architecture.name} normalises its queries and keys and has no readout: learn weights"
            )
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

    def along(self, backbone: Backbone, directions: Tensor) -> Along:
        """What directions [M, D] before the final norm are to the copies' values."""
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
        return Along((per_head @ value).permute(0, 2, 3, 1).unbind(), shift)

    def folds_well(self, backbone: Backbone, classes: int) -> bool:
        """Whether `along` of all classes is at most twice as large as the weights that it is made of."""
        return classes <= 4 * _head_shape(backbone)[1]

    def evidence(self, backbone: Backbone, normed: Sequence[Tensor], along: Along) -> Tensor:
        """What each patch writes into the class token along a direction, [N, P].

        normed: output [N, T, D] of each block's first norm. along: of one direction per picture.
        """
        seen = self._attention(normed, self._copies(backbone), _head_shape(backbone))
        written = _projected(normed, along.vectors)
        if along.shift is not None:
            written = written + along.shift[:, None]
        return (seen * written).sum(dim=2)[:, backbone.prefix_tokens :]

    def written(self, backbone: Backbone, normed: Sequence[Tensor]) -> Tensor:
        """What each patch writes into the class token, [N, P, D], before the final norm: for learning.

        The whole of which `evidence` is one direction.
        """
        copies, prefix = self._copies(backbone), backbone.prefix_tokens
        seen = self._attention(normed, copies, _head_shape(backbone))[:, prefix:]
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
        for block, (weight, bias, project) in zip(backbone.blocks[-len(self.names) :], self.names, strict=True):
            query, key, value = _thirds(self.copies[_key(weight)])
            query_bias, _, value_bias = (None, None, None) if bias is None else _thirds(self.copies[_key(bias)])
            gamma = block.gamma1()
            outgoing = self.copies[_key(project)]
            # The block's layer scale is the model's own; written into the projection, it costs nothing.
            outgoing = outgoing if gamma is None else outgoing * gamma[:, None]
            copies.append(_Copied(query, query_bias, key, value, value_bias, outgoing))
        return copies

    @staticmethod
    def _attention(normed: Sequence[Tensor], copies: Sequence[_Copied], heads: tuple[int, int]) -> Tensor:
        """The class token's attention to all tokens, of all blocks' heads side by side: [N, T, L h]."""
        weight = torch.stack([copied.query.T for copied in copies])
        biases = [copied.query_bias for copied in copies if copied.query_bias is not None]
        key = torch.stack([copied.key.unflatten(0, heads) for copied in copies]) * heads[1] ** -0.5
        query = torch.cat([tokens[:, :1] for tokens in normed], dim=1).transpose(0, 1) @ weight
        query = query + torch.stack(biases)[:, None] if biases else query
        # [L, h, N, D] to one [N, D, h] for each block.
        columns = (query.unflatten(2, heads).transpose(1, 2) @ key).permute(0, 2, 3, 1)
        return _projected(normed, columns.unbind()).softmax(dim=1)


def _head_shape(backbone: Backbone) -> tuple[int, int]:
    """Number of heads and their size, which all blocks share."""
    block = backbone.blocks[-1]
    return block.heads, block.head_dim


def _projected(normed: Sequence[Tensor], vectors: Sequence[Tensor]) -> Tensor:
    """Each block's tokens [N, T, D] along its heads' vectors [N, D, h], side by side: [N, T, L h]."""
    return torch.cat([tokens @ part for tokens, part in zip(normed, vectors, strict=True)], dim=2)


def _thirds(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of packed weights; by slices, which the exporter folds into constants."""
    size = len(packed) // 3
    return packed[:size], packed[size : 2 * size], packed[2 * size :]


def _names(backbone: Backbone, block: Block) -> _Names:
    """Names of a block's attention weights among the backbone's tensors."""
    name_of = {id(parameter): name for name, parameter in backbone.module.named_parameters()}
    weight, bias = block.packed_projection()
    return name_of[id(weight)], None if bias is None else name_of[id(bias)], name_of[id(block.project.weight)]


def _key(name: str) -> str:
    """A module's parts cannot have dots in their names."""
    return name.replace(".", "/")
