"""Training losses, one a function."""

from endolux.losses.appearance import refined_target, transform_constraint, transform_smoothness
from endolux.losses.canonical import canonical, canonical_pair
from endolux.losses.depth import LossWeights, depth_loss, gradient_matching, log_l1, scale_invariant_log
from endolux.losses.distillation import FeatureProjector, feature_loss, relation_loss, response_loss, shift_teacher
from endolux.losses.leve import gradient_loss, ratio_l1, ssim_loss, ssim_map, student_loss
from endolux.losses.photometric import (
    auto_mask,
    minimum_reprojection,
    ms_ssim,
    ms_ssim_map,
    photometric_distance,
    ssim_distance,
)
from endolux.losses.prototypes import Prototypes, assign, fit_prototypes, whiten
from endolux.losses.semantic import SemanticProjector, semantic_alignment
from endolux.losses.smoothness import disparity_smoothness, edge_aware_smoothness, plain_smoothness
from endolux.losses.spectral import BAND_WEIGHTS, band_residuals, band_schedule, spectral
from endolux.losses.trinity import full_size, gradient, spatial
from endolux.losses.validity import reliable, speculars, validity_mask
from endolux.losses.visibility import consistency, masked_mean, splat_weight
from endolux.losses.warp import backproject, project, rigid_flow, warp_by_depth, warp_by_flow

__all__ = [
    "BAND_WEIGHTS",
    "FeatureProjector",
    "LossWeights",
    "Prototypes",
    "SemanticProjector",
    "assign",
    "auto_mask",
    "backproject",
    "band_residuals",
    "band_schedule",
    "canonical",
    "canonical_pair",
    "consistency",
    "depth_loss",
    "disparity_smoothness",
    "edge_aware_smoothness",
    "feature_loss",
    "fit_prototypes",
    "full_size",
    "gradient",
    "gradient_loss",
    "gradient_matching",
    "log_l1",
    "masked_mean",
    "minimum_reprojection",
    "ms_ssim",
    "ms_ssim_map",
    "photometric_distance",
    "plain_smoothness",
    "project",
    "ratio_l1",
    "refined_target",
    "relation_loss",
    "reliable",
    "response_loss",
    "rigid_flow",
    "scale_invariant_log",
    "semantic_alignment",
    "shift_teacher",
    "spatial",
    "spectral",
    "speculars",
    "splat_weight",
    "ssim_distance",
    "ssim_loss",
    "ssim_map",
    "student_loss",
    "transform_constraint",
    "transform_smoothness",
    "validity_mask",
    "warp_by_depth",
    "warp_by_flow",
    "whiten",
]
