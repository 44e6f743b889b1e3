"""A Vision Transformer's parts under common names, whichever library its module comes from."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgex.errors import UnsupportedError
from edgex.models.backbones.architectures import Architecture, Pooling
from edgex.runtime.preprocessing import Preprocessing

NO_PLACES = torch.empty((1, 0), dtype=torch.int64)
"""The places of the patches where none is left."""
Prepare = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Queries [N, h, Tq, d], keys [N, h, T, d] and the places of the patches among them -> what scores are made of."""
Projections = tuple[Sequence[Tensor], Sequence[Tensor | None]]
"""The weights and the biases that make queries, keys and values, see `Block`."""
Bias = Callable[[Tensor | None], Tensor]
"""Places of the patches -> what is added to the scores, [1 or N, h, T, T]."""


class Block:
    """One pre-norm transformer block under common names; holds no parameters of its own.

    x -> x + gamma1 * project(attention(norm1(x))); then x -> x + feed_forward(x).

    Attributes (D: width of the tokens, h: heads, d: head_dim):
    module: the library's block. norm1: the norm before attention.
    projections: gives the weights of query, key and value and their biases, of each either one tensor for all three
        ([3 h d, D] and [3 h d]) or three ([h d, D] and [h d]); None for a bias that there is not.
    normalises_qk: whether `normalise_qk` changes queries and keys at all. biases_scores: whether there is `score_bias`.
    inner_norm: the norm [h d] between attention and output projection, if any.
    project: output projection, h d -> D. gamma1: gives the layer scale [D] of the attention, if any.
    feed_forward: what the second half adds, [N, T, D] -> [N, T, D].

    In some models attention depends on where patches are. All P of them are there, unless `at` says which are left.
    """

    def __init__(
        self,
        *,
        module: nn.Module,
        norm1: nn.Module,
        projections: Callable[[], Projections],
        prepare: Prepare | None = None,
        bias: Bias | None = None,
        inner_norm: nn.LayerNorm | None = None,
        project: nn.Linear,
        gamma1: Callable[[], Tensor | None],
        feed_forward: Callable[[Tensor], Tensor],
        heads: int,
        head_dim: int,
    ) -> None:
        self.module = module
        self.norm1 = norm1
        self.projections = projections
        self._prepare, self._bias = prepare, bias
        self.normalises_qk = prepare is not None
        self.biases_scores = bias is not None
        self.inner_norm = inner_norm
        self.project = project
        self.gamma1 = gamma1
        self.feed_forward = feed_forward
        self.heads, self.head_dim = heads, head_dim
        self._places: Tensor | None = None

    def packed_projection(self) -> tuple[Tensor, Tensor | None]:
        """Query, key and value weights side by side, [3 h d, D], and their bias [3 h d], if any."""
        return packed(*self.projections())

    def normalise_qk(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [N, h, Tq, d] and keys [N, h, T, d] as scores are made of them: normalised, rotated by their places.

        Tq is T, or the number of tokens at the beginning whose queries are asked for.
        """
        return (query, key) if self._prepare is None else self._prepare(query, key, self._places)

    def score_bias(self) -> Tensor | None:
        """What is added to the scores of queries and keys, [1 or N, h, T, T], if anything."""
        return None if self._bias is None else self._bias(self._places)

    def at(self, places: Tensor) -> Block:
        """The block for tokens of which only some patches are left. places: int64 [1 or N, K], their numbers."""
        block = copy.copy(self)
        block._places = places
        return block


def packed(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """The weights of `Projections` as one tensor, and the biases if there are any; a missing one of three is zeros."""
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    known = [bias for bias in biases if bias is not None]
    if len(known) == len(biases) == 1 or not known:
        return weight, known[0] if known else None
    return weight, torch.cat([torch.zeros_like(known[0]) if bias is None else bias for bias in biases])


class Linear(NamedTuple):
    """One part of an attention's projections: weight [h d, width] and bias [h d], if any."""

    weight: Tensor
    bias: Tensor | None


@dataclasses.dataclass(frozen=True)
class AttentionPool:
    """A learned query that attends over the last block's output, under common names; holds no parameters of its own.

    y = project(attention(latent, norm(tokens))); what is pooled is y + feed_forward(y).

    Attributes (D: width of the tokens, h: heads, d: head_dim, Dy: width of the pooled token):
    latent: gives what the query is made of, [1, 1, width]. norm: the pool's own norm of the tokens, [N, T, D].
    projections: gives the weights of query, key and value and their biases, see `linears`.
    norm_query, norm_key: norms of queries and keys [N, h, T, d], if any.
    project: output projection, h d -> Dy. feed_forward: what an MLP adds, [N, Dy] -> [N, Dy], or None.
    reads_prefix: whether class token and registers are attended to as well as the patch tokens.
    """

    latent: Callable[[], Tensor]
    norm: Callable[[Tensor], Tensor]
    projections: Callable[[], Projections]
    norm_query: nn.Module | None
    norm_key: nn.Module | None
    project: nn.Linear
    feed_forward: Callable[[Tensor], Tensor] | None
    reads_prefix: bool
    heads: int
    head_dim: int

    def linears(self, projections: Projections) -> tuple[Linear, Linear, Linear]:
        """Query, key and value of the pool's projections, or of copies of them.

        Weights and biases may each be one tensor for several of the three, below one another in this order.
        """
        weights, biases = projections
        size = self.heads * self.head_dim
        # By slices, which the exporter folds into constants.
        rows = [weight[at : at + size] for weight in weights for at in range(0, len(weight), size)]
        if any(bias is None for bias in biases):
            shifts: list[Tensor | None] = [None] * 3
        else:
            shifts = [bias[at : at + size] for bias in biases if bias is not None for at in range(0, len(bias), size)]
        query, key, value = map(Linear, rows, shifts)
        return query, key, value

    def query(self, linear: Linear) -> Tensor:
        """The query [1, h, 1, d] as it meets the keys."""
        query = self.heads_of(self.latent(), linear)
        return query if self.norm_query is None else self.norm_query(query)

    def keys(self, normed: Tensor, linear: Linear) -> Tensor:
        """Keys [N, h, T, d] of normed tokens [N, T, D]."""
        keys = self.heads_of(normed, linear)
        return keys if self.norm_key is None else self.norm_key(keys)

    def heads_of(self, tokens: Tensor, linear: Linear) -> Tensor:
        """Tokens [N, T, width] through one of the projections, [N, h, T, d]."""
        return F.linear(tokens, *linear).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a family shows of one of its modules; see `Backbone` for what each part is."""

    patch_projection: nn.Conv2d
    assemble: Callable[[Tensor], Tensor]
    blocks: list[Block]
    norm: nn.LayerNorm
    norm_after_pool: bool
    projection: Callable[[], Tensor | None]
    prefix_tokens: int
    width: int
    output_width: int
    preprocessing: Preprocessing
    attention_pool: AttentionPool | None = None
    projection_bias: Callable[[], Tensor | None] = lambda: None


Adapter = Callable[[nn.Module, Architecture], Parts]
"""A library's module -> its parts."""


@dataclasses.dataclass(frozen=True)
class Family:
    """The models of one library.

    name: first part of their architectures' names.
    poolings: those that `create` can build.
    describe: model name, options and pooling, if another than its own -> the library's own (height, width) in pixels,
        and the pooling; UsageError for an unknown model, UnsupportedError for what it cannot be built with.
    create: an uninitialised module; UnsupportedError, with the reason, for one that cannot be explained.
    adapt: a module that `create` made, or a copy of one -> its parts.
    """

    name: str
    poolings: tuple[Pooling, ...]
    describe: Callable[[str, Mapping[str, Any], Pooling | None], tuple[tuple[int, int], Pooling]]
    create: Callable[[Architecture], nn.Module]
    adapt: Adapter


class Backbone(nn.Module):
    """A ViT up to its final norm and projection, without a head.

    Attributes: module (the library's own, so tensor names stay the library's), architecture, preprocessing,
    patch_projection (nn.Conv2d), blocks, norm (see `final_layer_norm`), norm_after_pool (whether tokens are pooled
    before it), attention_pool (of attention pooling), prefix_tokens (class token and registers), grid (rows, columns),
    width D of the tokens, output_width D' of what the head reads.
    """

    patch_projection: nn.Conv2d
    norm: nn.LayerNorm

    def __init__(self, architecture: Architecture, module: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        parts = adapter(module, architecture)
        self.module = module
        self.architecture = architecture
        self.preprocessing = parts.preprocessing
        self.blocks = parts.blocks
        self.norm_after_pool = parts.norm_after_pool
        self.prefix_tokens = parts.prefix_tokens
        self.width = parts.width
        self.output_width = parts.output_width * len(architecture.pooling.split("+"))
        self.attention_pool = parts.attention_pool
        # Plain attributes: registering these modules again would double every tensor's name.
        self.__dict__["patch_projection"] = parts.patch_projection
        self.__dict__["norm"] = parts.norm
        self._assemble = parts.assemble
        self._projection = parts.projection
        self._projection_bias = parts.projection_bias
        self._adapter = adapter
        patch = parts.patch_projection.kernel_size
        self.grid = (architecture.image_size[0] // patch[0], architecture.image_size[1] // patch[1])

    @property
    def pooling(self) -> Pooling:
        """How tokens become what the head reads, see `edgex.models.backbones.architectures`."""
        return self.architecture.pooling

    @property
    def patches(self) -> int:
        """Number of patch tokens P."""
        return self.grid[0] * self.grid[1]

    @property
    def projection(self) -> Tensor | None:
        """Projection [D, D'] after the final norm (CLIP), or None."""
        return self._projection()

    def assemble(self, patches: Tensor) -> Tensor:
        """Patch embeddings [N, P, D] -> input of the first block [N, prefix + P, D], positions added."""
        return self._assemble(patches)

    def embed(self, image: Tensor) -> Tensor:
        """Normalised pictures float [N, 3, H, W] -> input of the first block [N, prefix + P, D]."""
        return self.assemble(self.patch_projection(image).flatten(2).transpose(1, 2))

    def blocks_at(self, places: Tensor | None) -> list[Block]:
        """The blocks for tokens of which only some patches are left, int64 [1 or N, K]; None: all of them are there."""
        return self.blocks if places is None else [block.at(places) for block in self.blocks]

    def prefix(self) -> Tensor:
        """Class token and registers alone, as they enter the first block: [1, prefix, D]."""
        nothing = self.patch_projection.weight.new_zeros(1, self.patches, self.width)
        return self.assemble(nothing)[:, : self.prefix_tokens]

    def project(self, features: Tensor) -> Tensor:
        """Normed features [..., D] -> what the head reads [..., D']."""
        bias = self._projection_bias()
        projected = self.project_share(features)
        return projected if bias is None else projected + bias

    def project_share(self, share: Tensor) -> Tensor:
        """A share of normed features [..., D] -> its share of what the head reads [..., D'], without the bias."""
        projection = self.projection
        return share if projection is None else share @ projection

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """A backbone of its own. The parts refer to the library's module, so those of the copy are taken anew."""
        copied = Backbone(self.architecture, copy.deepcopy(self.module, memo), self._adapter)
        copied.training = self.training
        copied.preprocessing = self.preprocessing
        memo[id(self)] = copied
        return copied

    def tensors(self) -> dict[str, Tensor]:
        """The backbone's tensors under the library's own names."""
        return dict(self.module.state_dict())


def final_layer_norm(norm: nn.Module, architecture: Architecture) -> nn.LayerNorm:
    """The final norm, for an adapter; UnsupportedError where it is no LayerNorm with weights.

    The mean of patch tokens may be read without one: it is then an Identity, which no evidence asks for its weights.
    """
    if isinstance(norm, nn.Identity) and architecture.pooling == "avg":
        return cast(nn.LayerNorm, norm)
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None:
        raise UnsupportedError(f"{architecture.name} ends in {type(norm).__name__}: edgex linearises a final LayerNorm")
    return norm
