"""The sections of a recipe about data: sources, augmentation, what is held out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from endolux.train.augment import Augmentation
from endolux.train.recipe_section import Count, NotNegative, Range, Section, Share, Size


class EndoscopeAugmentation(Section):
    """:class:`endolux.train.augment.Augmentation` as a recipe says it."""

    kind: Literal["endoscope"] = "endoscope"
    flip: Share = 0.5
    zoom: Annotated[float, Field(ge=1)] = 1.6
    aspect: Share = 0.1
    gamma: Range = (0.5, 1.8)
    gain: Range = (0.65, 1.6)
    colour: Share = 0.6
    cast: Share = 0.4
    grey: Share = 0.05
    light_range: NotNegative = 0.45
    flatten: Share = 0.0
    light: Share = 0.4
    lens: Share = 0.3
    noise: Share = 0.5
    content_area: Share = 0.3
    scaler: Share = 0.15
    text: Share = 0.1
    highlights: Share = 0.15
    occluders: Share = 0.15
    codec: Share = 0.5

    def settings(self) -> Augmentation:
        """As the function takes it."""
        return Augmentation(**self.model_dump(exclude={"kind"}))


class LeveAugmentation(Section):
    """What Leve and GuideDepth were trained with: resize, mirror, swap of the colour channels.

    Attributes:
        flip: probability of a horizontal mirroring.
        swap: probability of a permutation of the channels, the identity among the six (D-34).
        depth: how depth is resized: ``nearest`` makes no surfaces that are not there, ``bilinear`` is the published.
    """

    kind: Literal["leve"] = "leve"
    flip: Share = 0.5
    swap: Share = 0.5
    depth: Literal["nearest", "bilinear"] = "nearest"


class NoAugmentation(Section):
    """Samples as they are, resized."""

    kind: Literal["none"] = "none"


class Validation(Section):
    """Held-out data.

    Attributes:
        sources: other data than the training's; or none, and
        fraction: this share of the training's sequences (whole ones) is kept out of the training.
        limit: score so many samples at most, evenly spread.
    """

    sources: tuple[str, ...] = ()
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    limit: Count | None = None


class Data(Section):
    """What it is trained on.

    Attributes:
        sources: folders with shards, or ``READER:PATH`` for a data set (``scared:/data/scared``).
        size: of the training pictures; the stored size by default.
        augmentation: one of three kinds.
        unreadable_limit: so many samples may be unreadable; they are named and replaced by others.
        validation: what is held out.
    """

    sources: tuple[str, ...] = ()
    size: Size | None = None
    augmentation: Annotated[EndoscopeAugmentation | LeveAugmentation | NoAugmentation, Field(discriminator="kind")] = (
        EndoscopeAugmentation()
    )
    unreadable_limit: Annotated[int, Field(ge=0)] = 0
    validation: Validation = Validation()
