"""The encoder MobileNetV3-Small (Howard et al., ICCV 2019), with the names of torchvision's weights."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override


class _Row(NamedTuple):
    inputs: int
    expanded: int
    outputs: int
    kernel: int
    stride: int
    squeeze: int
    hardswish: bool


# Table 2 of the paper.
_ROWS = (
    _Row(16, 16, 16, 3, 2, 8, False),
    _Row(16, 72, 24, 3, 2, 0, False),
    _Row(24, 88, 24, 3, 1, 0, False),
    _Row(24, 96, 40, 5, 2, 24, True),
    _Row(40, 240, 40, 5, 1, 64, True),
    _Row(40, 240, 40, 5, 1, 64, True),
    _Row(40, 120, 48, 5, 1, 32, True),
    _Row(48, 144, 48, 5, 1, 40, True),
    _Row(48, 288, 96, 5, 2, 72, True),
    _Row(96, 576, 96, 5, 1, 144, True),
    _Row(96, 576, 96, 5, 1, 144, True),
)
LAST_USED = 8
"""Index of the last stage that :class:`MobileNetV3` computes; the later ones only carry weights."""


class SqueezeExcitation(nn.Module):
    """Channels scaled by a function of their means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same shape."""
        scale: Tensor = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, weigh the channels, project; identity where the shapes agree."""

    def __init__(self, row: _Row) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if row.expanded != row.inputs:
            layers.append(_unit(row.inputs, row.expanded, 1, hardswish=row.hardswish))
        layers.append(
            _unit(row.expanded, row.expanded, row.kernel, row.stride, groups=row.expanded, hardswish=row.hardswish)
        )
        if row.squeeze:
            layers.append(SqueezeExcitation(row.expanded, row.squeeze))
        layers.append(_unit(row.expanded, row.outputs, 1))
        self.block = nn.Sequential(*layers)
        self.identity = row.stride == 1 and row.inputs == row.outputs

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x outputs x H/stride x W/stride."""
        y: Tensor = self.block(x)
        return x + y if self.identity else y


class MobileNetV3(nn.Module):
    """MobileNetV3-Small up to 1/16; the rest and the classifier are kept for their names.

    Height and width must be multiples of 16.

    Example:
        >>> import torch
        >>> network = MobileNetV3().eval()
        >>> with torch.inference_mode():
        ...     [tuple(stage.shape) for stage in network(torch.rand(1, 3, 64, 96))]
        [(1, 16, 32, 48), (1, 24, 8, 12), (1, 48, 4, 6)]
    """

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = [_unit(3, 16, 3, 2, hardswish=True)]
        stages.extend(InvertedResidual(row) for row in _ROWS)
        stages.append(_unit(96, 576, 1, hardswish=True))
        self.features = nn.Sequential(*stages)
        self.classifier: nn.Module = nn.Sequential(
            nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, 1000)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """N x 3 x H x W -> 16 channels at 1/2, 24 at 1/8, 48 at 1/16."""
        half: Tensor = self.features[0](image)
        eighth: Tensor = self.features[1:4](half)
        sixteenth: Tensor = self.features[4 : LAST_USED + 1](eighth)
        return half, eighth, sixteenth

    def drop_unused_(self) -> None:
        """Remove, in place, what :meth:`forward` does not compute."""
        del self.features[LAST_USED + 1 :]
        self.classifier = nn.Identity()


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, hardswish: bool | None = None
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]
    if hardswish is not None:
        layers.append(nn.Hardswish() if hardswish else nn.ReLU())
    return nn.Sequential(*layers)
