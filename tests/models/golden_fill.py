"""Weights and pictures that a formula gives, so that published networks can be checked without their weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

FACTS = json.loads((Path(__file__).parent / "published_facts.json").read_text(encoding="utf-8"))
NAMES = tuple(name for name in FACTS if name != "imagenet")
TOLERANCE_FLOAT64, TOLERANCE_FLOAT32 = 1e-9, 5e-6


@torch.no_grad()
def golden_fill_(network: nn.Module) -> None:
    """Fill the state dict, in its order, with sines of the index."""
    for index, (name, tensor) in enumerate(network.state_dict().items()):
        flat = torch.arange(1, tensor.numel() + 1, dtype=torch.float64)
        wave = torch.sin(12.9898 * flat + 78.233 * (index + 1)).reshape(tensor.shape)
        if name.endswith("num_batches_tracked"):
            tensor.zero_()
        elif name.endswith("running_var"):
            tensor.copy_(1 + 0.25 * wave)
        elif tensor.ndim >= 2:
            tensor.copy_(wave * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("running_mean") or not name.endswith("weight"):
            tensor.copy_(0.05 * wave)
        else:
            tensor.copy_(1 + 0.1 * wave)


def golden_image(height: int, width: int) -> Tensor:
    """1 x 3 x H x W float64 in [0, 1]."""
    c, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (3, height, width)), indexing="ij")
    return (0.5 + 0.5 * torch.sin(0.05 * x + 0.03 * y + c))[None]


@torch.no_grad()
def widen_(network: nn.Module) -> None:
    """Scale the last layer so that ratios spread over 1 to 100, as after training."""
    last = network.up_3.reduce if hasattr(network, "up_3") else network.decoder.upsampling_block3.result_conv
    last.weight.mul_(40)
    last.bias.fill_(20)
