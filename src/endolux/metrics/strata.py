"""Metrics by what a pixel shows: highlight, instrument or tissue."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from endolux.metrics.checks import BoolArray, NumberArray, boolean, same_shape, warn_empty
from endolux.metrics.depth import depth_metrics

Measure = Callable[[NumberArray, NumberArray, BoolArray], dict[str, float]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """The metrics of one part of a frame.

    Attributes:
        pixels: valid pixels in it.
        share: their share of the frame's valid pixels; NaN if there are none.
        metrics: name to value, NaN where the part is empty.
    """

    pixels: int
    share: float
    metrics: Mapping[str, float]


def strata_masks(
    valid: BoolArray, *, specular: BoolArray | None = None, tool: BoolArray | None = None
) -> dict[str, BoolArray]:
    """Split the valid pixels into ``tissue``, ``specular`` and ``tool``: each counts exactly once.

    A highlight on an instrument is ``tool``: its depth fails for the instrument's reasons.

    Args:
        valid: H x W bool.
        specular: H x W bool, True on highlights (``endolux.prep.specular_mask``).
        tool: H x W bool, True on instruments.

    Returns:
        H x W masks by name; only the strata whose mask was given, and tissue.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``.

    Example:
        >>> import numpy as np
        >>> one = np.array([[True, True, True]])
        >>> {k: v.tolist() for k, v in strata_masks(one, tool=np.array([[False, True, False]])).items()}
        {'tissue': [[True, False, True]], 'tool': [[False, True, False]]}
    """
    boolean(valid)
    for mask in (specular, tool):
        if mask is not None:
            same_shape(mask, valid)
            boolean(mask)
    tissue = valid.copy()
    masks: dict[str, BoolArray] = {"tissue": tissue}
    if specular is not None:
        masks["specular"] = valid & specular if tool is None else valid & specular & ~tool
        tissue &= ~specular
    if tool is not None:
        masks["tool"] = valid & tool
        tissue &= ~tool
    return masks


def stratified(
    prediction: NumberArray,
    truth: NumberArray,
    valid: BoolArray,
    *,
    specular: BoolArray | None = None,
    tool: BoolArray | None = None,
    measure: Measure = depth_metrics,
) -> dict[str, Stratum]:
    """Metrics of a frame and of its strata. Align the prediction over the whole frame first, not within a stratum.

    Args:
        prediction: H x W, as in :func:`endolux.metrics.depth_metrics`.
        truth: H x W.
        valid: H x W bool.
        specular: H x W bool, True on highlights.
        tool: H x W bool, True on instruments.
        measure: what to compute.

    Returns:
        ``all`` and each stratum by name. Empty strata have NaN, with an ``EmptyMaskWarning`` and ``pixels`` 0.

    Raises:
        UsageError: as :func:`strata_masks` and ``measure`` do.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[10.0, 10.0]])
        >>> parts = stratified(np.array([[10.0, 15.0]]), truth, truth > 0, tool=np.array([[False, True]]))
        >>> parts["tissue"].metrics["abs_rel"], parts["tool"].metrics["abs_rel"], parts["tool"].share
        (0.0, 0.5, 0.5)
    """
    masks = {"all": valid, **strata_masks(valid, specular=specular, tool=tool)}
    total = int(np.count_nonzero(valid))
    found = {}
    for name, mask in masks.items():
        pixels = int(np.count_nonzero(mask))
        if not pixels:
            warn_empty(f"Stratum '{name}' has no valid pixel")
        share = pixels / total if total else float("nan")
        found[name] = Stratum(pixels=pixels, share=share, metrics=measure(prediction, truth, mask))
    return found
