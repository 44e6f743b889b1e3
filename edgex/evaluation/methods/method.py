"""What every explanation method is asked for: its name, its cost, and heatmaps of a model's classes."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from edgex.models.self_explaining import SelfExplainingViT


@dataclasses.dataclass(frozen=True)
class Cost:
    """Passes through the model that one heatmap takes. forward: whole forward passes, a fraction where a method runs
    the last blocks alone. backward: backward passes.
    """

    forward: float
    backward: int = 0

    def __str__(self) -> str:
        return f"{self.forward:.3g}" + (f" + {self.backward} backward" if self.backward else "")


class Method(abc.ABC):
    """One explanation method with its settings; `parse` reads it from text and `str` writes it.

    Class attributes: name, the first part of the text; grammar, how a user writes the whole of it. seed: of what a
    method draws, beside each picture's own.
    """

    name: ClassVar[str]
    grammar: ClassVar[str]
    seed: int = 0

    @classmethod
    @abc.abstractmethod
    def parse(cls, text: str) -> Method | None:
        """The method from its text; None for another method's. UsageError for settings that cannot be."""

    @abc.abstractmethod
    def __str__(self) -> str: ...

    @property
    @abc.abstractmethod
    def key(self) -> tuple[Any, ...]:
        """The method and all its settings, plain values; heatmaps of equal keys are equal."""

    @abc.abstractmethod
    def cost(self, model: SelfExplainingViT) -> Cost:
        """What one heatmap of this model takes."""

    @abc.abstractmethod
    def explain(
        self,
        model: SelfExplainingViT,
        images: Tensor,
        classes: Tensor,
        generator: np.random.Generator,
        *,
        precision: str = "fp32",
    ) -> Tensor:
        """Heatmaps float32 [N, gh, gw] of `classes` int64 [N] for normalised pictures [N, 3, H, W].

        generator: of whatever a method draws. precision: of passes over masked pictures, "fp32" or "bf16".
        """

    def check(self, model: SelfExplainingViT) -> None:  # noqa: B027
        """Raises UsageError where the method does not fit the grid of patches, UnsupportedError where not the model."""


class PlainMethod(Method):
    """A method without settings, written by its name alone."""

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "name"):
            cls.grammar = cls.name

    @classmethod
    def parse(cls, text: str) -> Method | None:
        """See `Method`."""
        return cls() if text == cls.name else None

    def explain(
        self,
        model: SelfExplainingViT,
        images: Tensor,
        classes: Tensor,
        generator: np.random.Generator,  # noqa: ARG002
        *,
        precision: str = "fp32",  # noqa: ARG002
    ) -> Tensor:
        """See `Method`. Nothing is drawn, and no passes over masked pictures are made."""
        return self.heatmaps(model, images, classes)

    @abc.abstractmethod
    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
        """Heatmaps float32 [N, gh, gw] of `classes` int64 [N] for normalised pictures [N, 3, H, W]."""

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def key(self) -> tuple[Any, ...]:
        """See `Method`."""
        return (self.name,)


@dataclasses.dataclass(frozen=True)
class SampledMethod(Method):
    """A method that asks the model about one picture at a time, many times, with parts of it hidden.

    passes: how many times.
    """

    passes: int

    @property
    def key(self) -> tuple[Any, ...]:
        """See `Method`."""
        return (self.name, *dataclasses.astuple(self))

    def cost(self, model: SelfExplainingViT) -> Cost:  # noqa: ARG002
        """Forward passes alone."""
        return Cost(self.passes)

    def explain(
        self,
        model: SelfExplainingViT,
        images: Tensor,
        classes: Tensor,
        generator: np.random.Generator,
        *,
        precision: str = "fp32",
    ) -> Tensor:
        """See `Method`."""
        pairs = zip(images.split(1), classes.split(1), strict=True)
        return torch.stack(
            [self.heatmap(model, image, explained, generator, precision=precision) for image, explained in pairs]
        )

    @abc.abstractmethod
    def heatmap(
        self,
        model: SelfExplainingViT,
        image: Tensor,
        explained: Tensor,
        generator: np.random.Generator,
        *,
        precision: str,
    ) -> Tensor:
        """Heatmap float32 [gh, gw] of a class [1] for one normalised picture [1, 3, H, W]; see `Method.explain`."""
