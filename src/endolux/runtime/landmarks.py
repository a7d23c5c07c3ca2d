"""The model of landmarks: frames in, classes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.errors import ModelError
from endolux.prep.content_area import ContentArea
from endolux.prep.network_input import restore
from endolux.runtime.bundle_model import BundleModel, open_bundle
from endolux.runtime.bundles import list_bundles
from endolux.runtime.card import LandmarkOutput
from endolux.runtime.engines import DEFAULT_ENGINE, Engine, create_engine
from endolux.types import Bundle, Frame, LandmarkMap

DEFAULT_LANDMARKS = "liver-landmarks"
"""The model of landmarks that is used by default, where the installation carries it."""


class LandmarkModel(BundleModel):
    """A bundle of landmarks on an engine.

    Attributes:
        bundle: the bundle, hashes checked.
        engine: what computes.
        classes: names of the classes, the background first.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        super().__init__(bundle, engine)
        self.classes = _output(bundle).classes

    def predict(self, frame: Frame | npt.NDArray[np.uint8], *, area: ContentArea | None = None) -> LandmarkMap:
        """Landmarks of one image.

        Args:
            frame: a frame, or H x W x 3 uint8 RGB.
            area: its content area; None means the frame's own mask, or else to find it.

        Returns:
            Classes at the size of the frame; background outside the content area.

        Raises:
            UsageError: ``frame.shape`` for anything but H x W x 3 uint8.
            DeviceError: ``device.memory``.
        """
        prepared = self._prepare(frame, area)
        (width, height), valid, source = prepared.frame.size, prepared.valid, prepared.source
        labels, best = np.zeros((height, width), np.uint8), np.ones((height, width), np.float32)
        if source is not None:
            planes = np.nan_to_num(self.engine.run(source.array)[0], nan=0.0)
            # The background is the class of what is unknown, and no plane of it is needed at full size.
            best = restore(np.ascontiguousarray(planes[0]), source)
            for number in range(1, len(planes)):
                plane = restore(np.ascontiguousarray(planes[number]), source)
                better = plane > best
                labels[better] = number
                np.copyto(best, plane, where=better)
            labels[~valid] = 0
        return LandmarkMap(labels=labels, classes=self.classes, probability=best, valid=valid)


def load_landmarks(
    name: str | Path = DEFAULT_LANDMARKS,
    *,
    engine: str = DEFAULT_ENGINE,
    precision: str = "exact",
    threads: int | None = None,
    commercial: bool = False,
) -> LandmarkModel:
    """Load a model of landmarks: a name from ``endolux models ls`` or the folder of a bundle.

    Args:
        name: name or folder.
        engine: "onnxruntime", or "openvino" with the extra of that name.
        precision: "exact" (float32) or "fast" (the engine chooses).
        threads: number of threads; None means every core this process may use.
        commercial: refuse a model whose licence is not known to allow commercial use.

    Raises:
        ModelError: no such model, a damaged bundle, or one of depth (``model.kind``); ``model.licence`` with
            ``commercial``.
        UsageError: unknown engine or precision.
        MissingExtraError: the engine is not installed.

    Example:
        >>> load_landmarks("no-such-model")
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[model.missing]: No model 'no-such-model'
        ...
    """
    if name == DEFAULT_LANDMARKS and name not in list_bundles() and not Path(name).is_dir():
        raise ModelError(
            "This installation carries no trained model of landmarks",
            why=f"The one that is used by default is called '{DEFAULT_LANDMARKS}'.",
            fix="Train and export one (docs/landmarks.md), and name its folder with --model.",
            error_id="model.missing",
        )
    bundle = open_bundle(name, commercial=commercial)
    _output(bundle)
    return LandmarkModel(bundle, create_engine(bundle, engine=engine, precision=precision, threads=threads))


def _output(bundle: Bundle) -> LandmarkOutput:
    output = bundle.card.output
    if not isinstance(output, LandmarkOutput):
        raise ModelError(
            f"The model '{bundle.name}' gives depth, not landmarks",
            why=f"Its card says: {output.text}.",
            fix="Use 'endolux predict' for depth, or give a model of landmarks ('endolux models ls').",
            error_id="model.kind",
        )
    return output
