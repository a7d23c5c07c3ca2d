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


class VideoAugmentation(Section):
    """What the family of Monodepth2 trains with: mirrored snippets, and colour jitter of what the networks see.

    Losses compare the pictures without jitter.

    Attributes:
        flip, flip_vertical: probability of each mirroring, of a whole snippet.
        zoom: largest magnification of a random crop.
        jitter: probability of a change of colours.
        brightness, contrast, saturation: factors are drawn from 1 minus to 1 plus this.
        hue: largest shift, in turns.
        draw: one change for a whole ``snippet``, or one for each ``frame``, as DARES and EndoDAC do (G7).
    """

    kind: Literal["video"] = "video"
    flip: Share = 0.5
    flip_vertical: Share = 0.0
    zoom: Annotated[float, Field(ge=1)] = 1.0
    jitter: Share = 0.5
    brightness: Share = 0.2
    contrast: Share = 0.2
    saturation: Share = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    draw: Literal["snippet", "frame"] = "snippet"


class LandmarkAugmentation(Section):
    """Turned and mirrored pictures with their landmarks, and then what an endoscope does to them.

    Attributes:
        rotate: probability of a rotation; ``degrees``: the largest.
        flip: probability of a mirroring.
        mirror: ``either`` is left-right or upside down, picked at random, as in the released code; ``horizontal`` is
            left-right alone: above the liver lies its silhouette, below it its ridge.
        corners: what comes in from beyond a rotated picture: ``correct`` is background, ``reproduce`` has no class, as
            in the released code.
        effects: more views, light, colours, dirt and codec; None for the published augmentation.
    """

    kind: Literal["landmarks"] = "landmarks"
    rotate: Share = 0.5
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    flip: Share = 0.5
    mirror: Literal["either", "horizontal"] = "either"
    corners: Literal["correct", "reproduce"] = "correct"
    effects: EndoscopeAugmentation | None = None


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
        augmentation: one of five kinds.
        unreadable_limit: so many samples may be unreadable; they are named and replaced by others.
        validation: what is held out.
    """

    sources: tuple[str, ...] = ()
    size: Size | None = None
    augmentation: Annotated[
        EndoscopeAugmentation | LeveAugmentation | VideoAugmentation | LandmarkAugmentation | NoAugmentation,
        Field(discriminator="kind"),
    ] = EndoscopeAugmentation()
    unreadable_limit: Annotated[int, Field(ge=0)] = 0
    validation: Validation = Validation()
