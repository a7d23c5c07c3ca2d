"""The section of a recipe about what of a pretrained transformer is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from endolux.train.recipe_section import Count, Positive, Section

_BRANCHES = ("lora", "vector-lora", "dora", "dv-lora")


class Adapt(Section):
    """What is trained (:class:`endolux.adapt.lora.Adaptation`).

    Attributes:
        kind: ``full``: every weight; ``head-only``: decoder and head; ``last-blocks``: these and the last ``blocks``
            blocks; ``lora``: low-rank branches of one rank; ``vector-lora``: DARES's ranks; ``dora``: the same with
            learned magnitudes; ``dv-lora``: EndoDAC's.
        ranks: of every block, or one for all; by default those of the kind.
        targets: layers of a block with branches; q and v by default, fc1 and fc2 for dv-lora.
        scaling: factor of a branch.
        dropout: before a branch.
        blocks: of last-blocks.
        decoder: what is trained outside the transformer.
        vectors: U and V of dv-lora: trained, or fixed as EndoDAC's code leaves them.
        modules, parameters, trainable: numbers that must come out; the run is refused otherwise.
    """

    kind: Literal["full", "head-only", "last-blocks", "lora", "vector-lora", "dora", "dv-lora"] = "full"
    ranks: tuple[Count, ...] | None = None
    targets: tuple[Literal["q", "k", "v", "o", "fc1", "fc2"], ...] | None = None
    scaling: Positive = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    blocks: Count = 4
    decoder: Literal["all", "head", "none"] = "all"
    vectors: Literal["trained", "fixed"] = "trained"
    modules: Count | None = None
    parameters: Count | None = None
    trainable: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> Adapt:
        if self.kind not in _BRANCHES and (self.ranks is not None or self.targets is not None):
            raise ValueError(f"ranks and targets belong to {', '.join(_BRANCHES)}, and the kind is {self.kind}")
        return self

    def config(self) -> dict[str, object]:
        """For :meth:`endolux.adapt.lora.Adaptation.from_config`."""
        return self.model_dump(mode="json", exclude_none=True)
