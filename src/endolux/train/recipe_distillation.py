"""The sections of a recipe about a teacher and what is learnt from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from endolux.train.recipe_section import Count, NotNegative, Positive, Section, Share, Size


class SecondTeacher(Section):
    """Another opinion: where it differs from the first teacher's, the student need not believe either.

    Attributes:
        model: as for :class:`Teacher`.
        input_size: what it sees; its own choice by default.
    """

    model: str
    input_size: Size | None = None


class Agreement(Section):
    """Where two teachers count as agreed: one of the two rules.

    Attributes:
        share: the share of every picture's pixels on which they differ least.
        limit: pixels whose canonical maps differ by no more than this (in scale mode a relative error of depth).
    """

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    limit: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Agreement:
        if (self.share is None) == (self.limit is None):
            raise ValueError("give either share or limit")
        return self


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
        second: another teacher; pixels on which the two do not agree are left out (task ``trinity``).
        agreement: what agreeing means.
    """

    model: str
    cache: Path | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    features: tuple[str, ...] = ()
    fill: Literal["auto", "first", "lazy"] = "auto"
    second: SecondTeacher | None = None
    agreement: Agreement = Agreement(share=0.9)


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


class Release(Section):
    """When the terms of the trinity come in, coarse to fine (specification 6.1).

    The gradient term begins at period 1, band b of the spectral term at period b/2 + 1; all is in from 3.5 on.

    Attributes:
        unit: what a period is counted in: epochs, steps, or shares of the whole run; ``none`` starts with everything.
        period: length of a period in these units.
    """

    unit: Literal["epoch", "step", "share", "none"] = "epoch"
    period: Positive = 1.0


class Trinity(Section):
    """The three terms of the output (:func:`endolux.losses.spatial`, ``gradient`` and ``spectral``).

    Attributes:
        weight: of the three together; 0 for none.
        spatial, gradient, spectral: of each.
        mode: of the canonical maps. May be left out where teacher and student mean the same, which is then ``scale``.
        keep: share of the pixels of an image that the spatial term counts.
        windows: statistics of the spatial term on so many windows a side; 1 is the whole picture.
        spectral_form: ``energy``, ``amplitude``, or ``wavelet`` (the energies of Haar bands).
        release: the schedule.
        balance_step: step (from 0) at which the weights of the terms are rescaled once, so that the norms of their
            gradients are as ``balance``; they stay so. None keeps the weights as given.
        balance: spatial, gradient and spectral at the decoder's last convolution; the semantic one, which does not
            reach it, against the spatial one at the map that it aligns.
    """

    weight: NotNegative = 1.0
    spatial: NotNegative = 1.0
    gradient: NotNegative = 0.5
    spectral: NotNegative = 0.1
    mode: Literal["scale", "affine"] | None = None
    keep: Annotated[float, Field(gt=0, le=1)] = 0.9
    windows: Count = 1
    spectral_form: Literal["energy", "amplitude", "wavelet"] = "energy"
    release: Release = Release()
    balance_step: Annotated[int, Field(ge=0)] | None = None
    balance: tuple[Positive, NotNegative, NotNegative, NotNegative] = (1.0, 0.5, 0.25, 0.25)


class Semantic(Section):
    """Semantic distribution alignment (:func:`endolux.losses.semantic_alignment`).

    Attributes:
        weight: added to the loss; 0 for none.
        kind: what is compared: ``prototypes``, ``cwd`` (channels), ``affinity``, ``moments``, ``image``.
        teacher_layer: the teacher's map; the third it has, the last of fewer, or the block three quarters of the way
            through a transformer (``block9`` of a ViT-S).
        student_layer: the student's map, by the same rule.
        dimensions: that the teacher's features are whitened to.
        prototypes: among them.
        temperature: of the assignments.
        frames: pictures that whitening and prototypes are fitted on, drawn with
        seed: this seed.
        fitted: a file with prototypes of this teacher, to use instead of fitting.
    """

    weight: NotNegative = 0.1
    kind: Literal["prototypes", "cwd", "affinity", "moments", "image"] = "prototypes"
    teacher_layer: str | None = None
    student_layer: str | None = None
    dimensions: Count = 64
    prototypes: Annotated[int, Field(ge=2)] = 64
    temperature: Positive = 0.1
    frames: Count = 200
    seed: Annotated[int, Field(ge=0)] = 0
    fitted: Path | None = None


class Validity(Section):
    """Which pixels count.

    Attributes:
        field: only the endoscope's picture, without border and displays.
        speculars: no highlights.
        reliable: the share of every picture's pixels on which the teacher says most nearly the same of the mirrored
            picture; 1 for all of them, which spares the second question.
    """

    field: bool = True
    speculars: bool = True
    reliable: Annotated[float, Field(gt=0, le=1)] = 0.9


class Distillation(Section):
    """How much of which knowledge.

    Attributes:
        response, feature, relation: of the task ``distillation``.
        base, smooth, trinity, semantic, mask: of the task ``trinity``.
        base: what is learnt beside the teacher: nothing, the recipe's ``loss`` where a sample has depth, or ``video``.
        smooth: weight of the edge-aware smoothness of the student's disparity.
    """

    response: Response = Response()
    feature: Feature = Feature()
    relation: Relation = Relation()
    base: Literal["none", "labels", "video"] = "none"
    smooth: NotNegative = 0.001
    trinity: Trinity = Trinity()
    semantic: Semantic = Semantic()
    mask: Validity = Validity()
