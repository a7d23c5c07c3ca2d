"""Evaluation: pairs of images and true depth, a runner, intervals and reports."""

from endolux.evaluate.baselines import BASELINES, brightness_depth, constant_depth, get_baseline
from endolux.evaluate.bootstrap import Interval, bootstrap_mean
from endolux.evaluate.pairs import Pair, Truth, TruthFormat, find_pairs, read_truth
from endolux.evaluate.predictors import Predictor, open_predictor
from endolux.evaluate.runner import Evaluation, FrameResult, evaluate

__all__ = [
    "BASELINES",
    "Evaluation",
    "FrameResult",
    "Interval",
    "Pair",
    "Predictor",
    "Truth",
    "TruthFormat",
    "bootstrap_mean",
    "brightness_depth",
    "constant_depth",
    "evaluate",
    "find_pairs",
    "get_baseline",
    "open_predictor",
    "read_truth",
]
