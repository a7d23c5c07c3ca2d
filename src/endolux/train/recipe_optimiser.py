"""The sections of a recipe about the optimiser and its rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from endolux.train.recipe_section import Count, NotNegative, Positive, Section, Share


class Optimiser(Section):
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019).

    Attributes:
        weight_decay: on kernels; never on biases and norms.
    """

    name: Literal["adam", "adamw"] = "adamw"
    lr: Positive = 2e-3
    weight_decay: NotNegative = 0.02
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8


class ConstantSchedule(Section):
    """The same rate throughout, after an optional linear warm-up over a fraction of the steps."""

    kind: Literal["constant"] = "constant"
    warm_up: Share = 0.0


class StepSchedule(Section):
    """``factor`` times the rate after every ``every`` epochs (or steps)."""

    kind: Literal["step"] = "step"
    every: Count = 5
    factor: Positive = 0.1
    interval: Literal["epoch", "step"] = "epoch"


class CosineSchedule(Section):
    """Half a cosine down to ``final`` of the rate, changed every step or every epoch."""

    kind: Literal["cosine"] = "cosine"
    warm_up: Share = 0.0
    final: Share = 0.0
    interval: Literal["epoch", "step"] = "step"


class OneCycleSchedule(Section):
    """Linear rise over ``warm_up`` of the steps, then half a cosine down to ``final`` of the peak."""

    kind: Literal["one-cycle"] = "one-cycle"
    warm_up: Share = 0.05
    final: Share = 0.01


Schedule = Annotated[ConstantSchedule | StepSchedule | CosineSchedule | OneCycleSchedule, Field(discriminator="kind")]
