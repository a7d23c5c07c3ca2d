"""Training: shards to batches, augmentation, the loop and its checkpoints."""

from endolux.train.augment import Augmentation, augment
from endolux.train.checkpoints import load_network
from endolux.train.loop import TrainSettings, train

__all__ = ["Augmentation", "TrainSettings", "augment", "load_network", "train"]
