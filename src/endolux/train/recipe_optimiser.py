"""The sections of a recipe about the optimiser and its rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from endolux.train.recipe_section import Count, NotNegative, Positive, Section, Share


class Optimiser(Section):
    """Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) or GaLore (Zhao et al. 2024) on AdamW.

    Attributes:
        weight_decay: on kernels; never on biases and norms.
        pattern: of ``galore``, as everything below: regular expressions of the modules whose weights are projected.
        rank, projection, side, scale, update_interval, moments: see :class:`endolux.adapt.GaLoreAdamW`.
        oversampling, power: see :func:`endolux.adapt.projection`.
        oversized: for a rank above the size of a matrix, ``error``, or ``adamw`` (plain steps for that matrix).
        adapted: number of matrices that the patterns must match; None for any but none.
        skip_limit: non-finite gradients in a row that are borne: the step is left out and counted.
    """

    name: Literal["adam", "adamw", "galore"] = "adamw"
    lr: Positive = 2e-3
    weight_decay: NotNegative = 0.02
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8
    pattern: Annotated[tuple[str, ...], Field(min_length=1)] = (r"attn\.qkv$", r"attn\.proj$")
    rank: Count = 128
    projection: Literal["svd", "srft", "srft-released", "gaussian", "dct", "random-columns", "none"] = "srft"
    side: Literal["auto", "reverse", "left", "right"] = "auto"
    scale: Positive = 1.0
    update_interval: Count = 50
    moments: Literal["keep", "project", "reset"] = "keep"
    oversampling: Annotated[int, Field(ge=0)] = 0
    power: Annotated[int, Field(ge=0)] = 1
    oversized: Literal["error", "adamw"] = "error"
    adapted: Count | None = None
    skip_limit: Annotated[int, Field(ge=0)] = 10

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_pattern(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Optimiser:
        foreign = sorted(GALORE_KEYS & self.model_fields_set)
        if self.name != "galore" and foreign:
            raise ValueError(f"'{foreign[0]}' belongs to the optimiser 'galore', and this one is '{self.name}'")
        return self

    @model_serializer(mode="wrap")
    def _own(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the keys of another optimiser: what is printed can be read again."""
        values: dict[str, object] = handler(self)
        return values if self.name == "galore" else {k: v for k, v in values.items() if k not in GALORE_KEYS}


GALORE_KEYS = frozenset(Optimiser.model_fields) - {"name", "lr", "weight_decay", "betas", "eps"}
"""Keys that only GaLore has."""


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


class PolynomialSchedule(Section):
    """Linear rise over ``warm_up`` of the steps (or over ``warm_up_steps``), then ``(1 - progress) ** power`` to 0."""

    kind: Literal["polynomial"] = "polynomial"
    warm_up: Share = 0.0
    warm_up_steps: Count | None = None
    power: Positive = 0.9


Schedule = Annotated[
    ConstantSchedule | StepSchedule | CosineSchedule | OneCycleSchedule | PolynomialSchedule,
    Field(discriminator="kind"),
]
