"""Evaluation: protocols and pairs, runners, intervals, comparisons, reports and cards."""

from endolux.datasets.pairs import Pair, Truth, TruthFormat, find_pairs, read_truth
from endolux.evaluate.baselines import BASELINES, brightness_depth, constant_depth, get_baseline
from endolux.evaluate.bootstrap import Interval, bootstrap_mean
from endolux.evaluate.cards import add_metric
from endolux.evaluate.compare import Comparison, compare_results
from endolux.evaluate.predictors import Predictor, open_predictor
from endolux.evaluate.protocol_run import ProtocolResult, deviate, run_protocol, select_frames
from endolux.evaluate.runner import Evaluation, FrameResult, evaluate

__all__ = [
    "BASELINES",
    "Comparison",
    "Evaluation",
    "FrameResult",
    "Interval",
    "Pair",
    "Predictor",
    "ProtocolResult",
    "Truth",
    "TruthFormat",
    "add_metric",
    "bootstrap_mean",
    "brightness_depth",
    "compare_results",
    "constant_depth",
    "deviate",
    "evaluate",
    "find_pairs",
    "get_baseline",
    "open_predictor",
    "read_truth",
    "run_protocol",
    "select_frames",
]
