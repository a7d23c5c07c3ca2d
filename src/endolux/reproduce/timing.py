"""What a network costs: parameters, multiplications, seconds as the thesis took them and as they should be taken."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from endolux.io.tables import write_json_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMING_FILE = "timing.json"
LEGACY_BATCH = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of one architecture.

    Attributes:
        parameters: trainable ones.
        macs: multiply-accumulates of convolutions and linear layers for one picture.
        legacy_s: seconds of each round as published: a batch of two, new noise, autograd on (D-13).
        single_s: seconds of each round of one picture without autograd.
        extra: seconds of each round of what else was timed, by name.
        counts: numbers that belong to it, by name.
    """

    parameters: int
    macs: int
    legacy_s: tuple[float, ...]
    single_s: tuple[float, ...]
    extra: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def times(self, name: str = "") -> tuple[float, ...]:
        """Seconds of each round: of ``legacy_s``, or of one of ``extra``."""
        return self.extra.get(name, ()) if name else self.legacy_s


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int
    height: int
    rounds: int
    threads: int
    torch: str
    costs: dict[str, Cost]


def measure(
    architectures: Sequence[str],
    *,
    width: int,
    height: int,
    rounds: int,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Cost]:
    """Time networks with fresh weights, float32, on the CPU with torch's own number of threads.

    In every round each network has its turn, so that a load from outside meets all of them alike.

    Args:
        architectures: names for :func:`endolux.models.create`.
        width: of the pictures, pixels.
        height: of the pictures, pixels.
        rounds: times taken; one more round before them is not counted.
        on_progress: told in a line.

    Example:
        >>> cost = measure(["leve-3x3"], width=64, height=64, rounds=2)["leve-3x3"]
        >>> cost.parameters, len(cost.legacy_s)
        (5755537, 2)
    """
    import torch

    from endolux.models import create

    networks = {name: create(name).eval() for name in architectures}
    counts = {name: count_macs(network, width=width, height=height) for name, network in networks.items()}
    legacy: dict[str, list[float]] = {name: [] for name in networks}
    single: dict[str, list[float]] = {name: [] for name in networks}
    generator = torch.Generator().manual_seed(0)
    for number in range(rounds + 1):
        for name, network in networks.items():
            pair = torch.randn(LEGACY_BATCH, 3, height, width, generator=generator)
            with torch.enable_grad():
                legacy[name].append(_seconds(network, pair))
            with torch.inference_mode():
                single[name].append(_seconds(network, pair[:1]))
        if on_progress is not None:
            on_progress(f"timing: round {number} of {rounds}")
    return {
        name: Cost(
            parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
            macs=counts[name],
            legacy_s=tuple(legacy[name][1:]),
            single_s=tuple(single[name][1:]),
        )
        for name, network in networks.items()
    }


def measured_once(
    folder: Path,
    architectures: Sequence[str],
    *,
    width: int,
    height: int,
    rounds: int,
    on_progress: Callable[[str], None] | None = None,
    take: Callable[[], dict[str, Cost]] | None = None,
) -> dict[str, Cost]:
    """As :func:`measure`, kept in ``timing.json`` of the folder; ``take`` measures something else by these names."""
    import torch

    path = folder / TIMING_FILE
    wanted = {"width": width, "height": height, "rounds": rounds}
    try:
        found = _Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        found = None
    same = (
        found is not None and found.model_dump(include=set(wanted)) == wanted and set(found.costs) == {*architectures}
    )
    if found is not None and same:
        return found.costs
    if take is None:
        costs = measure(architectures, width=width, height=height, rounds=rounds, on_progress=on_progress)
    else:
        costs = take()
    record = _Record(
        width=width,
        height=height,
        rounds=rounds,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        costs=costs,
    )
    write_json_atomic(path, record)
    return costs


def timing_threads(folder: Path) -> int | None:
    """Threads that the kept times were taken with; None where none are kept."""
    try:
        return int(json.loads((folder / TIMING_FILE).read_text(encoding="utf-8"))["threads"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def count_macs(network: nn.Module, *, width: int, height: int) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one picture.

    Example:
        >>> import torch
        >>> count_macs(torch.nn.Conv2d(3, 8, 3, padding=1), width=16, height=16) == 16 * 16 * 8 * 3 * 9
        True
    """
    import torch
    from torch import nn

    total = 0

    def convolution(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        kernel = module.get_parameter("weight")
        total += output.numel() * kernel[0].numel()

    hooks = [
        module.register_forward_hook(convolution)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    before = network.training
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, height, width))
    finally:
        network.train(before)
        for hook in hooks:
            hook.remove()
    return total


def middle(seconds: Sequence[float]) -> float:
    """Median of the rounds.

    Example:
        >>> middle([3.0, 1.0, 2.0])
        2.0
    """
    return statistics.median(seconds)


def _seconds(network: nn.Module, images: Tensor) -> float:
    started = time.perf_counter()
    network(images)
    return time.perf_counter() - started
