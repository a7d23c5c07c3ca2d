"""The sections of a recipe about a teacher and what is learnt from it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from endolux.train.recipe_section import Count, NotNegative, Section, Share, Size


class Teacher(Section):
    """Who teaches.

    Attributes:
        model: bundle, run folder or foundation model, for :func:`endolux.models.teachers.open_teacher`.
        cache: folder of the knowledge cache; beside the run by default.
        input_size: what the teacher sees; its own choice by default.
        output_size: size of the stored maps; the training size by default.
        features: names of the teacher's maps that are kept, beside those that the feature pairs name.
        fill: ``first`` asks the teacher about all pictures before the training, ``lazy`` when a picture is met;
            ``auto`` is first for runs that will see at least half of them.
    """

    model: str
    cache: Path | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    features: tuple[str, ...] = ()
    fill: Literal["auto", "first", "lazy"] = "auto"


class Response(Section):
    """Distillation of the output (specification 2.6).

    Attributes:
        epsilon: share of the teacher's loss.
        maximum: what both maps are divided by: each map's own maximum or the batch's (D-6).
        shift: what is done with the teacher's minimum: subtracted or, as coded, added (D-7).
        mirrored: mirror the teacher's map with the sample; the original did not (D-5).
    """

    epsilon: Share = 0.25
    maximum: Literal["map", "batch"] = "map"
    shift: Literal["subtract", "add"] = "subtract"
    mirrored: bool = True


class FeaturePair(Section):
    """A map of the student and the teacher's that it shall resemble."""

    student: str
    teacher: str


class Feature(Section):
    """Distillation of intermediate maps (:func:`endolux.losses.feature_loss`).

    Attributes:
        weight: added to the loss; 0 for none.
        kind: ``cosine`` over the channels of a place, ``mse`` of channels with mean 0 and variance 1.
        pairs: what resembles what.
    """

    weight: NotNegative = 0.0
    kind: Literal["cosine", "mse"] = "cosine"
    pairs: tuple[FeaturePair, ...] = ()


class Relation(Section):
    """Distillation of relations between places of the depth map (:func:`endolux.losses.relation_loss`).

    Attributes:
        weight: added to the loss; 0 for none.
        kind: signed ``distance`` of two places, ``affinity`` of their surroundings, ``similarity`` of two images.
        grid: (rows, columns) of places.
    """

    weight: NotNegative = 0.0
    kind: Literal["distance", "affinity", "similarity"] = "distance"
    grid: tuple[Count, Count] = (12, 16)


class Distillation(Section):
    """How much of which knowledge."""

    response: Response = Response()
    feature: Feature = Feature()
    relation: Relation = Relation()
