"""Learning-rate schedules: a factor on the rate, computed from where the run is and from nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endolux.train.recipe import Schedule


def rate_factor(schedule: Schedule, *, step: int, steps: int, epoch: int = 0, epochs: int = 1) -> float:
    """What the optimiser's rate is multiplied by in step ``step``.

    Args:
        schedule: section of a recipe.
        step: from 0.
        steps: of the whole run.
        epoch: pass over the data that the step belongs to, from 0.
        epochs: passes of the whole run, for schedules that change once a pass.

    Example:
        >>> from endolux.train.recipe import OneCycleSchedule, StepSchedule
        >>> schedule = OneCycleSchedule(warm_up=0.1)
        >>> [round(rate_factor(schedule, step=step, steps=100), 2) for step in (0, 9, 99)]
        [0.1, 1.0, 0.01]
        >>> [rate_factor(StepSchedule(), step=0, steps=9, epoch=epoch) for epoch in (4, 5)]
        [1.0, 0.1]
    """
    if schedule.kind == "step":
        return float(schedule.factor ** ((epoch if schedule.interval == "epoch" else step) // schedule.every))
    if schedule.kind == "cosine" and schedule.interval == "epoch":
        step, steps = epoch, epochs
    rising = round(schedule.warm_up * steps)
    if schedule.kind == "polynomial" and schedule.warm_up_steps is not None:
        # A run shorter than the warm-up would never reach its rate.
        rising = min(schedule.warm_up_steps, steps // 2)
    if schedule.kind == "one-cycle":
        rising = max(1, rising)
    if step < rising:
        return (step + 1) / rising
    if schedule.kind == "constant":
        return 1.0
    progress = min(1.0, (step - rising) / max(1, steps - rising))
    if schedule.kind == "polynomial":
        return float((1.0 - progress) ** schedule.power)
    return schedule.final + (1.0 - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
