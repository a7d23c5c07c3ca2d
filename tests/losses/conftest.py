"""A lumen with folds and an instrument, seen through a circle with highlights: what the terms are measured on."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Scene(NamedTuple):
    disparity: Tensor  # 1 x 1 x 256 x 320
    mask: Tensor


def lumen(height: int = 256, width: int = 320) -> Tensor:
    y = torch.linspace(-1.0, 1.0, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1.25, 1.25, width, dtype=torch.float64)[None]
    radius = ((x - 0.15).square() + (y + 0.1).square() + 0.01).sqrt()
    depth = 30.0 / (radius + 0.15)
    folds = torch.tanh(
        12.0 * torch.sin(9.0 * torch.log(radius) + 0.5 * torch.sin(3.0 * torch.atan2(y + 0.1, x - 0.15)))
    )
    depth = depth * (1.0 + 0.08 * folds + 0.02 * torch.sin(40.0 * x) * torch.sin(36.0 * y))
    tool = ((y - 0.6 * x - 0.45).abs() < 0.09) & (x > 0.1)
    return (1.0 / torch.where(tool, 15.0 + 0.0 * depth, depth))[None, None]


@pytest.fixture(scope="session")
def scene() -> Scene:
    disparity = lumen()
    y, x = torch.arange(256.0)[:, None] - 127.5, torch.arange(320.0)[None] - 159.5
    mask = y.square() + x.square() < 150.0**2
    for row, column in ((60, 90), (140, 220), (180, 70)):
        mask &= (y + 127.5 - row).square() + (x + 159.5 - column).square() > 36.0
    return Scene(disparity, mask[None, None])


@pytest.fixture(scope="session")
def texture() -> Tensor:
    """Noise in all octaves (amplitude falls as 1 / f), 256 x 320."""
    generator = torch.Generator().manual_seed(3)
    spectrum = torch.fft.rfft2(torch.randn(1, 1, 256, 320, generator=generator, dtype=torch.float64))
    frequency = (torch.fft.fftfreq(256)[:, None].square() + torch.fft.rfftfreq(320).square()).sqrt().clamp(min=1 / 256)
    return torch.fft.irfft2(spectrum / frequency, s=(256, 320)) / 100.0
