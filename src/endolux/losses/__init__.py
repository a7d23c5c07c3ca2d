"""Training losses, one a function."""

from endolux.losses.canonical import canonical, canonical_pair
from endolux.losses.depth import LossWeights, depth_loss, gradient_matching, log_l1, scale_invariant_log
from endolux.losses.distillation import FeatureProjector, feature_loss, relation_loss, response_loss, shift_teacher
from endolux.losses.leve import gradient_loss, ratio_l1, ssim_loss, ssim_map, student_loss
from endolux.losses.prototypes import Prototypes, assign, fit_prototypes, whiten
from endolux.losses.semantic import SemanticProjector, semantic_alignment
from endolux.losses.spectral import BAND_WEIGHTS, band_residuals, band_schedule, spectral
from endolux.losses.trinity import full_size, gradient, spatial
from endolux.losses.validity import reliable, speculars, validity_mask

__all__ = [
    "BAND_WEIGHTS",
    "FeatureProjector",
    "LossWeights",
    "Prototypes",
    "SemanticProjector",
    "assign",
    "band_residuals",
    "band_schedule",
    "canonical",
    "canonical_pair",
    "depth_loss",
    "feature_loss",
    "fit_prototypes",
    "full_size",
    "gradient",
    "gradient_loss",
    "gradient_matching",
    "log_l1",
    "ratio_l1",
    "relation_loss",
    "reliable",
    "response_loss",
    "scale_invariant_log",
    "semantic_alignment",
    "shift_teacher",
    "spatial",
    "spectral",
    "speculars",
    "ssim_loss",
    "ssim_map",
    "student_loss",
    "validity_mask",
    "whiten",
]
