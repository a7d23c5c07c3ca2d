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
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import ModelError, UsageError
from endolux.models.teachers import Teacher, weights_sha256
from endolux.types import DepthKind, FloatArray, ImageArray

MODEL_TYPE = "depth_anything"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 518
_DECISIVE = ("patch_size", "reassemble_factors", "head_in_index", "depth_estimation_type", "max_depth")
_DECISIVE_BACKBONE = ("out_features", "num_attention_heads", "layer_norm_eps", "apply_layernorm", "hidden_act")


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
    the network may become slightly negative by that.

    Args:
        network: ``DepthAnythingForDepthEstimation``.
        name: for people.
        input_size: (width, height) that the network sees, multiples of the patch; by default :func:`published_size`.
        device: torch device.

    Raises:
        UsageError: ``teacher.input-size``.
    """

    def __init__(
        self, network: nn.Module, *, name: str, input_size: tuple[int, int] | None = None, device: str = "cpu"
    ) -> None:
        config = json.loads(network.config.to_json_string(use_diff=False))  # type: ignore[operator,union-attr]
        self._network = network.to(device).float().eval().requires_grad_(False)
        self._device, self._lock = device, threading.Lock()
        self.name = name
        self._patch = int(config["patch_size"])
        metric = config["depth_estimation_type"] == "metric"
        self.kind = DepthKind.METRIC if metric else DepthKind.RELATIVE_DISPARITY
        # Metric heads give metres.
        self._scale = np.float32(1000.0 if metric else 1.0)
        backbone = config["backbone_config"]
        self._layers = {str(layer): int(backbone["hidden_size"]) for layer in backbone["out_features"]}
        self._side = int(backbone.get("image_size") or _SIDE)
        if input_size is not None and (min(input_size) < self._patch or any(side % self._patch for side in input_size)):
            near = " x ".join(str(max(1, round(side / self._patch)) * self._patch) for side in input_size)
            raise UsageError(
                f"The teacher '{name}' cannot see {input_size[0]}x{input_size[1]}",
                why=f"It cuts the picture into patches of {self._patch} x {self._patch} pixels.",
                fix=f"Use teacher.input_size={near.replace(' ', '')}, or leave it out.",
                error_id="teacher.input-size",
            )
        self._input_size = input_size
        # Only what the computation reads: names of releases and labels in a config change nothing.
        facts = {key: config.get(key) for key in _DECISIVE} | {key: backbone.get(key) for key in _DECISIVE_BACKBONE}
        self.sha256 = weights_sha256(network, extra=json.dumps(facts, sort_keys=True))

    @classmethod
    def load(cls, spec: str, *, input_size: tuple[int, int] | None = None, device: str = "cpu") -> Self:
        """From a local folder or a hub id; safetensors only, every weight present.

        Raises:
            ModelError: ``teacher.fetch`` where it cannot be had, ``teacher.architecture`` where it is another model,
                ``teacher.weights`` where weights are missing.
            MissingExtraError: ``transformers`` is not installed.
        """
        from endolux.models.transplant import open_transformers

        network = open_transformers(spec)
        return cls(network, name=Path(spec).name, input_size=input_size, device=device)

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
        return self._layers

    @override
    def squeezes(self, width: int, height: int) -> float:
        if self._input_size is None:
            return 1.0
        return (self._input_size[0] / self._input_size[1]) / (width / height)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that the network sees of a picture of the given size."""
        return self._input_size or published_size(width, height, side=self._side, multiple=self._patch)

    @override
    def _predict(
        self, image: ImageArray, size: tuple[int, int], features: Sequence[str]
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        width, height = self.network_size(image.shape[1], image.shape[0])
        # One picture at a time: the hook below belongs to one call, and threads of torch already share the cores.
        with self._lock, torch.inference_mode():
            pixels = torch.tensor(np.asarray(image), device=self._device).permute(2, 0, 1)[None].float()
            pixels = resized_bicubic(pixels, (height, width)) * (1.0 / 255.0)
            mean, std = (torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
            tokens: list[Tensor] = []
            backbone: nn.Module = self._network.backbone  # type: ignore[assignment]
            hook = _capture(backbone, tokens) if features else None
            try:
                output = self._network((pixels - mean) / std).predicted_depth
            finally:
                if hook is not None:
                    hook.close()
            values = F.interpolate(output[:, None], (size[1], size[0]), mode="bicubic", align_corners=False)[0, 0]
            rows, columns = height // self._patch, width // self._patch
            # The first token stands for the whole picture.
            maps = {
                name: tokens[index][0, 1:].T.reshape(-1, rows, columns).float().cpu().numpy()
                for index, name in enumerate(self._layers)
                if name in features
            }
        return values.float().cpu().numpy() * self._scale, {name: maps[name] for name in features}


def resized_bicubic(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """N x 3 x H x W values of 0 to 255, resized with an antialiased bicubic filter and rounded, as Pillow does.

    Example:
        >>> resized_bicubic(torch.full((1, 3, 4, 4), 7.0), (8, 6)).unique().tolist()
        [7.0]
    """
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).round_().clamp_(0.0, 255.0)


class _capture:  # noqa: N801
    """Keeps the feature maps that a backbone gives in one call."""

    def __init__(self, backbone: nn.Module, into: list[Tensor]) -> None:
        self._backbone, self._into = backbone, into
        self._original = backbone.forward_with_filtered_kwargs
        backbone.forward_with_filtered_kwargs = self._call  # type: ignore[assignment]

    def _call(self, *arguments: object, **options: object) -> object:
        output = self._original(*arguments, **options)  # type: ignore[operator]
        self._into.extend(output.feature_maps)
        return output

    def close(self) -> None:
        del self._backbone.forward_with_filtered_kwargs


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
    reason = " ".join(str(error).split())
    local = Path(spec).expanduser().is_dir()
    offline = " (this process is set to work offline)" if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0") else ""
    return ModelError(
        f"The teacher '{spec}' cannot be {'read' if local else 'fetched'}{'' if local else offline}",
        why=f"{type(error).__name__}: {reason[:240]}",
        fix="The folder must hold config.json and model.safetensors."
        if local
        else f"On a machine with network: hf download {spec} --local-dir FOLDER; then teacher.model=FOLDER.",
        error_id="teacher.fetch",
    )
