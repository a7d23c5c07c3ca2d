"""Camera motion from one frame to the next, and the file that carries the network for it in a bundle."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from endolux.errors import ModelError, UsageError
from endolux.models.motion import transformation
from endolux.models.pose_convolutions import ConvolutionalPose
from endolux.models.pose_correlation import CorrelationPose
from endolux.models.pose_flow import PoseNetwork
from endolux.prep.network_input import network_input
from endolux.runtime.card import Preprocessing
from endolux.types import ImageArray

POSE_FILE = "pose.safetensors"
"""The pose network in a bundle, beside the depth network whose unit of length it shares."""
_KINDS: dict[str, type[PoseNetwork] | type[ConvolutionalPose] | type[CorrelationPose]] = {
    "resnet18": PoseNetwork,
    "convolutions": ConvolutionalPose,
    "correlation": CorrelationPose,
}


def pose_bytes(network: nn.Module, *, unit: float = 1.0, half: bool = False) -> bytes:
    """A pose network as :data:`POSE_FILE` holds it.

    Args:
        network: a :class:`endolux.models.pose_flow.PoseNetwork`,
            :class:`endolux.models.pose_convolutions.ConvolutionalPose` or
            :class:`endolux.models.pose_correlation.CorrelationPose`.
        unit: what one unit of its translations is, in units of depth.
        half: store kernels as fp16.

    Raises:
        TypeError: another network.
    """
    kind = next((kind for kind, known in _KINDS.items() if isinstance(network, known)), None)
    if kind is None:
        raise TypeError(f"{type(network).__name__} is no pose network")
    tensors = {
        name: (tensor.half() if half and tensor.ndim > 1 else tensor).detach().cpu().contiguous().clone()
        for name, tensor in sorted(network.state_dict().items())
    }
    normalise = isinstance(network, PoseNetwork) and network.encoder.normalise
    note = json.dumps({"kind": kind, "unit": unit, "normalise": normalise}, sort_keys=True)
    return bytes(safetensors.torch.save(tensors, metadata={"pose": note}))


def read_pose(content: bytes) -> tuple[nn.Module, float]:
    """The network in :data:`POSE_FILE`, in evaluation mode, and its unit.

    Raises:
        ModelError: ``model.checkpoint`` for anything else.

    Example:
        >>> network, unit = read_pose(pose_bytes(PoseNetwork(), unit=20.0))
        >>> unit, network.training
        (20.0, False)
    """
    try:
        length = int.from_bytes(content[:8], "little")
        note = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["pose"])
        network: nn.Module = _KINDS[note["kind"]]()
        unit = float(note["unit"])
        network.load_state_dict(safetensors.torch.load(content))
        if isinstance(network, PoseNetwork):
            network.encoder.normalise = bool(note["normalise"])
    except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"'{POSE_FILE}' holds no pose network",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="Export or import the model again.",
            error_id="model.checkpoint",
        ) from error
    return network.eval(), unit


class Odometer:
    """Motion of the camera between frames.

    Args:
        network: (source, target), each N x 3 x H x W RGB in [0, 1], to axis-angle and translation, N x 3 each.
        spec: how pixels become its input.
        unit: what one unit of its translations is, in units of depth.

    Example:
        >>> spec = Preprocessing(height=64, width=96, resize="stretch")
        >>> odometer = Odometer(PoseNetwork().eval(), spec)
        >>> frame = np.zeros((120, 160, 3), np.uint8)
        >>> odometer.motion(frame, frame).shape
        (4, 4)
    """

    def __init__(self, network: nn.Module, spec: Preprocessing, *, unit: float = 1.0) -> None:
        self.network = network.eval()
        self.spec = spec
        self.unit = unit

    def motion(self, source: ImageArray, target: ImageArray) -> npt.NDArray[np.float64]:
        """4 x 4, maps points in the target's camera to the source's; translation in units of depth.

        Args:
            source: H x W x 3 uint8 RGB; for a trajectory the later frame.
            target: the same shape; the earlier frame.

        Raises:
            UsageError: ``frame.size`` for frames of different sizes.
            ModelError: ``model.weights`` where the network gives no finite motion.
        """
        if source.shape != target.shape:
            raise UsageError(
                f"Frames of {source.shape[1]}x{source.shape[0]} and {target.shape[1]}x{target.shape[0]} pixels",
                why="Motion lies between two pictures of one camera.",
                fix="Give the frames of one clip.",
                error_id="frame.size",
            )
        with torch.inference_mode():
            axisangle, translation = self.network(self._tensor(source), self._tensor(target))
            matrix = transformation(axisangle.double(), self.unit * translation.double())[0].cpu().numpy()
        if not np.isfinite(matrix).all():
            raise ModelError(
                "The pose network gives a motion that is not finite",
                why="Its training diverged, or its weights are damaged.",
                fix="Use an earlier checkpoint.",
                error_id="model.weights",
            )
        return np.asarray(matrix, np.float64)

    def _tensor(self, image: ImageArray) -> Tensor:
        return as_tensor(image, self.spec)


def as_tensor(image: ImageArray, spec: Preprocessing) -> Tensor:
    """What a network in torch takes for an image: 1 x 3 x h x w RGB in [0, 1]."""
    array = network_input(image, spec=spec).array
    return torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2).float() * (1.0 / 255.0)
