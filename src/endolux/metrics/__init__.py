"""Measures of depth: plain functions on arrays."""

from endolux.metrics.depth import METRICS, abs_rel, delta, depth_metrics, log10, rmse, rmse_log, silog, sq_rel

__all__ = ["METRICS", "abs_rel", "delta", "depth_metrics", "log10", "rmse", "rmse_log", "silog", "sq_rel"]
