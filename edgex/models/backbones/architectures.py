"""The name, image size and pooling that a backbone is built from; no weights, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgex.errors import UsageError
from edgex.models.backbones.options import checked_options, shown
from edgex.runtime import schema

Pooling = str
"""How patch and class tokens become what the head reads.

"token": the class token. "avg": the mean over patch tokens. "attention": what a learned query attends to. Names joined
by "+" are concatenated: "token+avg" (class token beside the patches' mean, as in DINOv2's classifiers) and
"token+distillation" (class token beside the distillation token of DeiT).
"""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is needed to build a backbone without its weights.

    name: "timm/<model>" or "open_clip/<model>".
    image_size: (height, width) in pixels.
    pooling: "token", "avg", "attention", "token+avg" or "token+distillation", see `Pooling`.
    options: what differs from the named model, see `edgex.models.backbones.options`; UsageError for an unknown one.
    """

    name: str
    image_size: tuple[int, int]
    pooling: Pooling
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        found = schema.checked(checked_options, self.options, "options", error=UsageError)
        object.__setattr__(self, "options", found)

    @property
    def family(self) -> str:
        """The library: "timm" or "open_clip"."""
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        """The model's name inside its library."""
        return self.name.partition("/")[2]

    def is_like(self, other: Architecture) -> bool:
        """Whether both have the same parts: all that may differ is the epsilon of their norms.

        Libraries give the same model another one, which moves scores by less than 0.00001 (see
        `edgex.importers.base_weights`): a vector of the one fits the other.
        """
        without = [{**one.options, "norm_eps": None} for one in (self, other)]
        return without[0] == without[1] and dataclasses.replace(self, options={}) == dataclasses.replace(
            other, options={}
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; options are left out where there are none."""
        options = {"options": dict(self.options)} if self.options else {}
        return {"name": self.name, "image_size": list(self.image_size), "pooling": self.pooling, **options}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """Inverse of `to_dict`; ArtefactError names what is missing or unusable."""
        return schema.checked(ARCHITECTURE, data, "architecture")

    def __str__(self) -> str:
        options = f", {shown(self.options)}" if self.options else ""
        return f"{self.name} ({self.image_size[0]}x{self.image_size[1]} px, {self.pooling} pooling{options})"


ARCHITECTURE = schema.record(
    Architecture,
    name=schema.text,
    image_size=schema.listed(schema.whole(1, schema.MAX_SIDE), least=2, most=2),
    pooling=schema.text,
    # Files of models that are as their names say do not mention them.
    options=schema.Default(schema.mapping, {}),
)
"""The object stored in artefacts, see `Architecture.to_dict`."""
