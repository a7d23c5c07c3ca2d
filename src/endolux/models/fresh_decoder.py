"""The decoder of a Depth Anything that starts from random weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from endolux.models.depth_anything import DepthAnything


@torch.no_grad()
def start_afresh(network: DepthAnything) -> None:
    """Begin the decoder as the original release does: torch's own random weights for convolutions.

    ``transformers`` draws them so small that of a picture a hundred-thousandth is left at the end of the decoder, and
    half of all networks of disparity begin with a map of zeros, through whose ReLU nothing is learned.

    Args:
        network: whose transformer has random weights too.

    Example:
        >>> tiny = dict(hidden_size=32, blocks=4, heads=2, neck=[8, 12, 16, 24], fusion=16, head_width=8, grid=4)
        >>> network = DepthAnything(variant="v2-s", taps=[1, 2, 3, 4], **tiny).eval()
        >>> start_afresh(network)
        >>> bool((network(torch.rand(1, 3, 56, 70)) > 0).all())
        True
    """
    for parts in network.decoder_parts().values():
        for part in parts:
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    module.reset_parameters()
    if network.output in ("depth", "inverse"):
        network.restart_head()
    elif network.output == "disparity":
        nn.init.constant_(cast(Tensor, cast(nn.Conv2d, network.head.conv3).bias), network.start)
