"""The card: what a bundle is, made from what, how to feed it, and how well it was measured to work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from endolux.errors import ModelError
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

    @property
    def text(self) -> str:
        """For people."""
        unit = "mm" if self.kind is DepthKind.METRIC else "no unit"
        return f"{self.kind.value} ({unit}), {self.minimum:g} to {self.maximum:g}"


class LandmarkOutput(_Strict):
    """What comes out of a graph of landmarks: N x classes x H x W float32 probabilities at the size of its input."""

    kind: Literal["landmarks"]
    classes: tuple[str, ...] = Field(min_length=2, max_length=255, description="Names; the background first.")

    @property
    def text(self) -> str:
        """For people."""
        return f"landmarks: {', '.join(self.classes[1:])}"


def _tag(value: object) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "landmarks" if kind == "landmarks" else "depth"


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
    output: Annotated[
        Annotated[Output, Tag("depth")] | Annotated[LandmarkOutput, Tag("landmarks")], Discriminator(_tag)
    ]
    trained_on: str
    intended_use: str
    limits: tuple[str, ...]
    licence: str
    derived_from: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    files: dict[str, FileEntry]

    @property
    def depth(self) -> Output:
        """The output of a model of depth.

        Raises:
            ModelError: ``model.kind`` for a model of landmarks.
        """
        if isinstance(self.output, LandmarkOutput):
            raise ModelError(
                f"The model '{self.name}' gives landmarks, not depth",
                why=f"Its card says: {self.output.text}.",
                fix="Use 'endolux segment', or give a model of depth ('endolux models ls').",
                error_id="model.kind",
            )
        return self.output
