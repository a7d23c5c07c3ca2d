"""Training losses, one a function."""

from endolux.losses.depth import LossWeights, depth_loss, gradient_matching, log_l1, scale_invariant_log
from endolux.losses.distillation import FeatureProjector, feature_loss, relation_loss, response_loss, shift_teacher
from endolux.losses.leve import gradient_loss, ratio_l1, ssim_loss, ssim_map, student_loss

__all__ = [
    "FeatureProjector",
    "LossWeights",
    "depth_loss",
    "feature_loss",
    "gradient_loss",
    "gradient_matching",
    "log_l1",
    "ratio_l1",
    "relation_loss",
    "response_loss",
    "scale_invariant_log",
    "shift_teacher",
    "ssim_loss",
    "ssim_map",
    "student_loss",
]
