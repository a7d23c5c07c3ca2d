"""What can be measured of a run: names, how tables call them, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping

from endolux.reproduce.landmark_names import LANDMARK_METRICS
from endolux.reproduce.metric import Metric
from endolux.reproduce.trajectories import VIDEO_METRICS

BANDS = 6
"""Octaves of spatial frequency of :func:`endolux.metrics.band_residuals`."""


METRICS: Mapping[str, Metric] = {
    "rmse": Metric(label="RMSE", lengths=True),
    "abs_rel": Metric(label="REL"),
    "sq_rel": Metric(label="SqRel", lengths=True),
    "rmse_log": Metric(label="RMSElog"),
    "delta1": Metric(label="δ1", higher=True),
    "abs_rel_p0": Metric(
        label="REL as it is", about="as it is: the output under median scaling, disparity taken for depth (P0)"
    ),
    "delta1_p0": Metric(label="δ1 as it is", higher=True),
    "abs_rel_p2": Metric(
        label="REL fitted",
        about="fitted: scale and shift by least squares in inverse depth, for which depth is inverted (P2)",
    ),
    "delta1_p2": Metric(label="δ1 fitted", higher=True),
    "delta2": Metric(label="δ2", higher=True),
    "delta3": Metric(label="δ3", higher=True),
    "boundary_f1": Metric(
        label="boundary F1", higher=True, about="boundary F1: steps of depth where the truth has them"
    ),
    "edge_error": Metric(
        label="edge band", about="edge band: mean |log error| within 3 px of a true step of depth, after median scaling"
    ),
    "leak_slope": Metric(
        label="leak slope",
        digits=4,
        signed=True,
        about="leak slope and correlation: high-passed log disparity on high-passed luma where the truth is flat, "
        "0 is best",
    ),
    "leak_correlation": Metric(label="leak corr.", signed=True),
    "leak_residual": Metric(
        label="leak of error",
        digits=4,
        signed=True,
        about="leak of error: the same slope for the log error, so that relief which is true does not count",
    ),
    "flicker": Metric(
        label="flicker", digits=4, about="flicker: second differences in time of the log error of a clip"
    ),
    "temporal_error": Metric(
        label="temporal error",
        digits=4,
        about="temporal error: share by which neighbouring depth maps disagree after the true camera motion",
    ),
    **{
        f"rho_{band}": Metric(
            label=f"ρ{band}",
            about="ρ0 to ρ5: residual energy of each octave (ρ0 the coarsest) as a share of the truth's; "
            "1 where the student has nothing of it"
            if band == 0
            else "",
        )
        for band in range(BANDS)
    },
    **LANDMARK_METRICS,
    **VIDEO_METRICS,
}
"""Every metric by name; the names of depth errors are those of ``endolux.metrics``."""


def gain_sign(metric: str) -> float:
    """1 where more is better, -1 where less is.

    Example:
        >>> gain_sign("delta1"), gain_sign("abs_rel")
        (1.0, -1.0)
    """
    return 1.0 if METRICS[metric].higher else -1.0


def comparable(metric: str, value: float) -> float:
    """The value as it is compared: by its size where zero is best.

    Example:
        >>> comparable("leak_slope", -0.5), comparable("abs_rel", 0.5)
        (0.5, 0.5)
    """
    return abs(value) if METRICS[metric].signed else value
