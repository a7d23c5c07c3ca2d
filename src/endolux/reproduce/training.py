"""From a job to a trained network that predicts frames: the only place that knows the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np
import torch

from endolux.evaluate.predictors import Predictor
from endolux.models.base import DepthNetwork
from endolux.models.landmark_network import ExportedNetwork, LandmarkNetwork
from endolux.models.ratio import RatioNetwork, from_ratio
from endolux.prep.network_input import network_input, restore
from endolux.reproduce.job import REAL_PROTOCOL, RELATIVE_PROTOCOL, RUN_FOLDER, SHAPE_PROTOCOL, Job
from endolux.reproduce.landmark_training import NetworkMasks
from endolux.reproduce.untrained import scored_as_it_is
from endolux.reproduce.video_training import Traveller, run_odometer
from endolux.reproduce.worker import Trained, recipe_sha256
from endolux.runtime.card import Preprocessing
from endolux.train.recipe import Recipe, load_recipe
from endolux.types import DepthKind, DepthMap, Frame


class NetworkPredictor:
    """A network of torch as what protocols score: stretched to its size, metric depth in millimetres.

    Args:
        network: in evaluation mode.
        name: for reports.
        size: (width, height) of its input; None for the frame's own.
        conversion: of ratios to depth, ``correct`` or ``reproduce``.
        keep_aspect: see pictures of another shape at about this size with their own aspect.

    Attributes:
        ratio_maximum_mm: depth where the network's ratio is 1; protocols with another largest depth scale by it.
    """

    def __init__(
        self,
        network: DepthNetwork,
        *,
        name: str,
        size: tuple[int, int] | None = None,
        conversion: str = "correct",
        keep_aspect: bool = False,
    ) -> None:
        self._resize: Literal["keep-aspect", "stretch"] = "keep-aspect" if keep_aspect else "stretch"
        self._network = network.eval()
        self._size, self._conversion = size, conversion
        self.name = name
        # Medians are made equal where a depth is known up to a factor only; disparity is no depth.
        self.kind = network.kind if network.kind is DepthKind.RELATIVE_DISPARITY else DepthKind.METRIC
        self.ratio_maximum_mm = network.max_depth_mm if isinstance(network, RatioNetwork) else None
        self.provenance: Mapping[str, str | float | None] = {"type": "network", "name": network.architecture}

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Depth of the frame at its own size."""
        width, height = self._size or frame.size
        spec = Preprocessing(
            height=height, width=width, multiple=self._network.multiple, layout="nchw-float32", resize=self._resize
        )
        source = network_input(frame.image, spec=spec)
        with torch.inference_mode():
            image = torch.from_numpy(source.array).to(next(self._network.parameters()).device)
            if self._conversion == "reproduce" and isinstance(self._network, RatioNetwork):
                depth = from_ratio(self._network(image), self._network.max_depth_mm, reproduce=True)
            else:
                depth = self._network.depth(image)
        values = restore(np.ascontiguousarray(depth[0, 0].float().cpu().numpy()), source)
        return DepthMap(values=values.astype(np.float32), kind=self.kind, valid=np.ones(values.shape, np.bool_))


def train(job: Job) -> Trained:
    """Train by the job's recipe in the job's folder, going on where an earlier attempt stopped.

    A job with a model trains nothing.

    Raises:
        EndoluxError: as the engine.
    """
    from endolux.train.checkpoints import load_exported
    from endolux.train.engine import fit

    if job.threads is not None:
        torch.set_num_threads(job.threads)
        cv2.setNumThreads(job.threads)
    if job.model:
        return scored_as_it_is(job.model, as_it_is=any(test.protocol == RELATIVE_PROTOCOL for test in job.tests))
    recipe = load_recipe(job.recipe, job.overrides)
    folder = job.folder / RUN_FOLDER
    fit(None, recipe, None, folder, resume=True)
    network, state = load_exported(folder)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(
        predictor=_predictor(network, recipe, job),
        recipe_sha256=recipe_sha256(recipe),
        steps=state.step,
        images=state.step * recipe.batch * recipe.accumulate,
    )


def _predictor(network: ExportedNetwork, recipe: Recipe, job: Job) -> Predictor | NetworkMasks:
    if isinstance(network, LandmarkNetwork):
        if recipe.data.size is None:
            raise TypeError("a recipe of landmarks says the size of its pictures")
        return NetworkMasks(network, size=recipe.data.size)
    predictor = NetworkPredictor(
        network,
        name=job.name,
        size=recipe.data.size,
        conversion=job.conversion,
        # Loose real frames come in all shapes, and a squeezed scene has another depth.
        keep_aspect=any(test.protocol in (SHAPE_PROTOCOL, REAL_PROTOCOL) for test in job.tests),
    )
    odometer = None if recipe.video is None else run_odometer(job.folder / RUN_FOLDER, network, recipe.data.size)
    return predictor if odometer is None else Traveller(predictor, odometer)
