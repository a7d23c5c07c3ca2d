"""What lies between two frames: camera motion, change of brightness, and optical flow.

Source: Shao et al. (AF-SfMLearner), Medical Image Analysis 2022; Cui et al. (EndoDAC), MICCAI 2024, for the intrinsics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.models.motion import transformation
from endolux.models.parts import Part, register_part
from endolux.models.resnet import CHANNELS, ResNetEncoder
from endolux.models.skip_decoder import SkipDecoder

POSE_SCALE = 0.001
"""Keeps the first motions small, so that the first warps stay inside the image."""
POSE_CHANNELS = 256


@register_part("dares-pose-decoder")
class PoseDecoder(Part):
    """Four convolutions and the mean over the image: two motions, of which only the first was ever trained.

    Example:
        >>> with torch.inference_mode():
        ...     tuple(PoseDecoder()(torch.rand(5, 512, 8, 10)).shape)
        (5, 2, 6)
    """

    architecture = "pose-decoder"

    def __init__(self) -> None:
        super().__init__()
        c = POSE_CHANNELS
        self.net = nn.ModuleList(
            [
                nn.Conv2d(CHANNELS[-1], c, 1),
                nn.Conv2d(c, c, 3, padding=1),
                nn.Conv2d(c, c, 3, padding=1),
                nn.Conv2d(c, 2 * 6, 1),
            ]
        )

    @override
    def forward(self, features: Tensor) -> Tensor:
        """N x 512 x h x w -> N x 2 x 6: axis-angle in radians and translation."""
        return self.with_features(features)[0]

    def with_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The motions, and the 256 maps before the last ReLU that :class:`IntrinsicsHead` sees."""
        x = F.relu(self.net[0](features))
        x = F.relu(self.net[1](x))
        maps: Tensor = self.net[2](x)
        # A mean of bf16 numbers times 0.001 would move the camera in steps.
        motions: Tensor = self.net[3](F.relu(maps)).float().mean(dim=(2, 3))
        return POSE_SCALE * motions.reshape(-1, 2, 6), maps


@register_part("endodac-intrinsics-head")
class IntrinsicsHead(Part):
    """EndoDAC's intrinsics from the maps of its pose decoder. ``convs_suqeeze`` is in the files and never used.

    Example:
        >>> with torch.inference_mode():
        ...     k = IntrinsicsHead()(torch.zeros(1, 256, 8, 10), size=(320, 256))
        >>> [round(value, 3) for value in (k[0, 0, 0].item(), k[0, 1, 1].item(), k[0, 0, 2].item(), k[0, 1, 2].item())]
        [381.807, 305.446, 160.0, 128.0]
    """

    architecture = "endodac-intrinsics-head"

    def __init__(self) -> None:
        super().__init__()
        self.convs_suqeeze = nn.Conv2d(CHANNELS[-1], POSE_CHANNELS, 1)
        self.focal_length_conv = nn.Conv2d(POSE_CHANNELS, 2, 1, bias=False)
        self.offsets_conv = nn.Conv2d(POSE_CHANNELS, 2, 1, bias=False)

    @override
    def forward(self, maps: Tensor, *, size: tuple[int, int]) -> Tensor:
        """N x 256 x h x w and (width, height) in pixels -> N x 3 x 3 camera matrices of that size."""
        mean = maps.mean(dim=(2, 3), keepdim=True)
        scale = torch.tensor(size, dtype=torch.float32, device=maps.device)
        focal = (F.softplus(self.focal_length_conv(mean).float().flatten(1)) + 0.5) * scale
        centre = (self.offsets_conv(mean).float().flatten(1) + 0.5) * scale
        zero, one = torch.zeros_like(focal[:, 0]), torch.ones_like(focal[:, 0])
        rows = [focal[:, 0], zero, centre[:, 0], zero, focal[:, 1], centre[:, 1], zero, zero, one]
        return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def joint_intrinsics(matrices: Sequence[Tensor], *, reproduce: bool = False) -> Tensor:
    """One camera matrix a sample from those of its source frames.

    Args:
        matrices: N x 3 x 3 for each source frame, in their order.
        reproduce: the last one overwrites the others, as published; else their mean.

    Example:
        >>> first, last = torch.eye(3)[None], 3 * torch.eye(3)[None]
        >>> joint_intrinsics([first, last])[0, 0, 0].item()
        2.0
        >>> joint_intrinsics([first, last], reproduce=True)[0, 0, 0].item()
        3.0
    """
    return matrices[-1] if reproduce else torch.stack(list(matrices)).mean(dim=0)


class PoseNetwork(nn.Module):
    """Camera motion between two frames.

    The order is (source, target) whichever came first, and the motion maps points in the target's camera to the
    source's. Published weights know no other order.

    Args:
        encoder, decoder: networks to use; new ones by default.

    Example:
        >>> with torch.inference_mode():
        ...     axisangle, translation = PoseNetwork().eval()(torch.rand(2, 3, 64, 96), torch.rand(2, 3, 64, 96))
        >>> tuple(axisangle.shape), tuple(translation.shape)
        ((2, 3), (2, 3))
    """

    def __init__(self, encoder: ResNetEncoder | None = None, decoder: PoseDecoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder if encoder is not None else ResNetEncoder(images=2)
        self.decoder = decoder if decoder is not None else PoseDecoder()

    @override
    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Two N x 3 x H x W RGB in [0, 1] -> axis-angle N x 3 in radians, translation N x 3 in units of depth."""
        axisangle, translation, _ = self.with_features(source, target)
        return axisangle, translation

    def with_features(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Axis-angle, translation, and the maps for :class:`IntrinsicsHead`."""
        motions, maps = self.decoder.with_features(self.encoder(torch.cat([source, target], dim=1)).thirty_second)
        return motions[:, 0, :3], motions[:, 0, 3:], maps

    def motion(self, source: Tensor, target: Tensor, *, reproduce: bool = False) -> Tensor:
        """N x 4 x 4 that maps points in the target's camera to the source's; never inverted.

        Args:
            source: N x 3 x H x W RGB in [0, 1].
            target: the same shape.
            reproduce: see :func:`endolux.models.motion.rotation`.
        """
        return transformation(*self(source, target), reproduce=reproduce)


class AppearanceFlow(nn.Module):
    """Change of brightness from the target to a source that was registered to it ("transform" in published files).

    Args:
        encoder, decoder: networks to use; new ones by default.

    Example:
        >>> with torch.inference_mode():
        ...     changes = AppearanceFlow().eval()(torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96))
        >>> [tuple(change.shape[1:]) for change in changes]
        [(3, 64, 96), (3, 32, 48), (3, 16, 24), (3, 8, 12)]
    """

    def __init__(self, encoder: ResNetEncoder | None = None, decoder: SkipDecoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder if encoder is not None else ResNetEncoder(images=2)
        self.decoder = decoder if decoder is not None else SkipDecoder(head="appearance")

    @override
    def forward(self, registered: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Two N x 3 x H x W RGB in [0, 1] -> what is added to the target, in [-1, 1], at 1/1, 1/2, 1/4 and 1/8."""
        changes: tuple[Tensor, ...] = self.decoder(self.encoder(torch.cat([registered, target], dim=1)))
        return changes


class OpticalFlow(nn.Module):
    """Where the pixels of one frame lie in another ("position" in published files).

    Args:
        encoder, decoder: networks to use; new ones by default.

    Example:
        >>> with torch.inference_mode():
        ...     flows = OpticalFlow().eval()(torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96))
        >>> tuple(flows[0].shape), bool(flows[0].abs().max() < 0.1)
        ((1, 2, 64, 96), True)
    """

    def __init__(self, encoder: ResNetEncoder | None = None, decoder: SkipDecoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder if encoder is not None else ResNetEncoder(images=2)
        self.decoder = decoder if decoder is not None else SkipDecoder(head="flow")

    @override
    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Two N x 3 x H x W RGB in [0, 1] -> N x 2 at 1/1, 1/2, 1/4 and 1/8.

        The channels are (dy, dx) in pixels of the *full* size at every scale: a target pixel p lies at p + flow in the
        source.
        """
        flows: tuple[Tensor, ...] = self.decoder(self.encoder(torch.cat([source, target], dim=1)))
        return flows
