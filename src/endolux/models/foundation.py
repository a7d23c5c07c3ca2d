"""Foundation models as teachers: Depth Anything (v1, v2) through ``transformers``, with our own preprocessing."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from typing_extensions import override

from endolux.errors import ModelError, UsageError
from endolux.models.depth_anything import DepthAnything
from endolux.models.dpt import PATCH
from endolux.models.teachers import Teacher, weights_sha256
from endolux.types import FloatArray, ImageArray

MODEL_TYPE = "depth_anything"
_SIDE = 518
_INDECISIVE = ("variant", "adapt", "start", "min_depth_mm")
"""Of a network's configuration, what changes nothing in its output of disparity or metric depth."""


def published_size(width: int, height: int, *, side: int = _SIDE, multiple: int = 14) -> tuple[int, int]:
    """(width, height) at which Depth Anything's published processor shows a picture to the network.

    One factor for both sides: of the two that bring a side to ``side``, the one closer to 1; then each side is rounded
    to the nearest multiple.

    Example:
        >>> published_size(640, 480), published_size(320, 240), published_size(1280, 1024)
        ((686, 518), (518, 392), (644, 518))
    """
    across, down = side / width, side / height
    factor = across if abs(1.0 - across) < abs(1.0 - down) else down
    # Python and the published rule both round halves to even.
    new_width, new_height = (round(factor * pixels / multiple) * multiple for pixels in (width, height))
    return max(multiple, new_width), max(multiple, new_height)


class FoundationTeacher(Teacher):
    """Depth Anything in float32. The picture is resized bicubically (antialiased) to 8 bits, as published.

    The output is brought to the wanted size bicubically without antialiasing, as published; a disparity that is 0 in
    the network may become slightly negative by that. Features are the normalised tokens of any block, ``block1`` on.

    Args:
        network: with the published output: disparity, or metric depth in mm.
        name: for people.
        input_size: (width, height) that the network sees, multiples of the patch; by default :func:`published_size`.
        device: torch device.

    Raises:
        UsageError: ``teacher.input-size``.
    """

    def __init__(
        self, network: DepthAnything, *, name: str, input_size: tuple[int, int] | None = None, device: str = "cpu"
    ) -> None:
        self._network = network.to(device).float().eval().requires_grad_(False)
        # One picture at a time: threads of torch already share the cores, and large networks need gigabytes for one.
        self._device, self._lock = device, threading.Lock()
        self.name, self.kind = name, network.kind
        self._side = network.grid * PATCH
        if input_size is not None and (min(input_size) < PATCH or any(side % PATCH for side in input_size)):
            near = " x ".join(str(max(1, round(side / PATCH)) * PATCH) for side in input_size)
            raise UsageError(
                f"The teacher '{name}' cannot see {input_size[0]}x{input_size[1]}",
                why=f"It cuts the picture into patches of {PATCH} x {PATCH} pixels.",
                fix=f"Use teacher.input_size={near.replace(' ', '')}, or leave it out.",
                error_id="teacher.input-size",
            )
        self._input_size = input_size
        facts = {key: value for key, value in network.config().items() if key not in _INDECISIVE}
        self.sha256 = weights_sha256(network, extra=json.dumps(facts, sort_keys=True))

    @classmethod
    def load(cls, spec: str, *, input_size: tuple[int, int] | None = None, device: str = "cpu") -> Self:
        """From a folder in the layout of ``transformers``, a hub id, or a file of the original release.

        Raises:
            ModelError, UsageError: see :func:`endolux.models.transplant.depth_anything_from`.
            MissingExtraError: ``transformers`` is not installed.
        """
        from endolux.models.transplant import depth_anything_from

        return cls(depth_anything_from(spec), name=Path(spec).name, input_size=input_size, device=device)

    @override
    def preprocessing(self) -> Mapping[str, object]:
        return {
            "by": "depth-anything",
            "version": 1,
            "input_size": None if self._input_size is None else list(self._input_size),
            "side": self._side,
        }

    @override
    def feature_names(self) -> Mapping[str, int]:
        return self._network.feature_names()

    @override
    def squeezes(self, width: int, height: int) -> float:
        if self._input_size is None:
            return 1.0
        return (self._input_size[0] / self._input_size[1]) / (width / height)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that the network sees of a picture of the given size."""
        return self._input_size or published_size(width, height, side=self._side)

    @override
    def _predict(
        self, image: ImageArray, size: tuple[int, int], features: Sequence[str]
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        width, height = self.network_size(image.shape[1], image.shape[0])
        with self._lock, torch.inference_mode():
            pixels = torch.tensor(np.asarray(image), device=self._device).permute(2, 0, 1)[None].float()
            pixels = resized_bicubic(pixels, (height, width)) * (1.0 / 255.0)
            output, maps = self._network.with_features(pixels, features)
            depth = self._network.depth_of(output)
            values = F.interpolate(depth, (size[1], size[0]), mode="bicubic", align_corners=False)[0, 0]
            found = {name: maps[name][0].float().cpu().numpy() for name in features}
        return values.cpu().numpy(), found


def resized_bicubic(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """N x 3 x H x W values of 0 to 255, resized with an antialiased bicubic filter and rounded, as Pillow does.

    Example:
        >>> resized_bicubic(torch.full((1, 3, 4, 4), 7.0), (8, 6)).unique().tolist()
        [7.0]
    """
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).round_().clamp_(0.0, 255.0)


def other_model(spec: str, model_type: str) -> ModelError:
    """The error for a model that is no Depth Anything 1 or 2."""
    if re.fullmatch(r"(da|depth_?anything_?)3.*", model_type, re.I):
        return ModelError(
            f"'{spec}' is a Depth Anything 3, which cannot be read",
            why="transformers 5 has no such model: ports run code from the hub, and its package needs torchvision. "
            "(The weights of its mono model are Apache-2.0.)",
            fix="Use Depth Anything 1 or 2, or describe an ONNX file of it as a bundle.",
            error_id="teacher.architecture",
        )
    return ModelError(
        f"'{spec}' is a '{model_type}', not a Depth Anything",
        why=f"Teachers of the kind '{MODEL_TYPE}' can be read: that is Depth Anything v1 and v2, relative and metric.",
        fix="Use one of these, or export your own network as a bundle.",
        error_id="teacher.architecture",
    )


def unavailable(spec: str, error: Exception) -> ModelError:
    """The error for a model that cannot be read or fetched."""
    if "depth_anything_3" in str(error) or re.match(r"da3|depth-anything-3", Path(spec).name, re.I):
        return other_model(spec, "depth_anything_3")
    if Path(spec).expanduser().is_dir():
        return ModelError(
            f"The model in '{spec}' cannot be read",
            why=f"{type(error).__name__}: {_sentence(error)}",
            fix="The folder must hold config.json and model.safetensors.",
            error_id="teacher.fetch",
        )
    offline = " (this process is set to work offline)" if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0") else ""
    return ModelError(
        f"There is no folder '{spec}', and a model of that name cannot be fetched{offline}",
        why=f"{type(error).__name__}: {_sentence(error)}",
        fix=f"On a machine with network: hf download {spec} --local-dir FOLDER; then give FOLDER in its place.",
        error_id="teacher.fetch",
    )


def _sentence(error: Exception) -> str:
    """The first sentence of a message, without the addresses that libraries put into theirs."""
    words = re.sub(r"['\"]?https?://[^\s'\"]+['\"]?", "the hub", " ".join(str(error).split()))
    return re.split(r"(?<=[.!?])\s", words, maxsplit=1)[0][:240]
