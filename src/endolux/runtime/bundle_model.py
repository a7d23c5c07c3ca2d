"""What every model from a bundle has in common: the bundle on an engine, and a frame made ready for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.prep.content_area import ContentArea, find_content_area
from endolux.prep.network_input import NetworkInput, network_input
from endolux.runtime.bundles import load_bundle
from endolux.runtime.engines import Engine
from endolux.runtime.licences import require_commercial
from endolux.types import Bundle, Frame, MaskArray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PreparedFrame:
    """A frame ready for the engine; ``source`` is None where nothing in it is valid."""

    frame: Frame
    valid: MaskArray
    source: NetworkInput | None


class BundleModel:
    """A bundle on an engine.

    Attributes:
        bundle: the bundle, hashes checked.
        engine: what computes.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle, self.engine = bundle, engine

    @property
    def name(self) -> str:
        """Name from the card."""
        return self.bundle.name

    def describe(self) -> dict[str, str | int]:
        """What a record says: model, hash of its card, engine, its version, precision, threads."""
        return {
            "model": self.bundle.name,
            "card_sha256": self.bundle.card_sha256,
            "engine": self.engine.name,
            "engine_version": self.engine.version,
            "precision": self.engine.precision,
            "threads": self.engine.threads,
        }

    def _prepare(self, frame: Frame | npt.NDArray[np.uint8], area: ContentArea | None) -> PreparedFrame:
        """The engine's input inside a content area: a given one, or the frame's own mask, or else what is found."""
        frame = frame if isinstance(frame, Frame) else Frame(image=np.asarray(frame))
        width, height = frame.size
        spec = self.bundle.card.preprocessing
        if area is None and frame.valid is not None:
            source = network_input(frame.image, valid=frame.valid, spec=spec) if frame.valid.any() else None
            return PreparedFrame(frame, frame.valid, source)
        area = area if area is not None else find_content_area(frame.image)
        valid = area.mask(width, height)
        if area.shape == "none":
            return PreparedFrame(frame, valid, None)
        mask, box = None if area.is_plain else valid, area.scaled_bbox(width, height)
        return PreparedFrame(frame, valid, network_input(frame.image, valid=mask, bbox=box, spec=spec))


def open_bundle(name: str | Path, *, commercial: bool) -> Bundle:
    """The bundle of a name or folder, hashes checked; with ``commercial`` only one whose licence allows that.

    Raises:
        ModelError: no such model, a damaged bundle; ``model.licence`` with ``commercial``.

    Example:
        >>> open_bundle("no-such-model", commercial=False)
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[model.missing]: No model 'no-such-model'
        ...
    """
    bundle = load_bundle(name)
    if commercial:
        require_commercial(bundle.name, bundle.card.licence)
    return bundle
