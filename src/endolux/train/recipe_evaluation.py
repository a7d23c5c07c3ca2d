"""The sections of a recipe about scores while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from endolux.train.recipe_section import Count, NotNegative, Section


class ProtocolRun(Section):
    """A named protocol and the data it scores.

    Attributes:
        name: from ``endolux data ls``.
        data: folder of its data set.
        limit: score the first so many frames only.
    """

    name: str
    data: Path
    limit: Count | None = None


class EarlyStop(Section):
    """Stop when ``patience`` evaluations in a row did not better the best by ``minimum_gain``."""

    patience: Count
    minimum_gain: NotNegative = 0.0


class Evaluation(Section):
    """When and on what the network is scored while it trains.

    Attributes:
        protocols: scored as ``endolux evaluate`` does.
        every: steps; once an epoch by default.
        metric: decides the best checkpoint; ``validation/abs_rel`` or ``PROTOCOL/METRIC``.
        goal: whether less or more of it is better.
        early_stop: None trains to the end.
        mean: ``reproduce`` divides the sum of the batch losses by their number plus one, as Leve's log does (D-29).
    """

    protocols: tuple[ProtocolRun, ...] = ()
    every: Count | None = None
    metric: str = "validation/abs_rel"
    goal: Literal["min", "max"] = "min"
    early_stop: EarlyStop | None = None
    mean: Literal["correct", "reproduce"] = "correct"
