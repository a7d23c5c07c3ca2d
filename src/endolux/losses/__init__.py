"""Training losses, one a function."""

from endolux.losses.depth import LossWeights, depth_loss, gradient_matching, log_l1, scale_invariant_log

__all__ = ["LossWeights", "depth_loss", "gradient_matching", "log_l1", "scale_invariant_log"]
