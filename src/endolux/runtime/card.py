"""The card: what a bundle is, made from what, how to feed it, and how well it was measured to work."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from endolux.types import DepthKind

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Preprocessing(_Strict):
    """How pixels become the network's input. Applied by ``endolux.prep.network_input`` and by nothing else.

    The content area is cropped to its bounding box, resized, and filled with ``fill`` outside the area. ``resize``
    "keep-aspect": to about ``height * width`` pixels with both sides multiples of ``multiple``; "stretch": to exactly
    ``width`` by ``height`` whatever its aspect, for networks that were trained so.
    """

    height: int = Field(gt=0, description="Reference height in pixels.")
    width: int = Field(gt=0, description="Reference width in pixels.")
    multiple: int = Field(default=32, gt=0)
    layout: Literal["nhwc-uint8", "nchw-float32"] = "nhwc-uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fill: tuple[int, int, int] = (0, 0, 0)
    resize: Literal["keep-aspect", "stretch"] = "keep-aspect"

    @model_validator(mode="after")
    def _stretched_sides_fit(self) -> Self:
        if self.resize == "stretch" and (self.width % self.multiple or self.height % self.multiple):
            raise ValueError(f"{self.width}x{self.height} cannot be stretched to: not multiples of {self.multiple}")
        return self


class Output(_Strict):
    """What comes out of the graph: N x 1 x H x W float32 at the size of its input."""

    kind: DepthKind
    minimum: float = Field(description="Smallest value the network can give.")
    maximum: float = Field(description="Largest value the network can give; sets the step of 16-bit files.")


class FileEntry(_Strict):
    """One file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Metric(_Strict):
    """One measured figure with what anyone needs to measure it again."""

    protocol: str
    data: str
    values: dict[str, float]
    command: str


class Card(_Strict):
    """Contents of ``card.json``."""

    schema_version: Literal[1]
    name: str = Field(min_length=1)
    summary: str
    architecture: str
    parameters: int = Field(gt=0)
    preprocessing: Preprocessing
    output: Output
    trained_on: str
    intended_use: str
    limits: tuple[str, ...]
    licence: str
    derived_from: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    files: dict[str, FileEntry]
