"""Which reference pixels a protocol counts: its window and its range."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from endolux.datasets.base import Protocol
from endolux.errors import InputError, UsageError
from endolux.evaluate.quirks import STRICT_MAXIMUM
from endolux.types import DepthKind, DepthMap, MaskArray

MM_PER_UNIT: Mapping[str, float] = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Units that a protocol may state for metric depth."""


def reference_mask(truth: DepthMap, protocol: Protocol) -> tuple[MaskArray, int]:
    """H x W mask of the reference pixels that the protocol counts, and how many its range leaves out.

    Raises:
        InputError: ``evaluate.truth`` where a counted reference is not positive and finite.
    """
    per_unit = MM_PER_UNIT.get(protocol.unit, 1.0) if truth.kind is DepthKind.METRIC else 1.0
    low, high = protocol.minimum * per_unit, protocol.maximum * per_unit
    window = truth.valid
    if protocol.crop is not None or protocol.crop_pixels is not None:
        rows, columns = window_of(protocol, truth.values.shape)
        window = np.zeros_like(truth.valid)
        window[rows, columns] = truth.valid[rows, columns]
    below = truth.values < high if STRICT_MAXIMUM in protocol.reproduce else truth.values <= high
    counted = (truth.values > low) & below & window
    if low < 0 or not math.isfinite(high):
        bad = counted & ~((truth.values > 0) & np.isfinite(truth.values))
        if bad.any():
            raise InputError(
                f"{int(bad.sum())} reference values called valid are not positive and finite",
                why="Depth is positive; 0, NaN and infinity mean 'no value'.",
                fix="Run 'endolux data check' on the data; its reader should have left them out.",
                error_id="evaluate.truth",
            )
    return counted, int(np.count_nonzero(window)) - int(np.count_nonzero(counted))


def window_of(protocol: Protocol, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns that the protocol scores of an H x W reference.

    Raises:
        UsageError: ``protocol.settings`` where it states its window twice.
    """
    if protocol.crop is not None and protocol.crop_pixels is not None:
        raise unknown_setting("second window beside its first", ("crop", "crop_pixels"))
    if protocol.crop is not None:
        return crop_slices(protocol.crop, shape)
    top, bottom, left, right = protocol.crop_pixels or (0, shape[0], 0, shape[1])
    return slice(top, min(bottom, shape[0])), slice(left, min(right, shape[1]))


def crop_slices(crop: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a window given as fractions (top, bottom, left, right), cut off to whole pixels.

    Example:
        >>> crop_slices((20 / 480, 460 / 480, 24 / 640, 616 / 640), (480, 640))
        (slice(20, 460, None), slice(24, 616, None))
    """
    height, width = shape
    top, bottom, left, right = crop
    # Fractions such as 20/480 come back a hair below their pixel.
    edges = [int(part * size + 1e-6) for part, size in ((top, height), (bottom, height), (left, width), (right, width))]
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])


def unknown_setting(what: str, known: tuple[str, ...]) -> UsageError:
    """The error for a protocol whose definition says something that the runner does not know."""
    return UsageError(
        f"The protocol states an unknown {what}",
        why=f"There are: {', '.join(known)}.",
        fix="Correct the definition of the protocol.",
        error_id="protocol.settings",
    )
