"""What every part of a grid is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Split = Literal["train", "validation", "test"]


class Section(BaseModel):
    """A part of a grid: no unknown keys, no change after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
