"""A network that learnt depth and motion from video, as what clips are scored with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from endolux.errors import UsageError
from endolux.evaluate.predictors import Predictor
from endolux.metrics.checks import Float64
from endolux.models.base import DepthNetwork
from endolux.models.odometry import Odometer
from endolux.runtime.card import Preprocessing
from endolux.train.checkpoints import newest, read_state
from endolux.train.odometry import run_pose
from endolux.types import DepthMap, Frame, ImageArray


class Traveller:
    """Depth of frames, and motion between those of a clip.

    Args:
        predictor: of depth.
        odometer: from frame to frame.
    """

    def __init__(self, predictor: Predictor, odometer: Odometer) -> None:
        self._predictor, self._odometer = predictor, odometer
        self.name, self.kind = predictor.name, predictor.kind
        self.provenance: Mapping[str, str | float | None] = predictor.provenance

    def predict(self, name: str, frame: Frame) -> DepthMap:
        """Depth of the frame at its own size."""
        return self._predictor.predict(name, frame)

    def motions(self, images: Sequence[ImageArray]) -> Float64:
        """See :class:`endolux.reproduce.trajectories.Odometry`."""
        # The later frame is the source: points of the earlier camera are mapped to the later one.
        return np.stack([self._odometer.motion(later, earlier) for earlier, later in itertools.pairwise(images)])


def run_odometer(run: Path, network: DepthNetwork, size: tuple[int, int] | None) -> Odometer | None:
    """The pose network of a finished run; None where it trained none.

    Args:
        run: folder of the run.
        network: its depth network, whose range of depths decides the unit of motions.
        size: (width, height) of its pictures.

    Raises:
        UsageError: ``recipe.video`` for a run whose pictures have no size.
        ModelError: damaged weights.
    """
    folder = newest(run)
    found = run_pose(folder, read_state(folder), network)
    if found is None:
        return None
    if size is None:
        raise UsageError(
            "A training on video without a size of its pictures",
            why="Its pose network is asked at the size that it has learnt at.",
            fix="Set data.size.",
            error_id="recipe.video",
        )
    spec = Preprocessing(width=size[0], height=size[1], multiple=1, resize="stretch")
    return Odometer(found[0], spec, unit=found[1])
