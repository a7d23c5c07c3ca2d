"""What every section of a recipe is, and the kinds of values in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no change after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _size(value: object) -> object:
    if isinstance(value, str):
        width, _, height = value.lower().partition("x")
        return (width, height)
    return value


Size = Annotated[tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]], BeforeValidator(_size)]
"""(width, height) in pixels; ``320x240`` is understood as well."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[Positive, Positive]
