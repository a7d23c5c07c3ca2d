"""What adapting a pretrained network costs in every row: what of it is trained, and how long a step takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from endolux.reproduce.grid import Row, Scale
from endolux.reproduce.plan import row_overrides
from endolux.reproduce.timing import Cost, count_macs

if TYPE_CHECKING:
    from torch import Tensor

TRAINED, STEP = "trained parameters", "step"


def measure_adaptation(
    rows: Sequence[Row], scale: Scale, *, on_progress: Callable[[str], None] | None = None
) -> dict[str, Cost]:
    """Time training steps of the rows' networks, float32, on the CPU with torch's own number of threads.

    In every round each row has its turn, so that a load from outside meets all of them alike. ``legacy_s`` is a step:
    a batch forth and back and the optimiser's update; ``single_s`` one picture without autograd. A step on video is
    that of depth and motion, which comes last.

    Args:
        rows: those that are trained.
        scale: settings of all of them.
        on_progress: told in a line.
    """
    import torch

    from endolux.train.optimisers import build_optimiser
    from endolux.train.recipe import load_recipe
    from endolux.train.tasks import build_task

    timing = scale.timing
    subjects = {}
    for row in rows:
        recipe = load_recipe(row.recipe, row_overrides(row, scale, 0, None))
        torch.manual_seed(0)
        task = build_task(recipe)
        network = task.networks[task.exported]
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimiser = build_optimiser(trained, recipe.optimiser, fused=True, module=network, seed=recipe.seed)
        subjects[row.name] = (recipe, task, network, optimiser, trained)
    steps: dict[str, list[float]] = {name: [] for name in subjects}
    single: dict[str, list[float]] = {name: [] for name in subjects}
    generator = torch.Generator().manual_seed(0)
    for number in range(timing.rounds + 1):
        for name, (recipe, task, network, optimiser, _) in subjects.items():
            size = (recipe.batch if timing.steps else 1), 3, timing.height, timing.width
            image = torch.rand(size, generator=generator)
            tensors = {"image": image, "depth": 50.0 + 50.0 * torch.rand(size, generator=generator)[:, :1]}
            if recipe.video is not None:
                tensors |= _neighbours(image, len(recipe.video.offsets))
            if timing.steps:
                network.train()
                began = time.perf_counter()
                task.updates()[-1].loss(tensors)["total"].backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                optimiser.zero_grad()
                steps[name].append(time.perf_counter() - began)
            network.eval()
            with torch.inference_mode():
                began = time.perf_counter()
                network(image[:1])
                single[name].append(time.perf_counter() - began)
        if on_progress is not None:
            on_progress(f"timing: round {number} of {timing.rounds}")
    return {
        name: Cost(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            macs=count_macs(network, width=timing.width, height=timing.height),
            legacy_s=tuple(steps[name][1:]),
            single_s=tuple(single[name][1:]),
            counts={TRAINED: sum(parameter.numel() for parameter in trained)},
        )
        for name, (_, _, network, _, trained) in subjects.items()
    }


def _neighbours(image: Tensor, count: int) -> dict[str, Tensor]:
    """What a step on video takes besides: neighbours that look alike, and a camera of 70 degrees."""
    height, width = image.shape[-2:]
    focal = 0.7 * width
    matrix = image.new_tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    neighbours = image[:, None].expand(-1, count, -1, -1, -1).contiguous()
    return {"neighbours": neighbours, "intrinsics": matrix.expand(len(image), 3, 3)}
