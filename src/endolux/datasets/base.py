"""What every data set reader yields and every protocol states: the nouns of this room."""

from __future__ import annotations

import abc
import dataclasses
import enum
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.errors import UsageError
from endolux.geometry.align import Alignment
from endolux.types import DepthMap, Frame


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameKey:
    """Identity of one frame of a data set, independent of where it lies on disk.

    Attributes:
        sequence: name of its sequence, in the data set's own words (``dataset1/keyframe2``, ``cecum_t1_a``).
        index: number of the frame in its sequence, as the files count it.
        side: ``left`` or ``right`` for stereo sets, empty otherwise.
    """

    sequence: str
    index: int
    side: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.sequence} {self.index}{' ' + self.side if self.side else ''}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One frame with everything its data set knows about it.

    Attributes:
        key: identity.
        frame: image with camera and valid mask where known.
        depth: reference depth at its own resolution with its true kind (METRIC in mm where the set is metric);
            None where the set has none for this frame.
        pose: 4 x 4 camera-to-world in mm (unit scale where the set has none, see the reader), None if unknown.
        labels: named H x W uint8 masks (landmarks, tools), empty if none.
        excluded: counts of reference pixels left out by reason (``infinite``, ``negative``, ``capped``).
    """

    key: FrameKey
    frame: Frame
    depth: DepthMap | None = None
    pose: npt.NDArray[np.float64] | None = None
    labels: Mapping[str, npt.NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    excluded: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Severity(enum.StrEnum):
    """How bad a finding of a data check is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a data check noticed.

    Attributes:
        severity: error means that the set cannot be used as it lies there.
        code: stable short name (``count.frames``, ``depth.polarity``, ``split.final-newline``).
        message: what was found, with numbers.
        fix: what to do, empty for information.
    """

    severity: Severity
    code: str
    message: str
    fix: str = ""


class Dataset(abc.ABC):
    """An opened data set folder. Opening lists files; nothing is decoded until ``load``.

    Attributes:
        name: registry name.
        root: folder of the unpacked data set.
    """

    name: str
    root: Path

    @abc.abstractmethod
    def keys(self) -> Sequence[FrameKey]:
        """All frames in a fixed order."""

    @abc.abstractmethod
    def load(self, key: FrameKey) -> Sample:
        """Read one frame. Raises InputError where a file is missing or damaged."""

    @abc.abstractmethod
    def check(self) -> list[Finding]:
        """Look for what is missing or odd: counts against the published ones, units, encodings, polarity."""

    @abc.abstractmethod
    def files(self, key: FrameKey) -> Sequence[Path]:
        """The files that make up a frame, for manifests and hashes."""

    def view(self, key: FrameKey) -> Sample:
        """Read one frame; its reference depth may be left out, where reading it costs much."""
        return self.load(key)

    def neighbours(self, key: FrameKey, offsets: Sequence[int] = (-1, 1)) -> list[FrameKey | None]:
        """Keys of the frames at the given distances in the same sequence and side; None where there is none."""
        present = {
            (other.sequence, other.side, other.index): other
            for other in self.keys()
            if other.sequence == key.sequence and other.side == key.side
        }
        return [present.get((key.sequence, key.side, key.index + offset)) for offset in offsets]

    def samples(self) -> Iterator[Sample]:
        """Every frame in order."""
        for key in self.keys():
            yield self.load(key)


Opener = Callable[[Path], Dataset]
READERS: dict[str, Opener] = {}


def reader(name: str) -> Callable[[Opener], Opener]:
    """Register the class or function that opens a data set folder under ``name``."""

    def decorate(opener: Opener) -> Opener:
        READERS[name] = opener
        return opener

    return decorate


class Averaging(enum.StrEnum):
    """What a protocol's mean runs over."""

    FRAME = "frame"
    SEQUENCE = "sequence"
    """Mean over a sequence's frames first, then over sequences."""
    PIXEL = "pixel"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A named, versioned way to score depth. Two results compare only under the same id and frame-list hash.

    Attributes:
        name: registry name, for example ``scared-afsfm-551``.
        version: raised whenever a number could change.
        dataset: registry name of the reader.
        summary: one line.
        source: where the convention is published.
        select: from all keys of the opened set (and the path of a split file, if given) to the scored ones, in order.
        expected_frames: published number of scored frames, None where there is none.
        minimum, maximum: reference values are valid in (minimum, maximum] (mm, or the unit of ``unit``).
        clamp_prediction: whether the aligned prediction is clamped to that range, as many originals do.
        alignment: what is fitted per frame.
        averaging: what the mean runs over.
        crop: pixel window (top, bottom, left, right) as fractions of the height and width, None for all.
        resize_prediction: ``bilinear`` where predictions of another size are resized to the reference, as published.
        reproduce: names of the original's quirks that this protocol keeps; empty for a correct protocol.
        unit: unit of the range and of absolute errors.
        crop_pixels: pixel window (top, bottom, left, right), ends excluded and cut off at the edge of the image, for
            originals that use the same numbers on images of different sizes; never together with ``crop``.
        baselines: rows that every table under this protocol needs beside the model's (``constant``).
        task: what is scored: ``depth`` or ``landmarks``.
        unusable: what becomes of a frame whose median prediction over the scored pixels is not finite and positive (for
            disparity: that has no finite prediction there): ``worst``, a prediction of zero everywhere (AbsRel 1,
            deltas 0, no logarithms; section 5.1 of Surgical Depth Anything), or ``left-out``, a failed frame, only
            where the original skips it. Both are counted.
        floor: aligned predictions below it, zero and negative ones included, are raised to it; 0 leaves predictions of
            zero and below out, where the protocol has no clamp.
        extra_metrics: names of ``endolux.metrics.EXTRA_METRICS`` that the original also prints.
        scope: what the alignment is fitted over: ``frame``, or ``sequence``, one factor for all frames of a sequence.
        ratio_maximum: largest depth M (in ``unit``) for networks that give the ratio M / depth, as Leve and GuideDepth
            do: their metric depth is brought from the M of their training to this one. None leaves it as it is.
        whole_picture: whether models see the whole picture even where it has a black rim, as networks that know of no
            content area do.
        notes: what a reader of its figures has to know of how they come about.
    """

    name: str
    version: int
    dataset: str
    summary: str
    source: str
    select: Callable[[Sequence[FrameKey], Path | None], Sequence[FrameKey]]
    expected_frames: int | None = None
    minimum: float = 0.0
    maximum: float = float("inf")
    clamp_prediction: bool = False
    alignment: Alignment = Alignment.MEDIAN
    averaging: Averaging = Averaging.FRAME
    crop: tuple[float, float, float, float] | None = None
    resize_prediction: str = "bilinear"
    reproduce: tuple[str, ...] = ()
    unit: str = "mm"
    crop_pixels: tuple[int, int, int, int] | None = None
    baselines: tuple[str, ...] = ()
    task: str = "depth"
    unusable: str = "worst"
    floor: float = 0.0
    extra_metrics: tuple[str, ...] = ()
    scope: str = "frame"
    ratio_maximum: float | None = None
    whole_picture: bool = False
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Name and version as results cite them."""
        return f"{self.name}/{self.version}"


PROTOCOLS: dict[str, Protocol] = {}


def protocol(definition: Protocol) -> Protocol:
    """Register a protocol under its name."""
    if definition.name in PROTOCOLS:
        raise UsageError(
            f"Two protocols are called '{definition.name}'",
            why="Results cite protocols by name.",
            fix="Give the new one another name.",
            error_id="protocol.duplicate",
        )
    PROTOCOLS[definition.name] = definition
    return definition


def frame_list_sha256(keys: Sequence[FrameKey]) -> str:
    """Hash over the identities of the scored frames, in order: the same list on every machine.

    Example:
        >>> frame_list_sha256([FrameKey(sequence="a", index=1)])[:8]
        '21d072d4'
    """
    text = "\n".join(f"{key.sequence}\t{key.index}\t{key.side}" for key in keys)
    return hashlib.sha256(text.encode()).hexdigest()
