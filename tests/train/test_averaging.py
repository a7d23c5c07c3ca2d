"""Points between two networks, and BatchNorm statistics measured anew."""

import numpy as np
import pytest
import torch

from endolux.errors import UsageError
from endolux.models import create
from endolux.train.averaging import interpolate, recalibrate
from endolux.train.task import Batch

SMALL = {"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "decoder": (8, 8, 8), "fine": 4}


def network(seed: int):
    torch.manual_seed(seed)
    return create("repdepth", **SMALL)


def test_ends_and_middle() -> None:
    first, second = network(0), network(1)
    for share, expected in ((0.0, first), (1.0, second)):
        for a, b in zip(interpolate(first, second, share=share).parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    middle = interpolate(first, second, share=0.25)
    weight = 0.75 * first.head.weight + 0.25 * second.head.weight
    torch.testing.assert_close(middle.head.weight, weight)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="share"):
        interpolate(network(0), network(1), share=1.5)
    with pytest.raises(UsageError, match="same weights"):
        interpolate(network(0), create("repdepth", **{**SMALL, "fine": 8}), share=0.5)


def test_recalibration_gives_the_statistics_of_the_batches() -> None:
    net = network(2)
    images = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3)).astype(np.uint8)
    batches = [Batch(images=images[:2], depths=np.ones((2, 64, 64), np.float32))] * 2
    recalibrate(net, batches, bf16=False)
    assert not net.training
    with torch.no_grad():
        stem = net.stem.conv(torch.from_numpy(images[:2]).permute(0, 3, 1, 2).float() / 255.0 * 4.0 - 2.0)
    torch.testing.assert_close(net.stem.bn.running_mean, stem.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
