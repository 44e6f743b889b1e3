"""What a client may ask of a picture: the parameters behind "?" of an address."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgex.runtime.colormaps import COLORMAPS
from edgex.runtime.overlay import STYLES


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
