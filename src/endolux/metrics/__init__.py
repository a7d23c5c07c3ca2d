"""Measures of depth, boundaries, texture, time, pose, surfaces and masks: plain functions on arrays."""

from endolux.metrics.boundary import (
    BoundaryScores,
    EdgeBandError,
    boundary_f1,
    boundary_scores,
    depth_edges,
    edge_band,
    edge_band_error,
)
from endolux.metrics.checks import EmptyMaskWarning
from endolux.metrics.depth import METRICS, abs_rel, delta, depth_metrics, log10, rmse, rmse_log, silog, sq_rel
from endolux.metrics.pose import (
    SnippetErrors,
    TrajectoryErrors,
    ate_snippets,
    camera_poses,
    rotation_angle,
    trajectory_errors,
)
from endolux.metrics.segmentation import (
    ClassScores,
    SegmentationScores,
    assd,
    dsc,
    hd95,
    iou,
    segmentation_scores,
)
from endolux.metrics.segmentation_published import assd_as_published, overlap_as_published
from endolux.metrics.segmentation_summary import SegmentationSummary, summarise_segmentation
from endolux.metrics.similarity import similarity
from endolux.metrics.statistics import (
    MeanInterval,
    PairedComparison,
    bootstrap_interval,
    compare_paired,
    student_interval,
)
from endolux.metrics.strata import Stratum, strata_masks, stratified
from endolux.metrics.surface import SurfaceDistances, surface_distances
from endolux.metrics.temporal import Flicker, TemporalError, flicker, temporal_alignment_error
from endolux.metrics.texture import BandResiduals, TextureLeak, band_residuals, texture_leak

__all__ = [
    "METRICS",
    "BandResiduals",
    "BoundaryScores",
    "ClassScores",
    "EdgeBandError",
    "EmptyMaskWarning",
    "Flicker",
    "MeanInterval",
    "PairedComparison",
    "SegmentationScores",
    "SegmentationSummary",
    "SnippetErrors",
    "Stratum",
    "SurfaceDistances",
    "TemporalError",
    "TextureLeak",
    "TrajectoryErrors",
    "abs_rel",
    "assd",
    "assd_as_published",
    "ate_snippets",
    "band_residuals",
    "bootstrap_interval",
    "boundary_f1",
    "boundary_scores",
    "camera_poses",
    "compare_paired",
    "delta",
    "depth_edges",
    "depth_metrics",
    "dsc",
    "edge_band",
    "edge_band_error",
    "flicker",
    "hd95",
    "iou",
    "log10",
    "overlap_as_published",
    "rmse",
    "rmse_log",
    "rotation_angle",
    "segmentation_scores",
    "silog",
    "similarity",
    "sq_rel",
    "strata_masks",
    "stratified",
    "student_interval",
    "summarise_segmentation",
    "surface_distances",
    "temporal_alignment_error",
    "texture_leak",
    "trajectory_errors",
]
