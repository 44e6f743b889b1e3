"""Which evidence a model's heatmap is made of, as files state it, and the strategy that reads it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones import Backbone
from edgex.models.discovery import modules_of
from edgex.models.evidence.base import EvidenceStrategy
from edgex.models.evidence.class_attention import ClassAttention
from edgex.models.evidence.readout import ReadoutEvidence
from edgex.models.evidence.two_parts import TwoParts
from edgex.runtime import schema
from edgex.runtime.metadata import evidence_in_words


@dataclasses.dataclass(frozen=True)
class Own:
    """The model's own part of evidence of two parts, see `edgex.models.evidence.two_parts`.

    blocks: of how many last blocks. weight: factor relative to the readout's part. blur: share of the part that is
    averaged over neighbouring patches, 0 none, 1 all of it.
    """

    blocks: int
    weight: float = 0.5
    blur: float = 0.0


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Which forward-only quantity becomes the heatmap.

    kind: name of a strategy: "class-attention" (class-token pooling: what each patch writes into the class token
    through the attention of the last `blocks` blocks) or "patch-tokens" (average pooling: each patch's own share).
    scale: factor on the evidence before the additive correction; stored with the vector that learned it.
    readout: whether those blocks, or the attention pool, are read with attention weights of their own, see
        `edgex.models.evidence.readout` and `edgex.models.evidence.attention_pool_readout`.
    own: beside a readout, the model's own part of the evidence, if there is one.
    correction: where the part of the score is that evidence leaves over: the same amount on all "patches", or in the
    "base" of the heatmap, see `edgex.models.self_explaining`.
    """

    kind: str
    blocks: int
    scale: float
    readout: bool = False
    own: Own | None = None
    correction: Literal["patches", "base"] = "patches"

    def __str__(self) -> str:
        return evidence_in_words(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without `own` and `correction` where they are as in files that do not mention them."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if (name, value) not in _UNSAID}

    def learned(self, scale: float, factors: Mapping[str, float]) -> Evidence:
        """The same evidence with the scale, and the factors of its own part, that learning found."""
        own = None if self.own is None else Own(self.own.blocks, **{**self.factors, **factors})
        return dataclasses.replace(self, scale=scale, own=own)

    @property
    def factors(self) -> dict[str, float]:
        """The factors of its own part, by name; none where there is no such part."""
        return {} if self.own is None else {"weight": self.own.weight, "blur": self.own.blur}

    def is_like(self, other: Evidence) -> bool:
        """Whether both are made of the same blocks in the same way: but for learned numbers and the correction."""
        mine, others = (
            dataclasses.replace(one.learned(1.0, dict.fromkeys(one.factors, 0.0)), correction="patches")
            for one in (self, other)
        )
        return mine == others

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evidence:
        """Inverse of `to_dict`; ArtefactError names what is missing or unusable."""
        return schema.checked(EVIDENCE, data, "evidence")

    @classmethod
    def default(cls, backbone: Backbone) -> Evidence:
        """What was measured to be best for the backbone's pooling before any vector.

        Raises UnsupportedError for a pooling that no strategy explains.
        """
        for strategy in _explaining(backbone):
            if (blocks := strategy.default_blocks(backbone)) is not None:
                return cls(strategy.kind, blocks, 1.0)
        raise UnsupportedError(f"{backbone.architecture} has no evidence that a heatmap is made of by default")


def has_readout(backbone: Backbone) -> bool:
    """Whether a backbone can have a readout: where its head reads a class token, or what attention pools."""
    return any(strategy.has_readout for strategy in _explaining(backbone))


def averaged(alike: Sequence[Evidence], shares: Sequence[float]) -> Evidence:
    """Evidence with the means, weighted by `shares`, of the learned numbers of several that are alike.

    The correction stands in the base where any of them has it there: the order of vectors must not matter.
    """
    numbers = [{"scale": evidence.scale, **evidence.factors} for evidence in alike]
    means = {name: sum(share * one[name] for share, one in zip(shares, numbers, strict=True)) for name in numbers[0]}
    in_base = any(evidence.correction == "base" for evidence in alike)
    found = alike[0].learned(means.pop("scale"), means)
    return dataclasses.replace(found, correction="base") if in_base else found


_UNSAID = (("own", None), ("correction", "patches"))

EVIDENCE = schema.record(
    Evidence,
    kind=schema.text,
    blocks=schema.whole(),
    scale=schema.number,
    # Files from before there were readouts do not mention them.
    readout=schema.Default(schema.flag, False),
    own=schema.Default(
        schema.optional(schema.record(Own, blocks=schema.whole(1), weight=schema.number, blur=schema.number)), None
    ),
    correction=schema.Default(schema.one_of("patches", "base"), "patches"),
)
"""The object stored in artefacts, see `Evidence.to_dict`."""


@functools.cache
def strategies() -> tuple[type[EvidenceStrategy[Any, Any]], ...]:
    """All strategies of one part: the subclasses of `EvidenceStrategy` that the modules of this package define."""
    assert __package__ is not None
    return tuple(
        found
        for module in modules_of(__package__)
        for found in vars(module).values()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and issubclass(found, EvidenceStrategy)
        and not inspect.isabstract(found)
        and found is not TwoParts
    )


def strategy_of(backbone: Backbone, evidence: Evidence) -> EvidenceStrategy[Any, Any]:
    """The strategy that reads this evidence off this backbone.

    Raises UsageError where they do not go together, UnsupportedError for a pooling or a backbone that it cannot
    explain.
    """
    explaining = _explaining(backbone)
    alike = [strategy for strategy in explaining if strategy.kind == evidence.kind]
    if not alike:
        known = " or ".join(dict.fromkeys(strategy.kind for strategy in explaining))
        raise UsageError(f"{backbone.pooling} pooling is explained by {known}, not by {evidence.kind}")
    fewest = min(strategy.fewest_blocks for strategy in alike)
    if not fewest <= evidence.blocks <= len(backbone.blocks):
        raise UsageError(f"evidence of {evidence.blocks} blocks, but the model has {len(backbone.blocks)}")
    for strategy in alike:
        if strategy.has_readout == evidence.readout:
            found = strategy(backbone, evidence.blocks)
            return found if evidence.own is None else _beside_own(found, evidence.own)
    how = "with" if evidence.readout else "without"
    raise UsageError(f"{backbone.pooling} pooling is not explained by {evidence.kind} {how} a readout")


def _beside_own(readout: EvidenceStrategy[Any, Any], own: Own) -> TwoParts:
    """Evidence of two parts, of which this readout reads the first."""
    if not isinstance(readout, ReadoutEvidence):
        raise UsageError("the model's own part stands beside that of a readout which reads the class token alone")
    if not 1 <= own.blocks <= len(readout.backbone.blocks):
        raise UsageError(f"own part of {own.blocks} blocks, but the model has {len(readout.backbone.blocks)}")
    return TwoParts(readout, ClassAttention(readout.backbone, own.blocks), own.weight, own.blur)


def _explaining(backbone: Backbone) -> list[type[EvidenceStrategy[Any, Any]]]:
    found = [strategy for strategy in strategies() if backbone.pooling in strategy.poolings]
    if not found:
        raise UnsupportedError(f"no evidence strategy explains {backbone.architecture}")
    return found
