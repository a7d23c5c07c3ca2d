"""The model: frames in, depth maps out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from endolux.prep.content_area import ContentArea, ContentAreaTracker
from endolux.prep.network_input import NetworkInput, restore
from endolux.runtime.bundle_model import BundleModel, PreparedFrame, open_bundle
from endolux.runtime.bundles import DEFAULT_MODEL
from endolux.runtime.engines import DEFAULT_ENGINE, Batch, create_engine
from endolux.types import DepthKind, DepthMap, FloatArray, Frame

Other = TypeVar("Other")
_BATCH = 8


class Model(BundleModel):
    """A bundle on an engine.

    Attributes:
        bundle: the bundle, hashes checked.
        engine: what computes.

    Example:
        >>> model = load("repdepth-colon")  # doctest: +SKIP
        >>> depth = model.predict(np.zeros((720, 1280, 3), np.uint8))  # doctest: +SKIP
        >>> bool(depth.valid.any())  # a black frame has no depth  # doctest: +SKIP
        False
    """

    @property
    def kind(self) -> DepthKind:
        """Meaning of the depth this model gives."""
        return self.bundle.card.depth.kind

    def predict(self, frame: Frame | npt.NDArray[np.uint8], *, area: ContentArea | None = None) -> DepthMap:
        """Depth of one image.

        Args:
            frame: a frame, or H x W x 3 uint8 RGB.
            area: its content area; None means the frame's own mask, or else to find it.

        Returns:
            Depth at the size of the frame. Pixels outside the content area are invalid; in a black frame all are.

        Raises:
            UsageError: ``frame.shape`` for anything but H x W x 3 uint8.
            DeviceError: ``device.memory``.
        """
        prepared = self._prepare(frame, area)
        if prepared.source is None:
            return self._finish(prepared, None)
        return self._finish(prepared, self.engine.run(prepared.source.array)[0, 0])

    def predict_batch(self, frames: Sequence[Frame | npt.NDArray[np.uint8]]) -> list[DepthMap]:
        """Depth of several images, in their order; those that the network sees at one size are run together."""
        prepared = [self._prepare(frame, None) for frame in frames]
        groups: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
        for index, item in enumerate(prepared):
            if item.source is not None:
                groups[item.source.array.shape].append(index)
        outputs: dict[int, FloatArray] = {}
        for indices in groups.values():
            for start in range(0, len(indices), _BATCH):
                chunk = indices[start : start + _BATCH]
                values = self.engine.run(_joined([prepared[index].source for index in chunk]))
                outputs.update(zip(chunk, values[:, 0], strict=True))
        return [self._finish(item, outputs.get(index)) for index, item in enumerate(prepared)]

    def stream(
        self,
        frames: Iterable[Frame | Other],
        *,
        clip: bool | None = None,
        tracker: ContentAreaTracker | None = None,
    ) -> Iterator[tuple[Frame, DepthMap] | Other]:
        """Depth of one frame after the other, in constant memory.

        Args:
            frames: frames of a source; anything else in it (a ``Failure``) is passed on in its place.
            clip: True: the frames are one clip with one content area, which is found once and tracked; False: unrelated
                images. None decides by whether a frame has a time stamp.
            tracker: a tracker to use for the clip, for instance one that starts from the area of an earlier run.

        Yields:
            The frame, with its valid mask filled in, and its depth.
        """
        tracked = tracker if tracker is not None else ContentAreaTracker()
        for item in frames:
            if not isinstance(item, Frame):
                yield item
                continue
            in_clip = clip if clip is not None else item.pts_s is not None or tracker is not None
            area = tracked.update(item.image) if in_clip and item.valid is None else None
            depth = self.predict(item, area=area)
            yield dataclasses.replace(item, valid=depth.valid), depth

    def _finish(self, prepared: PreparedFrame, values: FloatArray | None) -> DepthMap:
        width, height = prepared.frame.size
        if prepared.source is None or values is None:
            blank = np.zeros((height, width), np.float32)
            return DepthMap(values=blank, kind=self.kind, valid=prepared.valid, camera=prepared.frame.camera)
        valid = prepared.valid
        if not np.isfinite(values).all():
            # What is not a number stays invalid at full size, with every pixel it would be mixed into.
            finite = np.isfinite(values)
            spread = restore(finite.astype(np.float32), prepared.source)
            valid = valid & (spread >= 1.0)
            values = np.where(finite, values, np.float32(0)).astype(np.float32)
        restored = restore(np.ascontiguousarray(values), prepared.source)
        return DepthMap(values=restored, kind=self.kind, valid=valid, camera=prepared.frame.camera)


def _joined(sources: Sequence[NetworkInput | None]) -> Batch:
    arrays = [source.array for source in sources if source is not None]
    whole = np.empty((len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    np.concatenate(arrays, out=whole)
    return whole


def load(
    name: str | Path = DEFAULT_MODEL,
    *,
    engine: str = DEFAULT_ENGINE,
    precision: str = "exact",
    threads: int | None = None,
    commercial: bool = False,
) -> Model:
    """Load a model: a name from ``endolux models ls`` or the folder of a bundle.

    Args:
        name: name or folder.
        engine: "onnxruntime", or "openvino" with the extra of that name.
        precision: "exact" (float32) or "fast" (the engine chooses).
        threads: number of threads; None means every core this process may use.
        commercial: refuse a model whose licence is not known to allow commercial use.

    Raises:
        ModelError: no such model, a damaged or unsuitable bundle; ``model.licence`` with ``commercial``.
        UsageError: unknown engine or precision.
        MissingExtraError: the engine is not installed.

    Example:
        >>> load("no-such-model")
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[model.missing]: No model 'no-such-model'
        ...
    """
    bundle = open_bundle(name, commercial=commercial)
    # Refuses models of landmarks before anything is computed.
    _ = bundle.card.depth
    return Model(bundle, create_engine(bundle, engine=engine, precision=precision, threads=threads))
