"""A trained network of landmarks as what draws masks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from endolux.models.landmark_network import LandmarkNetwork
from endolux.reproduce.landmark_measures import Labels
from endolux.types import FloatArray, ImageArray


class NetworkMasks:
    """Masks of a network, float32, one picture at a time.

    Args:
        network: put into evaluation mode.
        size: (width, height) of the pictures that it sees.

    Example:
        >>> from endolux.models import create_landmarks
        >>> masks = NetworkMasks(create_landmarks("landmarks-light", size="t"), size=(64, 32))
        >>> masks.mask(np.zeros((32, 64, 3), np.uint8)).shape
        (32, 64)
    """

    def __init__(self, network: LandmarkNetwork, *, size: tuple[int, int]) -> None:
        self._network = network.eval()
        self.size, self.reads_depth = size, network.reads_depth

    def mask(self, image: ImageArray, inverse_depth: FloatArray | None = None) -> Labels:
        """See :class:`~endolux.reproduce.landmark_measures.Masks`."""
        with torch.inference_mode():
            device = next(self._network.parameters()).device
            pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255.0
            if inverse_depth is None:
                scores = self._network.probabilities(pixels)
            else:
                depth = torch.from_numpy(np.ascontiguousarray(inverse_depth, np.float32)).to(device)[None, None]
                small = self._network.with_inverse_depth(pixels, depth)[0].float()
                scores = F.interpolate(small, pixels.shape[2:], mode="bilinear", align_corners=False)
        return np.asarray(scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy())
