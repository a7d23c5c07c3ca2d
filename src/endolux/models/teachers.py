"""Teachers: whatever maps an image to depth or disparity, behind one interface."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from typing_extensions import override

from endolux.errors import ModelError, UsageError
from endolux.models.base import DepthNetwork
from endolux.prep.network_input import network_input, restore
from endolux.runtime.bundles import CARD, find_bundle, list_bundles, load_bundle
from endolux.runtime.card import Preprocessing
from endolux.runtime.engines import create_engine
from endolux.runtime.model import Model
from endolux.types import DepthKind, FloatArray, ImageArray

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
RunLoader = Callable[[Path], DepthNetwork]
"""Reads the network of a training run; the room of training has one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherOutput:
    """What a teacher says about one image.

    Attributes:
        map: height x width float32 over the whole image; NaN where the teacher says nothing.
        kind: meaning of its values.
        features: C x h x w float32 by layer name, over the whole image, in the layer's own resolution.
    """

    map: FloatArray
    kind: DepthKind
    features: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)

    def knowledge(self) -> FloatArray:
        """The map as a student receives it: an inverse depth (near is large) of any positive scale.

        Depth becomes 1 / depth, whether metric or known up to a factor; a disparity stays as it is, its unknown shift
        included. NaN where nothing is known, a depth that is not positive included.

        Example:
            >>> TeacherOutput(map=np.array([[2.0, 0.0]], np.float32), kind=DepthKind.METRIC).knowledge().tolist()
            [[0.5, nan]]
        """
        if self.kind is DepthKind.RELATIVE_DISPARITY:
            return np.where(np.isfinite(self.map), self.map, np.float32(np.nan)).astype(np.float32)
        known = np.isfinite(self.map) & (self.map > 0)
        inverse = np.full(self.map.shape, np.nan, np.float32)
        np.divide(np.float32(1), self.map, out=inverse, where=known)
        return inverse


class Teacher(abc.ABC):
    """A fixed model that is asked, never trained. Instances may be shared by threads.

    Attributes:
        name: for people.
        sha256: identity of the weights (and of the card, for a bundle).
        kind: meaning of the values of its maps.
    """

    name: str
    sha256: str
    kind: DepthKind

    @abc.abstractmethod
    def preprocessing(self) -> Mapping[str, object]:
        """Everything else that decides the output, as JSON values."""

    @abc.abstractmethod
    def _predict(
        self, image: ImageArray, size: tuple[int, int], features: Sequence[str]
    ) -> tuple[FloatArray, dict[str, FloatArray]]: ...

    def feature_names(self) -> Mapping[str, int]:
        """Channels of every layer that can be asked for, by name; none for a model that only gives depth."""
        return {}

    def squeezes(self, width: int, height: int) -> float:  # noqa: ARG002
        """Factor by which a picture of this size changes its aspect ratio before the teacher sees it; 1 if not."""
        return 1.0

    def predict(
        self, image: ImageArray, *, size: tuple[int, int] | None = None, features: Sequence[str] = ()
    ) -> TeacherOutput:
        """What the teacher says about one image, the same bytes every time on one machine.

        Args:
            image: H x W x 3 uint8, RGB.
            size: (width, height) of the map; the image's own by default.
            features: layers whose maps are wanted too.

        Raises:
            UsageError: ``teacher.feature`` for a layer it does not have, ``teacher.image``.
        """
        self.check_features(features)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise UsageError(
                f"A teacher needs an H x W x 3 uint8 image, not {image.shape} {image.dtype}",
                why="Preprocessing is defined on 8-bit RGB pixels.",
                fix="Convert the array to uint8 RGB first.",
                error_id="teacher.image",
            )
        values, maps = self._predict(image, size or (image.shape[1], image.shape[0]), features)
        return TeacherOutput(map=values, kind=self.kind, features=maps)

    def check_features(self, names: Sequence[str]) -> None:
        """Refuse layers that the teacher does not have.

        Raises:
            UsageError: ``teacher.feature``.
        """
        import difflib

        known = self.feature_names()
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UsageError(
                    f"The teacher '{self.name}' has no layer '{name}'",
                    why=f"It has {', '.join(known)}." if known else "It gives its depth and nothing else.",
                    fix=f"Did you mean '{near[0]}'?"
                    if near
                    else "Leave the feature pairs out, or use another teacher.",
                    error_id="teacher.feature",
                )


class BundleTeacher(Teacher):
    """A bundle on ONNX Runtime in float32. Outside the content area, which it finds itself, it says nothing.

    Args:
        model: loaded model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.name, self.sha256, self.kind = model.name, model.bundle.card_sha256, model.kind

    @override
    def preprocessing(self) -> Mapping[str, object]:
        described = self._model.describe()
        return {"by": "card", **{key: described[key] for key in ("engine", "engine_version", "precision")}}

    @override
    def squeezes(self, width: int, height: int) -> float:
        spec = self._model.bundle.card.preprocessing
        if getattr(spec, "resize", "keep-aspect") != "stretch":
            return 1.0
        return (spec.width / spec.height) / (width / height)

    @override
    def _predict(
        self, image: ImageArray, size: tuple[int, int], features: Sequence[str]
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        depth = self._model.predict(image)
        return _resized(np.where(depth.valid, depth.values, np.float32(np.nan)).astype(np.float32), size), {}


class NetworkTeacher(Teacher):
    """A network of the registry in float32, on the whole picture.

    Args:
        network: trained network.
        name: for people.
        input_size: (width, height) near which the network sees a picture, keeping its aspect; the picture's own size,
            rounded to the network's multiple, by default.
        device: torch device.
    """

    def __init__(
        self, network: DepthNetwork, *, name: str, input_size: tuple[int, int] | None = None, device: str = "cpu"
    ) -> None:
        self._network = network.to(device).float().eval().requires_grad_(False)
        self._device, self._input_size = device, input_size
        self.name, self.kind = name, network.kind
        self.sha256 = weights_sha256(network, extra=repr(sorted(network.config().items())) + network.architecture)

    @override
    def preprocessing(self) -> Mapping[str, object]:
        return {"by": "network", "input_size": None if self._input_size is None else list(self._input_size)}

    @override
    def feature_names(self) -> Mapping[str, int]:
        return self._network.feature_names()

    @override
    def _predict(
        self, image: ImageArray, size: tuple[int, int], features: Sequence[str]
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        width, height = self._input_size or (image.shape[1], image.shape[0])
        spec = Preprocessing(height=height, width=width, multiple=self._network.multiple, layout="nchw-float32")
        source = network_input(image, spec=spec)
        with torch.inference_mode():
            tensor = torch.from_numpy(np.asarray(source.array, np.float32)).to(self._device)
            output, maps = self._network.with_features(tensor, features)
            values = self._network.depth_of(output)[0, 0].cpu().numpy()
        found = {name: value[0].float().cpu().numpy() for name, value in maps.items()}
        return restore(np.ascontiguousarray(values), source, size=size), found


def open_teacher(
    spec: str,
    *,
    input_size: tuple[int, int] | None = None,
    device: str = "cpu",
    load_run: RunLoader | None = None,
) -> Teacher:
    """A teacher by what a recipe calls it.

    Args:
        spec: in this order: the name of a bundle of this installation; a folder with a bundle, with a training run
            of Endolux, or with a foundation model in the layout of ``transformers``; a file of Depth Anything's
            original release; a hub id ``OWNER/NAME``.
        input_size: (width, height) that the teacher sees; its own rule by default. A bundle's card has the only say.
        device: torch device; bundles always run on the CPU.
        load_run: how to read the network of a run folder (``endolux.train.knowledge.open_teacher`` brings it along).

    Raises:
        ModelError: ``teacher.unknown``, ``teacher.fetch``, ``teacher.architecture`` or what the loader says.
        UsageError: ``teacher.input-size``.
        MissingExtraError: a foundation model without ``transformers``.

    Example:
        >>> open_teacher("no-such-teacher")
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[teacher.unknown]: No teacher 'no-such-teacher'
        ...
    """
    folder = Path(spec).expanduser()
    if spec in list_bundles() or (folder / CARD).is_file():
        if input_size is not None:
            raise UsageError(
                f"The teacher '{spec}' cannot see {input_size[0]}x{input_size[1]} on demand",
                why="It is a bundle, whose card fixes how pictures become its input.",
                fix="Leave teacher.input_size out.",
                error_id="teacher.input-size",
            )
        bundle = load_bundle(find_bundle(spec))
        return BundleTeacher(Model(bundle, create_engine(bundle)))
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return _foundation(str(folder), input_size, device)
        if load_run is not None:
            return NetworkTeacher(load_run(folder), name=folder.name, input_size=input_size, device=device)
    elif folder.is_file() or _HUB_ID.fullmatch(spec):
        return _foundation(spec, input_size, device)
    raise ModelError(
        f"No teacher '{spec}'",
        why=f"It is no bundle ({', '.join(list_bundles()) or 'none is installed'}), no folder with {CARD}, config.json "
        "or a training run, no file of weights, and no hub id.",
        fix="Give one of these, for instance teacher.model=repdepth-colon.",
        error_id="teacher.unknown",
    )


def _foundation(spec: str, input_size: tuple[int, int] | None, device: str) -> Teacher:
    from endolux.models.foundation import FoundationTeacher

    return FoundationTeacher.load(spec, input_size=input_size, device=device)


def weights_sha256(network: nn.Module, *, extra: str = "") -> str:
    """Hash of names, shapes, types and bytes of every tensor of a network, in the order of the names."""
    digest = hashlib.sha256(extra.encode())
    for name, tensor in sorted(network.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tuple(array.shape)}\0{array.dtype}\0".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _resized(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Area means where the map shrinks, bilinear where it grows; unknown pixels stay out of every mean."""
    height, width = values.shape
    if (width, height) == size:
        return values
    how = cv2.INTER_AREA if size[0] < width or size[1] < height else cv2.INTER_LINEAR
    known = np.isfinite(values)
    share = np.asarray(cv2.resize(known.astype(np.float32), size, interpolation=how), np.float32)
    sums = np.asarray(cv2.resize(np.where(known, values, np.float32(0)), size, interpolation=how), np.float32)
    result = np.full(share.shape, np.nan, np.float32)
    np.divide(sums, share, out=result, where=share >= 0.5)
    return result
