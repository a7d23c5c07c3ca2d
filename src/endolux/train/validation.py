"""What a network is worth while it trains: held-out samples, and named protocols."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from endolux.errors import UsageError
from endolux.models import DepthNetwork
from endolux.models.landmark_network import ExportedNetwork, LandmarkNetwork
from endolux.prep.content_area import find_content_area
from endolux.prep.network_input import network_input, restore
from endolux.runtime.card import Preprocessing
from endolux.train.recipe_errors import nearest
from endolux.types import DepthKind, DepthMap, Frame

if TYPE_CHECKING:
    from endolux.train.recipe import Evaluation, ProtocolRun
    from endolux.train.task import Batch, Task


@torch.no_grad()
def validate(
    task: Task,
    network: ExportedNetwork,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    reproduce_mean: bool = False,
) -> dict[str, float]:
    """Depth errors and the task's own figures over held-out batches.

    Metric networks are scored as they are, others after the median of each image is made equal. Every figure is a
    mean over images; images without known depth have none. Of a network that gives no depth, what the task's
    ``examine`` says.

    Args:
        task: gives tensors, and figures such as ``loss``.
        network: in evaluation mode, on ``device``.
        batches: held-out samples.
        device: where the network is.
        reproduce_mean: divide the sum of the task's figures over batches by their number plus one (D-29).

    Returns:
        ``abs_rel``, ``rmse`` (mm), ``delta1`` and the task's figures.
    """
    if isinstance(network, LandmarkNetwork):
        return dict(task.examine(network, (task.prepare(batch, device) for batch in batches)))
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    batches_seen = 0
    for batch in batches:
        batches_seen += 1
        tensors = task.prepare(batch, device)
        for name, value in task.validation(network, tensors).items():
            count = 1 if reproduce_mean else len(batch.images)
            sums[name] = sums.get(name, 0.0) + float(value) * count
            weights[name] = weights.get(name, 0.0) + count
        with task.autocast():
            predicted = network.depth(tensors["image"])
        for row in _errors(predicted.float().cpu().numpy(), batch.depths, align=network.kind is not DepthKind.METRIC):
            for name, number in row.items():
                sums[name] = sums.get(name, 0.0) + number
                weights[name] = weights.get(name, 0.0) + 1
    depth_errors = ("abs_rel", "rmse", "delta1")
    if reproduce_mean:
        weights = {name: count if name in depth_errors else batches_seen + 1.0 for name, count in weights.items()}
    return {name: sums[name] / weights[name] for name in sums}


def _errors(predicted: np.ndarray, depths: np.ndarray, *, align: bool) -> Iterable[dict[str, float]]:
    for output, depth in zip(predicted[:, 0], depths, strict=True):
        known = np.isfinite(depth) & (depth > 0)
        if not known.any():
            continue
        guess, truth = output[known].astype(np.float64), depth[known].astype(np.float64)
        if align:
            guess = guess * (np.median(truth) / max(float(np.median(guess)), 1e-9))
        guess = np.maximum(guess, 1e-6)
        yield {
            "abs_rel": float(np.mean(np.abs(guess - truth) / truth)),
            "rmse": float(np.sqrt(np.mean((guess - truth) ** 2))),
            "delta1": float(np.mean(np.maximum(guess / truth, truth / guess) < 1.25)),
        }


class NetworkPredictor:
    """A network in training as :func:`endolux.evaluate.run_protocol` asks for it.

    Args:
        network: in evaluation mode.
        size: (width, height) it works near.
        device: where it is.
        stretch: whether it was trained on pictures stretched to that size, whatever their aspect.
    """

    def __init__(
        self, network: DepthNetwork, *, size: tuple[int, int], device: torch.device, stretch: bool = False
    ) -> None:
        self.name, self.kind = network.architecture, network.kind
        self.provenance: Mapping[str, str | float | None] = {"type": "network", "name": network.architecture}
        self._network, self._device = network, device
        multiple = network.multiple
        width, height = (max(multiple, round(side / multiple) * multiple) for side in size)
        self._spec = Preprocessing(
            height=height, width=width, multiple=multiple, resize="stretch" if stretch else "keep-aspect"
        )

    @torch.inference_mode()
    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Depth of a frame, through the same preprocessing as every bundle."""
        image = frame.image
        height, width = image.shape[:2]
        area = find_content_area(image)
        mask = area.mask(width, height)
        ready = network_input(image, valid=mask, bbox=area.bbox, spec=self._spec)
        pixels = torch.from_numpy(np.array(ready.array)).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        depth = self._network.depth(pixels).float().cpu().numpy()
        return DepthMap(values=restore(depth[0, 0], ready, size=(width, height)), kind=self.kind, valid=mask)


def run_protocols(
    runs: Sequence[ProtocolRun],
    network: DepthNetwork,
    *,
    size: tuple[int, int],
    device: torch.device,
    stretch: bool = False,
) -> dict[str, float]:
    """Figures of named protocols as ``PROTOCOL/METRIC``.

    Raises:
        EndoluxError: what ``endolux evaluate`` raises for the same data.
    """
    from endolux.datasets import get_protocol, open_dataset
    from endolux.evaluate import run_protocol, select_frames
    from endolux.evaluate.averages import figures

    scores: dict[str, float] = {}
    predictor = NetworkPredictor(network, size=size, device=device, stretch=stretch)
    for run in runs:
        protocol = get_protocol(run.name)
        dataset = open_dataset("auto" if protocol.dataset in ("any", "*") else protocol.dataset, run.data)
        result = run_protocol(predictor, dataset, protocol, select_frames(dataset, protocol), limit=run.limit)
        for name, figure in figures(result.frames, averaging=protocol.averaging, resamples=1).items():
            scores[f"{protocol.name}/{name}"] = figure.mean
    return scores


def check_protocols(runs: Sequence[ProtocolRun], network: ExportedNetwork) -> None:
    """Refuse protocols that cannot be run, before hours are spent on training.

    Raises:
        UsageError: ``protocol.unknown``, ``align.kind``; InputError: no such data.
    """
    from endolux.datasets import get_protocol, open_dataset
    from endolux.evaluate import select_frames
    from endolux.evaluate.scoring import check_protocol

    for run in runs:
        protocol = get_protocol(run.name)
        if isinstance(network, LandmarkNetwork):
            raise UsageError(
                f"The protocol '{run.name}' with '{network.architecture}'",
                why="Protocols score depth while a network trains, and this one gives landmarks.",
                fix="Use data.validation; 'endolux evaluate' scores the masks of 'endolux segment'.",
                error_id="recipe.protocols",
            )
        check_protocol(protocol, prediction_kind=network.kind)
        select_frames(
            open_dataset("auto" if protocol.dataset in ("any", "*") else protocol.dataset, run.data), protocol
        )


class Best:
    """Which evaluation was the best, and whether it is time to stop.

    Args:
        settings: section of a recipe.
        state: from :meth:`state` of an interrupted run.
    """

    def __init__(self, settings: Evaluation, state: Mapping[str, object] | None = None) -> None:
        self._settings = settings
        state = state or {}
        value, step, waited = state.get("value"), state.get("step"), state.get("waited")
        self.value = float(value) if isinstance(value, int | float) else None
        self.step = step if isinstance(step, int) else None
        self._waited = waited if isinstance(waited, int) else 0

    def state(self) -> dict[str, object]:
        """JSON values to go on from."""
        return {"value": self.value, "step": self.step, "waited": self._waited}

    def update(self, scores: Mapping[str, float], step: int) -> bool:
        """Take an evaluation in. True where it is the best so far.

        Raises:
            UsageError: ``recipe.metric`` where the recipe's metric is not among the scores.
        """
        settings = self._settings
        if settings.metric not in scores:
            near = nearest(settings.metric, scores)
            raise UsageError(
                f"No metric '{settings.metric}' was measured",
                why=f"There are: {', '.join(sorted(scores))}.",
                fix=f"Set evaluation.metric to one of them{f', such as {near}' if near else ''}.",
                error_id="recipe.metric",
            )
        value = scores[settings.metric]
        gain = math.inf if self.value is None else (self.value - value) * (1 if settings.goal == "min" else -1)
        if math.isnan(value):
            gain = -math.inf
        stop = settings.early_stop
        better = gain > 0
        # Small gains are kept as the best, and still count as waiting.
        self._waited = 0 if gain > (stop.minimum_gain if stop else 0.0) else self._waited + 1
        if better:
            self.value, self.step = value, step
        return better

    @property
    def exhausted(self) -> bool:
        """Whether the recipe's patience has run out."""
        stop = self._settings.early_stop
        return stop is not None and self._waited >= stop.patience
