"""Calculating with explainability vectors: weighted sums, averages, block factors, trimming, TIES merging.

The first half works on deltas in memory; `combine` reads vector files, checks that they belong together and writes
the result as a vector of its own. What a vector is lies in `edgex.files.vector_file`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgex.errors import MismatchError, UsageError
from edgex.files.vector_file import STORAGE, LoadedVector, VectorCard, load_vector, restored, save_vector, stored_as
from edgex.models.backbones import Architecture, build
from edgex.models.evidence.selection import averaged
from edgex.utils import provenance

METHODS = ("sum", "average", "ties")
SCOPES = ("tensor", "vector")

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_BLOCK_ALPHA = re.compile(rf"(?P<first>\d+)(?:\.\.(?P<last>\d+))?=(?P<start>{_NUMBER})(?:\.\.(?P<end>{_NUMBER}))?")

Deltas = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class CombineOptions:
    """How vectors become one.

    method: "sum" (of weight times vector), "average" (the sum divided by the sum of the weights' magnitudes) or
    "ties". keep: share of each vector's entries that trimming keeps, largest magnitudes first; None keeps all.
    scope: whether that share is counted in each "tensor" or in the whole "vector". block_alpha: factors on the
    deltas of single blocks, by block number; other tensors keep theirs.
    """

    method: str = "sum"
    keep: float | None = None
    scope: str = "tensor"
    block_alpha: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"expected the method {', '.join(METHODS)}, found '{self.method}'", argument="method")
        if self.scope not in SCOPES:
            raise UsageError(f"expected the trim scope {' or '.join(SCOPES)}, found '{self.scope}'", argument="scope")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UsageError(f"expected a share to keep above 0 and up to 1, found {self.keep}", argument="keep")
        if not all(math.isfinite(factor) for factor in self.block_alpha.values()):
            raise UsageError(f"expected finite block factors, found {dict(self.block_alpha)}", argument="block_alpha")


def weighted_sum(vectors: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> Deltas:
    """Sum of weight times vector in float32; a tensor that a vector lacks counts as zeros."""
    result: Deltas = {}
    for deltas, weight in zip(vectors, weights, strict=True):
        for name, delta in deltas.items():
            scaled = delta.float() * weight
            result[name] = result[name] + scaled if name in result else scaled
    return result


def trim(deltas: Mapping[str, Tensor], keep: float, *, scope: str = "tensor") -> Deltas:
    """The same deltas with all but the share `keep` of their entries, largest magnitudes first, set to zero.

    scope: the share is counted in each "tensor" or in the whole "vector". Of equal magnitudes at the border all
    are kept, and at least one entry is. Source of trimming over the whole vector: TIES, section 3.2.
    """
    if scope == "tensor":
        return {name: _above(delta, _border(delta.abs().flatten(), keep)) for name, delta in deltas.items()}
    if not deltas:
        return {}
    border = _border(torch.cat([delta.abs().flatten() for delta in deltas.values()]), keep)
    return {name: _above(delta, border) for name, delta in deltas.items()}


def merge_ties(vectors: Sequence[Mapping[str, Tensor]]) -> Deltas:
    """Elects a sign for every entry and averages the entries that agree with it, zeros left out.

    Source: TIES-merging, Yadav et al., 2023, arXiv 2306.01708, section 3.2: the elected sign is that of the sum,
    the mean is disjoint; trim the vectors before with `trim`.
    """
    result: Deltas = {}
    for name in dict.fromkeys(name for deltas in vectors for name in deltas):
        stacked = torch.stack([deltas[name].float() for deltas in vectors if name in deltas])
        elected = stacked.sum(dim=0).sign()
        agreeing = (stacked.sign() == elected) & (stacked != 0)
        result[name] = (stacked * agreeing).sum(dim=0) / agreeing.sum(dim=0).clamp(min=1)
    return result


def scale_blocks(deltas: Mapping[str, Tensor], factors: Mapping[int, float], architecture: Architecture) -> Deltas:
    """The deltas of these blocks times their factors; UsageError for a block that the architecture lacks."""
    if not factors:
        return dict(deltas)
    blocks = blocks_of(architecture)
    count = 1 + max(blocks.values())
    for block in factors:
        if not 0 <= block < count:
            raise UsageError(f"expected blocks 0 to {count - 1} of {architecture.name}, found block {block}")
    return {name: delta * factors.get(blocks[name], 1.0) if name in blocks else delta for name, delta in deltas.items()}


def blocks_of(architecture: Architecture) -> dict[str, int]:
    """Block number of each backbone tensor that lies in a block, by the library's tensor names."""
    backbone = build(architecture)
    number = {id(p): index for index, block in enumerate(backbone.blocks) for p in block.module.parameters()}
    return {name: number[id(p)] for name, p in backbone.module.named_parameters() if id(p) in number}


def combine(
    paths: Sequence[Path],
    out: Path,
    *,
    name: str,
    weights: Sequence[float] | None = None,
    options: CombineOptions | None = None,
    alpha: float | None = None,
    dtype: str = "fp32",
) -> VectorCard:
    """Combines vector files into one and writes it; returns its card.

    weights: a factor for each file, 1 unless given. alpha: recommended one to record; by default, like the
    evidence's numbers, the files' own, averaged with the magnitudes of the weights. dtype: "fp32", "fp16" or "int8";
    what storing loses is recorded in the metrics.

    Each vector is multiplied by its weight, then trimmed, then merged; block factors come last. Raises
    MismatchError for vectors of different architectures, bases or kinds of evidence.
    """
    options = options or CombineOptions()
    factors = [1.0] * len(paths) if weights is None else list(weights)
    _check_arguments(paths, factors, alpha, dtype)
    loaded = [load_vector(path) for path in paths]
    cards = [vector.card for vector in loaded]
    for path, card in zip(paths[1:], cards[1:], strict=True):
        _check_alike(paths[0], cards[0], path, card)
    vectors = [weighted_sum([vector.deltas], [factor]) for vector, factor in zip(loaded, factors, strict=True)]
    merged = scale_blocks(_merged(vectors, factors, options), options.block_alpha, cards[0].architecture)
    deltas = {key: delta for key, delta in merged.items() if delta.any()}
    same = factors == [1.0] and options == CombineOptions()
    names = [*loaded[0].deltas, *cards[0].unchanged]

    shares = [abs(factor) / sum(map(abs, factors)) for factor in factors]
    combined = VectorCard(
        name=name,
        architecture=cards[0].architecture,
        base=cards[0].base,
        source=_joined(card.source for card in cards),
        supervision=_joined(card.supervision for card in cards),
        evidence=averaged([card.evidence for card in cards], shares),
        alpha=sum(s * card.alpha for s, card in zip(shares, cards, strict=True)) if alpha is None else alpha,
        unchanged=tuple(key for key in names if key not in deltas),
        provenance=(_step(loaded, factors, options, dtype),),
        # What was measured of a vector holds for the same vector stored otherwise, and for no other.
        metrics={**(cards[0].metrics if same else {}), "storage": storage_error(deltas, dtype)},
    )
    save_vector(out, deltas, combined, dtype=STORAGE[dtype])
    return combined


def storage_error(deltas: Mapping[str, Tensor], dtype: str) -> dict[str, Any]:
    """What storing loses: the Euclidean distance between deltas and what is read again, as a share of their length."""
    again = restored(stored_as(deltas, STORAGE[dtype]))
    square = sum(float(delta.double().square().sum()) for delta in deltas.values())
    distance = sum(float((delta.double() - again[name]).square().sum()) for name, delta in deltas.items())
    return {"as": dtype, "relative_error": math.sqrt(distance / square) if square else 0.0}


def parse_block_alpha(text: str) -> dict[int, float]:
    """ "6=0.5,7..11=0.6..1" -> factor of each block; a range of blocks takes a linear ramp or one factor.

    Raises UsageError for anything else, and for a block that is named twice.
    """
    factors: dict[int, float] = {}
    for part in text.split(","):
        match = _BLOCK_ALPHA.fullmatch(part.strip())
        if match is None:
            raise UsageError(
                f"expected block factors like '6=0.5,7..11=0.6..1', found '{part.strip()}'", argument="block_alpha"
            )
        first, start = int(match["first"]), float(match["start"])
        last, end = int(match["last"] or first), float(match["end"] or start)
        if last < first:
            raise UsageError(f"expected a rising range of blocks, found {first}..{last}", argument="block_alpha")
        if last == first and end != start:
            raise UsageError(f"expected one factor for block {first}, found the ramp {start:g}..{end:g}")
        for block in range(first, last + 1):
            if block in factors:
                raise UsageError(f"block {block} has two factors in '{text}': name each block once")
            factors[block] = start + (end - start) * (block - first) / max(1, last - first)
    return factors


def _merged(vectors: Sequence[Deltas], weights: Sequence[float], options: CombineOptions) -> Deltas:
    if options.keep is not None:
        vectors = [trim(deltas, options.keep, scope=options.scope) for deltas in vectors]
    if options.method == "ties":
        return merge_ties(vectors)
    divisor = sum(map(abs, weights)) if options.method == "average" else 1.0
    return weighted_sum(vectors, [1 / divisor] * len(vectors))


def _border(magnitudes: Tensor, keep: float) -> float:
    """The smallest magnitude that is kept."""
    count = max(1, round(keep * magnitudes.numel()))
    return float(magnitudes.kthvalue(magnitudes.numel() - count + 1).values) if magnitudes.numel() else 0.0


def _above(delta: Tensor, border: float) -> Tensor:
    return torch.where(delta.abs() >= border, delta, torch.zeros_like(delta))


def _check_arguments(paths: Sequence[Path], weights: Sequence[float], alpha: float | None, dtype: str) -> None:
    if not paths:
        raise UsageError("expected at least one vector to combine, found none")
    if len(weights) != len(paths):
        raise UsageError(
            f"expected one weight for each of {len(paths)} vectors, found {len(weights)}", argument="weights"
        )
    if not all(math.isfinite(weight) for weight in weights) or not any(weights):
        raise UsageError(f"expected finite weights that are not all 0, found {list(weights)}", argument="weights")
    if alpha is not None and not math.isfinite(alpha):
        raise UsageError(f"expected a finite alpha to recommend, found {alpha}", argument="alpha")
    if dtype not in STORAGE:
        raise UsageError(f"expected {', '.join(STORAGE)}, found '{dtype}'", argument="dtype")


def _check_alike(first_path: Path, first: VectorCard, path: Path, card: VectorCard) -> None:
    if card.architecture != first.architecture:
        raise MismatchError(
            f"{path} was learned on {card.architecture}, {first_path} on {first.architecture}: combine vectors of "
            "one architecture"
        )
    if card.base.fingerprint != first.base.fingerprint:
        raise MismatchError(
            f"{path} was learned from {card.base}, {first_path} from {first.base}: combine vectors of one base"
        )
    if not card.evidence.is_like(first.evidence):
        raise MismatchError(
            f"{path} explains by {card.evidence}, {first_path} by {first.evidence}: combine vectors that make their "
            "heatmap of the same blocks"
        )


def _joined(names: Any) -> str:
    return "+".join(dict.fromkeys(names))


def _step(
    vectors: Sequence[LoadedVector], weights: Sequence[float], options: CombineOptions, dtype: str
) -> dict[str, Any]:
    inputs = [
        {
            "role": "vector",
            "name": vector.card.name,
            "sha256": vector.sha256,
            "weight": weight,
            "provenance": list(vector.card.provenance),
        }
        for vector, weight in zip(vectors, weights, strict=True)
    ]
    used = {**dataclasses.asdict(options), "block_alpha": {str(k): v for k, v in options.block_alpha.items()}}
    return provenance.step("combine", inputs=inputs, options=used, store=dtype)
