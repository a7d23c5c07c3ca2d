"""How a network is laid out and in which precision its layers run, for speed without surprises."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import DeviceError, UsageError


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution that leaves autocast: depth-wise ones have a slow bf16 backward pass on CPUs (oneDNN)."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Convolve in float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def keep_depthwise_exact(network: nn.Module) -> int:
    """Let the depth-wise convolutions of a network run in float32 under autocast. Returns how many there are.

    Example:
        >>> keep_depthwise_exact(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)))
        1
    """
    found = [m for m in network.modules() if type(m) is nn.Conv2d and m.groups == m.in_channels > 1]
    for module in found:
        # The class only adds behaviour: the module's state and the keys of its weights stay as they are.
        module.__class__ = FullPrecisionConv2d
    return len(found)


def memory_format(network: nn.Module, *, device: torch.device, precision: str) -> torch.memory_format:
    """channels_last, except where torch 2.13's float32 backward corrupts memory on a CPU.

    That is for 1 x 1 convolutions of stride 2 on up to 8 channels (the shortcut of a RepVGG block on RGB).

    Example:
        >>> network = nn.Conv2d(3, 8, 1, stride=2)
        >>> memory_format(network, device=torch.device("cpu"), precision="fp32")
        torch.contiguous_format
    """
    dangerous = any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride == (2, 2) and m.in_channels <= 8
        for m in network.modules()
    )
    if dangerous and device.type == "cpu" and precision == "fp32":
        return torch.contiguous_format
    return torch.channels_last


def resolve_device(name: str) -> torch.device:
    """The torch device that a recipe means; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: ``device.unknown``.
        DeviceError: ``device.absent``.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"No device '{name}'",
            why=" ".join(str(error).split())[:200],
            fix="Use auto, cpu or cuda.",
            error_id="device.unknown",
        ) from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise DeviceError(
            f"This machine has no device '{name}'",
            why="torch finds none; training runs on cpu and cuda.",
            fix="Use device=cpu, or install torch with CUDA.",
            error_id="device.absent",
        )
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse fp16 on a CPU. Raises UsageError ``device.precision``."""
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(
            f"Training in fp16 on {device.type}",
            why="Its gradients under- and overflow without the scaling that only GPUs have kernels for.",
            fix="Use precision=bf16 or fp32.",
            error_id="device.precision",
        )
