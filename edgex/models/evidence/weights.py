"""Weights that a strategy reads evidence with: copies of a backbone's attention weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from edgex.models.backbones import AttentionPool, Backbone, Block

_Names = tuple[list[str], list[str | None], str]
"""Query, key and value weights, their biases (see `Block.projections`) and the output projection."""


class EvidenceWeights(nn.Module):
    """Copies of the query, key, value and output weights of some of a backbone's attentions.

    They go by the names of the backbone's tensors that they are copies of. names: of each attention its own.
    """

    def __init__(self, backbone: Backbone, attentions: Sequence[Block | AttentionPool]) -> None:
        super().__init__()
        name_of = {id(parameter): name for name, parameter in backbone.module.named_parameters()}
        self.names = [_names(attention, name_of) for attention in attentions]
        own = backbone.tensors()
        self.copies = nn.ParameterDict(
            {_key(name): nn.Parameter(own[name].detach().clone()) for names in self.names for name in _all(names)}
        )

    def tensors(self) -> dict[str, nn.Parameter]:
        """The copies by the names of what they are copies of."""
        return {name: self.copies[_key(name)] for names in self.names for name in _all(names)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives all copies new values."""
        for name in self.tensors():
            self.copies[_key(name)] = nn.Parameter(tensors[name])

    def of(self, attention: int) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
        """The copies for one of the attentions, by its number: `Projections`, and the output projection's weight."""
        weights, biases, project = self.names[attention]
        return (
            [self.copies[_key(name)] for name in weights],
            [None if name is None else self.copies[_key(name)] for name in biases],
            self.copies[_key(project)],
        )


def _names(attention: Block | AttentionPool, name_of: Mapping[int, str]) -> _Names:
    weights, biases = attention.projections()
    return (
        [name_of[id(weight)] for weight in weights],
        [None if bias is None else name_of[id(bias)] for bias in biases],
        name_of[id(attention.project.weight)],
    )


def _all(names: _Names) -> list[str]:
    weights, biases, project = names
    return [*weights, *(bias for bias in biases if bias is not None), project]


def _key(name: str) -> str:
    """A tensor's name as the name of a module's part, which cannot have dots."""
    return name.replace(".", "/")
