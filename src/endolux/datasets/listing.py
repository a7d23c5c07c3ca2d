"""Data sets whose frames are found by listing files at opening, and what their checks share."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Dataset, Finding, FrameKey, Sample, Severity
from endolux.datasets.brightness import brightness_correlation
from endolux.datasets.decode import matrix_of, read_text
from endolux.datasets.findings import check_offset, check_sample, finding_of, information
from endolux.datasets.registration import edge_offset
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.io.paths import printable
from endolux.types import Camera, DepthMap, ImageArray

_PROBES = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Files of one frame.

    Attributes:
        image: picture.
        depth: reference, None where the set has none for this frame.
    """

    image: Path
    depth: Path | None = None


E = TypeVar("E", bound=Entry)


class ListedDataset(Dataset, Generic[E]):
    """A data set that was listed at opening.

    Args:
        name: registry name.
        root: opened folder.
        entries: frames with their files, in order.
        findings: what was odd while listing (a depth without a picture); shown by ``check``.

    Raises:
        InputError: ``dataset.empty`` for no frames.
    """

    def __init__(
        self, *, name: str, root: Path, entries: Mapping[FrameKey, E], layout: str, findings: Iterable[Finding] = ()
    ) -> None:
        if not entries:
            raise InputError(
                f"No frames of '{name}' in '{printable(root)}'",
                why=f"This set lies as {layout}.",
                fix="Give the folder that holds it, or name another reader.",
                error_id="dataset.empty",
            )
        self.name = name
        self.root = root
        self._entries = dict(entries)
        self._keys = tuple(self._entries)
        self._findings = tuple(findings)
        self._places = {(key.sequence, key.side, key.index): key for key in self._keys}

    @override
    def keys(self) -> Sequence[FrameKey]:
        return self._keys

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        entry = self.entry(key)
        return [path for path in (entry.image, entry.depth) if path is not None]

    @override
    def neighbours(self, key: FrameKey, offsets: Sequence[int] = (-1, 1)) -> list[FrameKey | None]:
        return [self._places.get((key.sequence, key.side, key.index + offset)) for offset in offsets]

    @override
    def check(self) -> list[Finding]:
        sequences = {key.sequence for key in self._keys}
        found = [information("count.frames", f"{len(self._keys)} frames in {len(sequences)} sequence(s).")]
        without = sum(entry.depth is None for entry in self._entries.values())
        if without:
            found.append(
                Finding(
                    severity=Severity.WARNING,
                    code="depth.missing",
                    message=f"{without} of {len(self._keys)} frames have no depth file.",
                    fix="Unpack the depth archives beside the pictures, or leave those frames out knowingly.",
                )
            )
        try:
            own = self.check_set()
        except EndoluxError as error:
            own = [finding_of(error)]
        return [*found, *self._findings, *own, *self._probe()]

    def check_set(self) -> list[Finding]:
        """What only this set can check; published counts, calibration, polarity."""
        return []

    def entry(self, key: FrameKey) -> E:
        """Files of a frame. Raises UsageError ``dataset.key`` for a frame that the set does not have."""
        try:
            return self._entries[key]
        except KeyError:
            raise UsageError(
                f"No frame '{key}' in '{self.name}'",
                why=f"The opened folder has {len(self._keys)} frames, from '{self._keys[0]}' to '{self._keys[-1]}'.",
                fix="Take keys from dataset.keys().",
                error_id="dataset.key",
            ) from None

    def position(self, key: FrameKey) -> int:
        """Number of the frame in the order of ``keys``."""
        self.entry(key)
        return self._positions[key]

    @cached_property
    def _positions(self) -> dict[FrameKey, int]:
        return {key: number for number, key in enumerate(self._keys)}

    def probes(self, count: int = _PROBES) -> list[FrameKey]:
        """At most ``count`` keys with depth, spread evenly over the set."""
        keys = [key for key in self._keys if self._entries[key].depth is not None] or list(self._keys)
        if len(keys) <= count:
            return keys
        return [keys[round(i * (len(keys) - 1) / (count - 1))] for i in range(count)]

    def _probe(self) -> list[Finding]:
        found: list[Finding] = []
        correlations: list[float] = []
        pairs: list[tuple[ImageArray, DepthMap]] = []
        for key in self.probes():
            try:
                sample = self.load(key)
            except EndoluxError as error:
                found.append(finding_of(error, key))
                continue
            found += check_sample(sample)
            if sample.depth is not None:
                correlations.append(brightness_correlation(sample.frame.image, sample.depth))
                pairs.append((sample.frame.image, sample.depth))
        found += check_offset(edge_offset(pairs))
        mean = float(np.mean(correlations)) if correlations else float("nan")
        if self.lit_by_camera and np.isfinite(mean):
            far_is_dark = mean < 0.3
            text = f"Brightness and depth correlate by {mean:+.2f} over {len(correlations)} frames"
            if far_is_dark:
                found.append(
                    information("depth.polarity", f"{text}: near is bright, as a light at the camera makes it.")
                )
            else:
                found.append(
                    Finding(
                        severity=Severity.WARNING,
                        code="depth.polarity",
                        message=f"{text}: far is bright, which a light at the camera does not do.",
                        fix="The depth may be stored inverted, or belong to other frames; compare a picture with it.",
                    )
                )
        return found

    lit_by_camera = True
    """Whether the light moves with the camera, so that near is bright."""


class DepthDataset(ListedDataset[E], abc.ABC):
    """A listed set without anything of its own to say about frames that have no depth."""

    @abc.abstractmethod
    def read(self, key: FrameKey, entry: E) -> Sample:
        """Read one frame whose files are known."""

    @override
    def load(self, key: FrameKey) -> Sample:
        return self.read(key, self.entry(key))


def pose_rows(path: Path, *, columns: int, separator: str = ",") -> tuple[list[npt.NDArray[np.float64]], list[Finding]]:
    """Rows of finite numbers; a first line of names is skipped, and a torn last line becomes a finding.

    Raises:
        InputError: ``dataset.matrix`` for any other line that does not hold ``columns`` numbers.
    """
    text = read_text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    findings: list[Finding] = []
    if text and not text.endswith("\n"):
        findings.append(information("pose.final-newline", f"'{printable(path.name)}' ends without a line break."))
    rows: list[npt.NDArray[np.float64]] = []
    for number, line in enumerate(lines):
        cells = line.replace(separator, " ").split()
        numbers = _floats(cells)
        if numbers is None and number == 0:
            continue
        if numbers is None or len(numbers) < columns or not np.isfinite(numbers[:columns]).all():
            if number == len(lines) - 1:
                findings.append(
                    Finding(
                        severity=Severity.WARNING,
                        code="pose.torn-line",
                        message=f"The last line of '{printable(path.name)}' is incomplete; that frame has no pose.",
                        fix="Known of this set; nothing to do.",
                    )
                )
                break
            matrix_of("torn", (1, columns), f"Line {number + 1} of '{printable(path)}'")
        else:
            rows.append(np.array(numbers[:columns]))
    return rows, findings


def pinhole(width: int, height: int, matrix: npt.NDArray[np.float64]) -> Camera:
    """A camera without distortion from its 3 x 3 matrix."""
    k = matrix
    return Camera(
        width=width, height=height, fx=float(k[0, 0]), fy=float(k[1, 1]), cx=float(k[0, 2]), cy=float(k[1, 2])
    )


def no_frame(key: FrameKey, name: str, fix: str) -> InputError:
    """The error for a frame that an opened copy of the set does not have."""
    return InputError(
        f"There is no frame '{key}' in this copy of {name}",
        why="The picture is missing.",
        fix=fix,
        error_id="dataset.no-frame",
    )


def key_order(key: FrameKey) -> tuple[str, int, str]:
    """Order of frames: by sequence, number and side."""
    return key.sequence, key.index, key.side


def unique(entries: dict[FrameKey, E], key: FrameKey, entry: E) -> None:
    """Add a frame. Raises InputError ``dataset.ambiguous`` where its identity is taken."""
    if key in entries:
        raise InputError(
            f"Frame '{key}' has two files: '{printable(entries[key].image)}' and '{printable(entry.image)}'",
            why="Frames are found by the names of files and folders.",
            fix="Keep one of them in the folder.",
            error_id="dataset.ambiguous",
        )
    entries[key] = entry


def memo(function: Callable[[Path], Camera | None]) -> Callable[[Path], Camera | None]:
    """Remember what was read from a path: calibration is read once, not once a frame."""
    known: dict[Path, Camera | None] = {}

    def read(path: Path) -> Camera | None:
        if path not in known:
            known[path] = function(path)
        return known[path]

    return read


def _floats(cells: Sequence[str]) -> list[float] | None:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return None
