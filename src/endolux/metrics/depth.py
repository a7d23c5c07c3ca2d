"""Depth metrics: plain functions of (prediction, truth, valid), in float64, NaN for an empty mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError

NumberArray = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
_Float64 = npt.NDArray[np.float64]

DELTA_BASE = 1.25


def abs_rel(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> float:
    """Mean of |prediction - truth| / truth (Eigen et al. 2014, "abs relative difference").

    Args:
        prediction: array of any shape; finite where ``valid``.
        truth: same shape and unit; positive and finite where ``valid``.
        valid: same shape, True where the pixel counts.

    Returns:
        Dimensionless error, NaN where no pixel counts.

    Raises:
        UsageError: ``metrics.shape`` or ``metrics.values``.

    Example:
        >>> import numpy as np
        >>> abs_rel(np.array([2.0, 3.0]), np.array([1.0, 3.0]), np.array([True, True]))
        0.5
    """
    p, t = _masked(prediction, truth, valid)
    return _mean(np.abs(p - t) / t)


def sq_rel(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> float:
    """Mean of (prediction - truth)^2 / truth, in the unit of the truth. Arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> sq_rel(np.array([4.0]), np.array([2.0]), np.array([True]))
        2.0
    """
    p, t = _masked(prediction, truth, valid)
    return _mean((p - t) ** 2 / t)


def rmse(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> float:
    """Root mean squared error, in the unit of the truth. Arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> rmse(np.array([1.0, 5.0]), np.array([1.0, 1.0]), np.array([False, True]))
        4.0
    """
    p, t = _masked(prediction, truth, valid)
    return float(np.sqrt(_mean((p - t) ** 2)))


def rmse_log(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> float:
    """Root mean squared difference of natural logarithms; NaN if any counted prediction is not positive.

    Arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> round(rmse_log(np.array([2.0]), np.array([1.0]), np.array([True])), 4)
        0.6931
    """
    return float(np.sqrt(_mean(_log_difference(prediction, truth, valid) ** 2)))


def log10(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> float:
    """Mean absolute difference of decimal logarithms; NaN if any counted prediction is not positive.

    Arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> round(log10(np.array([10.0]), np.array([1.0]), np.array([True])), 12)
        1.0
    """
    return _mean(np.abs(_log_difference(prediction, truth, valid))) / float(np.log(10.0))


def silog(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> float:
    """Scale-invariant logarithmic error, 100 * standard deviation of log(prediction) - log(truth).

    That is the square root of Eigen et al. (2014), equation 1 with lambda = 1, times 100 as the KITTI benchmark
    prints it. NaN if any counted prediction is not positive. Arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> truth = np.array([1.0, 2.0, 4.0])
        >>> round(silog(3 * truth, truth, np.ones(3, bool)), 9)
        0.0
    """
    difference = _log_difference(prediction, truth, valid)
    # Two passes: mean(d^2) - mean(d)^2 loses every digit when the scale is far off.
    return 100.0 * float(np.sqrt(_mean((difference - _mean(difference)) ** 2)))


def delta(prediction: NumberArray, truth: NumberArray, valid: BoolArray, power: int = 1) -> float:
    """Share of pixels with max(prediction/truth, truth/prediction) < 1.25**power.

    A prediction that is not positive counts as a miss. Other arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> delta(np.array([1.2, 1.3]), np.array([1.0, 1.0]), np.array([True, True]))
        0.5
    """
    p, t = _masked(prediction, truth, valid)
    limit = DELTA_BASE**power
    # Products, not quotients: a prediction of zero or below is a miss, without a division by it.
    return _mean(((p < limit * t) & (t < limit * p)).astype(np.float64))


METRICS: Mapping[str, str] = {
    "abs_rel": "lower",
    "sq_rel": "lower",
    "rmse": "lower",
    "rmse_log": "lower",
    "log10": "lower",
    "silog": "lower",
    "delta1": "higher",
    "delta2": "higher",
    "delta3": "higher",
}
"""Every metric of :func:`depth_metrics` and which way is better."""
EXTRA_METRICS: Mapping[str, str] = {"mae": "lower", "median_rel": "lower", "within10": "higher"}
"""Metrics that only some publications print, see :func:`extra_metrics`, and which way is better."""


def extra_metrics(prediction: NumberArray, truth: NumberArray, names: Iterable[str]) -> dict[str, float]:
    """The named metrics of ``EXTRA_METRICS`` over all pixels; NaN without any.

    ``mae`` is the mean of |p - t| in the unit of the truth (Leve's MAE, SimCol3D's L1), ``median_rel`` the median of
    |p - t| / t (SimCol3D), ``within10`` the share of pixels with |p - t| / t < 0.1 (PPSNet).

    Args:
        prediction: N finite values.
        truth: N positive finite values.
        names: keys of ``EXTRA_METRICS``.

    Raises:
        UsageError: ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> extra_metrics(np.array([1.0, 4.0, 4.0]), np.array([1.0, 2.0, 4.0]), ("median_rel", "within10"))
        {'median_rel': 0.0, 'within10': 0.6666666666666666}
    """
    wanted = tuple(names)
    unknown = sorted(set(wanted) - set(EXTRA_METRICS))
    if unknown:
        raise UsageError(
            f"No metric '{unknown[0]}'",
            why=f"There are: {', '.join(EXTRA_METRICS)}.",
            fix="Use one of these names.",
            error_id="metrics.name",
        )
    if not wanted:
        return {}
    if not truth.size:
        return dict.fromkeys(wanted, float("nan"))
    difference = np.abs(prediction.astype(np.float64) - truth.astype(np.float64))
    relative = difference / truth.astype(np.float64)
    every = {
        "mae": lambda: float(difference.mean()),
        "median_rel": lambda: float(np.median(relative)),
        "within10": lambda: float(np.count_nonzero(relative < 0.1) / relative.size),
    }
    return {name: every[name]() for name in wanted}


def depth_metrics(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> dict[str, float]:
    """All metrics of one frame, keyed as in ``METRICS``. Arguments and errors as in :func:`abs_rel`.

    Example:
        >>> import numpy as np
        >>> depth_metrics(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2), bool))["delta1"]
        1.0
    """
    p, t = _masked(prediction, truth, valid)
    every = np.ones(p.shape, np.bool_)
    return {
        "abs_rel": abs_rel(p, t, every),
        "sq_rel": sq_rel(p, t, every),
        "rmse": rmse(p, t, every),
        "rmse_log": rmse_log(p, t, every),
        "log10": log10(p, t, every),
        "silog": silog(p, t, every),
        "delta1": delta(p, t, every, 1),
        "delta2": delta(p, t, every, 2),
        "delta3": delta(p, t, every, 3),
    }


def _masked(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> tuple[_Float64, _Float64]:
    if not (prediction.shape == truth.shape == valid.shape) or valid.dtype != np.bool_:
        raise UsageError(
            f"Prediction {prediction.shape}, truth {truth.shape} and mask {valid.shape} {valid.dtype} do not match",
            why="A metric compares the same pixels, and the mask is boolean.",
            fix="Bring them to one size first; resize the prediction, never the truth.",
            error_id="metrics.shape",
        )
    p = prediction[valid].astype(np.float64)
    t = truth[valid].astype(np.float64)
    if not (np.isfinite(p).all() and np.isfinite(t).all() and (t > 0).all()):
        raise UsageError(
            f"{int((~np.isfinite(p)).sum())} predictions are not finite and "
            f"{int((~(np.isfinite(t) & (t > 0))).sum())} true values are not positive and finite under the mask",
            why="One such pixel would turn the mean into a number without meaning.",
            fix="Leave them out of the mask and report how many there were.",
            error_id="metrics.values",
        )
    return p, t


def _log_difference(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> _Float64:
    p, t = _masked(prediction, truth, valid)
    if (p <= 0).any():
        return np.full(1, np.nan)
    return np.asarray(np.log(p) - np.log(t), np.float64)


def _mean(values: _Float64) -> float:
    return float(values.mean()) if values.size else float("nan")
