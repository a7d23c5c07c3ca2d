"""The section of a recipe about self-supervision from video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from endolux.train.recipe_optimiser import Optimiser
from endolux.train.recipe_section import NotNegative, Positive, Section, Share


class Photometric(Section):
    """How pictures are compared (:func:`endolux.losses.photometric_distance`).

    Attributes:
        kind: ``ms-ssim`` (DARES), ``ssim`` (AF-SfMLearner, EndoDAC, Monodepth2) or ``l1``.
        mode: of MS-SSIM: ``reproduce`` is one number for the batch, as published, which no mask acts on (G4).
    """

    kind: Literal["ms-ssim", "ssim", "l1"] = "ms-ssim"
    mode: Literal["correct", "reproduce"] = "correct"


class Intrinsics(Section):
    """Where the intrinsics come from.

    Attributes:
        kind: ``data``: each sample's own, an error where it has none; ``constant``: the numbers below for every
            picture; ``auto``: each sample's own, the numbers below where it has none, and the log says so;
            ``learned``: predicted by a head on the pose network (EndoDAC).
        fx, fy, cx, cy: of the numbers, in widths and heights of the picture; SCARED's by default.
        file: camera as JSON for clips that have none, for instance from ``endolux calibrate``; before the numbers.
        mirrored: mirror them with the picture; False is as published (G21).
        joint: of several source frames' predicted matrices, the ``mean``, or the ``last``, as published (G16).
    """

    kind: Literal["auto", "data", "constant", "learned"] = "auto"
    fx: Positive = 0.82
    fy: Positive = 1.02
    cx: float = 0.5
    cy: float = 0.5
    file: Path | None = None
    mirrored: bool = True
    joint: Literal["mean", "last"] = "mean"


class Pose(Section):
    """The network of camera motion.

    Attributes:
        kind: ``resnet18`` on two pictures (AF-SfMLearner, DARES) or ``convolutions``, seven with stride 2
            (SfMLearner), about a twelfth of the work; ``correlation``: features compared at every displacement, a
            fiftieth of those parameters, which learns within some hundred steps.
        unit: what one unit of its translations is, in units of depth; by default 1 for networks whose depth begins
            below 1 (AF-SfMLearner, DARES), the geometric mean of the depth range for others, so that first steps of
            the optimiser move the camera by a reasonable share of the depth.
        rotation: ``reproduce`` divides by the angle plus 1e-7.
    """

    kind: Literal["resnet18", "convolutions", "correlation"] = "resnet18"
    unit: Positive | None = None
    rotation: Literal["correct", "reproduce"] = "correct"


class Video(Section):
    """Self-supervision: a picture rebuilt from its neighbours through depth and motion.

    Attributes:
        offsets: the neighbours of a picture, in frames.
        listed: only frames of this list are learnt from (AF-SfMLearner's form: ``dataset3/keyframe4 390 l``).
        static_below: clips whose pictures differ from their neighbours by less than so many grey levels (of 255, means
            over 8 x 8 pixels) are left out; 0 keeps all.
        photometric: how pictures are compared.
        reprojection: over the sources, the ``mean`` (AF-SfMLearner, DARES) or the ``minimum`` of each pixel
            (Monodepth2).
        auto_mask: leave out what the unmoved source explains better (Monodepth2).
        in_view: leave out what lies behind the source's camera or outside its picture; False is as published.
        flow: train optical flow, for visibility and for registering the source.
        appearance: train appearance flow; needs ``flow``.
        flow_warp: ``reproduce``: a flow of zero zooms the picture by size / (size - 1), as DARES does on today's
            PyTorch (G6).
        align_corners: of every resize of side outputs; DARES True, AF-SfMLearner False.
        scales: side outputs that take part, at most.
        visible_above: threshold of the visibility mask.
        flow_smoothness, transform_constraint, transform_smoothness, disparity_smoothness: weights.
        flow_optimiser: of the optical flow; the recipe's own by default.
        intrinsics: where they come from.
        pose: the network of camera motion.
        motion_first: for this share of the run the depth network stays as it is, and only motion is learnt: a wrong
            motion unlearns what a pretrained depth network knows. 0 is as published.
        companions: folder with published weights (``pose_encoder.pth``, ``pose.pth``, ``transform_encoder.pth``,
            ``transform.pth``, ``position_encoder.pth``, ``position.pth``) to start from.
        initial: run or checkpoint of a video training whose pose and flow networks to start from.
        imagenet: published ImageNet weights of a ResNet-18 for the encoders of those networks.
    """

    offsets: tuple[int, ...] = (-1, 1)
    listed: Path | None = None
    static_below: NotNegative = 0.3
    photometric: Photometric = Photometric()
    reprojection: Literal["mean", "minimum"] = "mean"
    auto_mask: bool = False
    in_view: bool = True
    flow: bool = True
    appearance: bool = True
    flow_warp: Literal["correct", "reproduce"] = "correct"
    align_corners: bool = True
    scales: Annotated[int, Field(ge=1, le=8)] = 4
    visible_above: Share = 0.95
    flow_smoothness: NotNegative = 1e-3
    transform_constraint: NotNegative = 0.01
    transform_smoothness: NotNegative = 0.01
    disparity_smoothness: NotNegative = 1e-4
    flow_optimiser: Optimiser | None = None
    intrinsics: Intrinsics = Intrinsics()
    pose: Pose = Pose()
    motion_first: Share = 0.0
    companions: Path | None = None
    initial: Path | None = None
    imagenet: Path | None = None

    @field_validator("offsets")
    @classmethod
    def _neighbours(cls, offsets: tuple[int, ...]) -> tuple[int, ...]:
        if not offsets or 0 in offsets or len(set(offsets)) != len(offsets):
            raise ValueError("offsets are different whole numbers, and 0 is the picture itself")
        return offsets

    @model_validator(mode="after")
    def _registered(self) -> Video:
        if self.appearance and not self.flow:
            raise ValueError("appearance flow compares pictures that optical flow has registered: set appearance=false")
        return self
