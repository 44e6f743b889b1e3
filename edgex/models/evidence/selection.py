"""Which evidence a model's heatmap is made of, as files state it, and the strategy that reads it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from edgex.errors import UnsupportedError, UsageError
from edgex.models.backbones import Backbone
from edgex.models.discovery import modules_of
from edgex.models.evidence.base import EvidenceStrategy
from edgex.runtime import schema


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Which forward-only quantity becomes the heatmap.

    kind: name of a strategy: "class-attention" (class-token pooling: what each patch writes into the class token
    through the attention of the last `blocks` blocks) or "patch-tokens" (average pooling: each patch's own share).
    scale: factor on the evidence before the additive correction; stored with the vector that learned it.
    readout: whether those blocks are read with attention weights of their own, see `edgex.models.evidence.readout`.
    """

    kind: str
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


EVIDENCE = schema.record(
    Evidence,
    kind=schema.text,
    blocks=schema.whole(),
    scale=schema.number,
    # Files from before there were readouts do not mention them.
    readout=schema.Default(schema.flag, False),
)
"""The object stored in artefacts, see `Evidence.to_dict`."""


@functools.cache
def strategies() -> tuple[type[EvidenceStrategy[Any, Any]], ...]:
    """All strategies: the subclasses of `EvidenceStrategy` that the modules of this package define."""
    assert __package__ is not None
    return tuple(
        found
        for module in modules_of(__package__)
        for found in vars(module).values()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and issubclass(found, EvidenceStrategy)
        and not inspect.isabstract(found)
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
            return strategy(backbone, evidence.blocks)
    how = "with" if evidence.readout else "without"
    raise UsageError(f"{backbone.pooling} pooling is not explained by {evidence.kind} {how} a readout")


def _explaining(backbone: Backbone) -> list[type[EvidenceStrategy[Any, Any]]]:
    found = [strategy for strategy in strategies() if backbone.pooling in strategy.poolings]
    if not found:
        raise UnsupportedError(f"no evidence strategy explains {backbone.architecture}")
    return found
