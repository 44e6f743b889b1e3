"""What a client may ask of a picture: the parameters behind "?" of an address."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from edgex.runtime.calibration import parse_scale
from edgex.runtime.drawing.colormaps import COLORMAPS
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.drawing.overlay import STYLES, Style


class Question(BaseModel):
    """Query parameters; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    explain: str | None = Field(
        None, description="Explain this class, by name or position, instead of the predicted one: why (not) this class?"
    )
    top: int = Field(5, ge=1, le=100_000, description="How many classes to list.")
    boxes: bool = Field(False, description="Add boxes around the places of high evidence.")
    overlay: Literal["png", "jpeg"] | None = Field(
        None, description="Add the picture with the heatmap drawn over it, in base64."
    )
    style: str = Field(
        STYLES[0], description="How overlays are drawn.", json_schema_extra={"enum": list(STYLES)}, max_length=40
    )
    colormap: str = Field(
        COLORMAPS[0], description="Their colours.", json_schema_extra={"enum": list(COLORMAPS)}, max_length=40
    )
    opacity: float | None = Field(None, ge=0, le=1, description="Of the strongest evidence.")
    scale: str | None = Field(
        None,
        description="What colours mean: picture (its own range), calibrated (the range that the file stores) or "
        "fixed:VALUE (full colour at so many logits per patch); default: calibrated where the file has it.",
        max_length=40,
    )
    dim: bool = Field(False, description="Darken what the model does not see.")
    legend: bool | None = Field(None, description="Draw a colour bar with numbers; default: beside captions.")
    caption: bool = Field(False, description="Write class and score into the picture.")

    @property
    def drawing(self) -> Drawing:
        """How overlays are drawn; UsageError for words that there are not."""
        scale = parse_scale(self.scale)
        return Drawing(self.colormap, self.opacity, cast("Style", self.style), self.dim, self.legend, None, scale)
