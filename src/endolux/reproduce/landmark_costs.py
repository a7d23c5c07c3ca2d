"""What training a network of landmarks costs in every row: what is adapted and kept, and how long a step takes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from endolux.adapt.shapes import is_projected, matrix_shape, state_scalars
from endolux.reproduce.grid import Row, Scale
from endolux.reproduce.landmark_names import ADAPTED, MATRICES, REFRESH, STATE, STEP, TRAINED, WIDE
from endolux.reproduce.plan import row_overrides
from endolux.reproduce.timing import Cost, count_macs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from endolux.train.recipe import Recipe
    from endolux.train.task import Task

_WIDE, _WIDE_RANK = (1728, 576), 128
_FLOAT = 4


@dataclasses.dataclass(slots=True, eq=False)
class _Subject:
    recipe: Recipe
    task: Task
    network: nn.Module
    optimiser: torch.optim.Optimizer
    counts: dict[str, int]
    seconds: dict[str, list[float]]


def measure_training(
    rows: Sequence[Row], scale: Scale, *, on_progress: Callable[[str], None] | None = None
) -> dict[str, Cost]:
    """Time the training steps of rows of landmarks, float32, with random pictures of the timing's size.

    In every round each row has its turn, so that a load from outside meets all of them alike. ``legacy_s`` is a step
    with its share of a refresh, as a training pays it. Where the scale's timing says ``steps: false``, sizes are
    counted and only new bases are timed: the networks of the published size do not fit beside each other.

    Args:
        rows: those of landmarks.
        scale: settings of all of them.
        on_progress: told in a line.
    """
    import torch

    timing = scale.timing
    subjects = {row.name: _subject(row, scale) for row in rows}
    generator = torch.Generator().manual_seed(0)
    wide = _decaying(generator)
    for number in range(timing.rounds + 1):
        for subject in subjects.values():
            if timing.steps:
                tensors = _pictures(subject.recipe.batch, timing.width, timing.height, generator)
                _add(subject.seconds, STEP, _seconds(lambda s=subject, t=tensors: _step(s, t)))  # type: ignore[misc]
                with torch.inference_mode():
                    subject.network.eval()
                    _add(subject.seconds, "", _seconds(lambda s=subject, t=tensors: s.network(t["image"][:1])))  # type: ignore[misc]
                    subject.network.train()
            if subject.recipe.optimiser.name == "galore":
                _refresh(subject, wide, generator)
        if on_progress is not None:
            on_progress(f"timing: round {number} of {timing.rounds}")
    return {
        name: _cost(subject, timing.width, timing.height, counted=timing.steps) for name, subject in subjects.items()
    }


def _subject(row: Row, scale: Scale) -> _Subject:
    import torch

    from endolux.train.optimisers import build_optimiser
    from endolux.train.recipe import load_recipe
    from endolux.train.tasks import build_task

    recipe = load_recipe(row.recipe, (*row_overrides(row, scale, 0, None), "segmentation=null"))
    with torch.device("cpu" if scale.timing.steps else "meta"):
        torch.manual_seed(0)
        task = build_task(recipe)
    network = task.networks[task.exported]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = build_optimiser(trained, recipe.optimiser, fused=scale.timing.steps, module=network, seed=recipe.seed)
    encoder = network.get_submodule("image_encoder")
    adapted = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return _Subject(
        recipe,
        task,
        network.train(),
        optimiser,
        {
            TRAINED: sum(p.numel() for p in trained),
            ADAPTED: sum(p.numel() for p in adapted),
            MATRICES: sum(p.ndim >= 2 for p in adapted),
            STATE: _state_bytes(optimiser),
        },
        {},
    )


def _state_bytes(optimiser: torch.optim.Optimizer) -> int:
    """Two moments of every parameter, and the bases; without counters."""
    numbers = 0
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if _projected(parameter, group):
                numbers += state_scalars(matrix_shape(parameter), group["rank"], group["side"])
            else:
                numbers += 2 * parameter.numel()
    return _FLOAT * numbers


def _projected(parameter: Tensor, group: Mapping[str, Any]) -> bool:
    return "projection" in group and is_projected(parameter, group["rank"], group["projection"], group["side"])


def _step(subject: _Subject, tensors: dict[str, Tensor]) -> None:
    subject.optimiser.zero_grad(set_to_none=True)
    subject.task.updates()[0].loss(tensors)["total"].backward()  # type: ignore[no-untyped-call]
    subject.optimiser.step()


def _refresh(subject: _Subject, wide: Tensor, generator: torch.Generator) -> None:
    import torch

    from endolux.adapt import projection

    settings = subject.recipe.optimiser
    gradients = [
        (
            torch.randn(matrix_shape(parameter), generator=generator)
            if parameter.grad is None
            else parameter.grad.reshape(matrix_shape(parameter))
        )
        for group in subject.optimiser.param_groups
        for parameter in group["params"]
        if _projected(parameter, group)
    ]

    def bases(matrices: Sequence[Tensor], rank: int) -> None:
        for matrix in matrices:
            projection(
                matrix,
                rank,
                settings.projection,
                generator,
                side=settings.side,
                oversampling=settings.oversampling,
                power=settings.power,
            )

    if settings.projection != "none":
        _add(subject.seconds, REFRESH, _seconds(lambda: bases(gradients, settings.rank)))
        _add(subject.seconds, WIDE, _seconds(lambda: bases([wide], _WIDE_RANK)))


def _cost(subject: _Subject, width: int, height: int, *, counted: bool) -> Cost:
    # The first round warms up, and takes the first basis.
    seconds = {name: tuple(values[1:]) for name, values in subject.seconds.items()}
    steps = seconds.get(STEP, ())
    shares = [value / subject.recipe.optimiser.update_interval for value in seconds.get(REFRESH, [0.0] * len(steps))]
    return Cost(
        parameters=sum(parameter.numel() for parameter in subject.network.parameters()),
        macs=count_macs(subject.network, width=width, height=height) if counted else 1,
        legacy_s=tuple(step + share for step, share in zip(steps, shares, strict=False)),
        single_s=seconds.pop("", ()),
        extra=seconds,
        counts=subject.counts,
    )


def _pictures(batch: int, width: int, height: int, generator: torch.Generator) -> dict[str, Tensor]:
    import torch

    return {
        "image": torch.rand(batch, 3, height, width, generator=generator),
        "landmarks": torch.randint(0, 4, (batch, height, width), generator=generator, dtype=torch.uint8),
        "inverse_depth": torch.rand(batch, height, width, generator=generator),
    }


def _decaying(generator: torch.Generator) -> Tensor:
    """A matrix whose singular values fall as 1/i, as those of gradients do."""
    import torch

    rows, columns = _WIDE
    left = torch.linalg.qr(torch.randn(rows, columns, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    matrix: Tensor = (left / torch.arange(1, columns + 1)) @ right.T
    return matrix


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _add(seconds: dict[str, list[float]], name: str, value: float) -> None:
    seconds.setdefault(name, []).append(value)
