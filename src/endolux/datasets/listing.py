"""Data sets whose frames are found by listing files at opening, and what their checks share."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Dataset, Finding, FrameKey, Sample, Severity
from endolux.datasets.decode import matrix_of, read_text
from endolux.datasets.registration import Offset, edge_offset
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.io.paths import printable
from endolux.types import Camera, DepthKind, DepthMap, ImageArray

_PROBES = 8
_POLARITY_PIXELS = 20_000


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
        found = [_info("count.frames", f"{len(self._keys)} frames in {len(sequences)} sequence(s).")]
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
            own = [_of_error(error)]
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
                found.append(_of_error(error, key))
                continue
            found += _check_sample(sample)
            if sample.depth is not None:
                correlations.append(brightness_correlation(sample.frame.image, sample.depth))
                pairs.append((sample.frame.image, sample.depth))
        found += _check_offset(edge_offset(pairs))
        mean = float(np.mean(correlations)) if correlations else float("nan")
        if self.lit_by_camera and np.isfinite(mean):
            far_is_dark = mean < 0.3
            text = f"Brightness and depth correlate by {mean:+.2f} over {len(correlations)} frames"
            if far_is_dark:
                found.append(_info("depth.polarity", f"{text}: near is bright, as a light at the camera makes it."))
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


def brightness_correlation(image: ImageArray, depth: DepthMap) -> float:
    """Pearson correlation of luminance with the values of a depth map, over valid pixels; NaN where one is constant.

    Example:
        >>> values = np.array([[1.0, 2.0, 3.0]], np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0)
        >>> picture = np.repeat((60 - 10 * values).astype(np.uint8)[:, :, None], 3, axis=2)
        >>> round(brightness_correlation(picture, depth), 6)
        -1.0
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if grey.shape != depth.values.shape:
        grey = cv2.resize(grey, depth.size, interpolation=cv2.INTER_AREA)
    step = max(1, int(np.sqrt(grey.size / _POLARITY_PIXELS)))
    values, valid = depth.values[::step, ::step], depth.valid[::step, ::step]
    result = correlation(grey[::step, ::step][valid], values[valid])
    return -result if depth.kind is DepthKind.RELATIVE_DISPARITY else result


def correlation(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Pearson correlation of two flat arrays; NaN for fewer than two values or a constant one.

    Example:
        >>> correlation(np.array([1.0, 2.0]), np.array([5.0, 3.0]))
        -1.0
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    if x.size < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def published_count(have: int, published: int, what: str) -> Finding:
    """Information where the counts agree, a warning where they do not."""
    if have == published:
        return _info("count.published", f"{have} {what}, as published.")
    return Finding(
        severity=Severity.WARNING,
        code="count.published",
        message=f"{have} {what}; {published} are published.",
        fix="Unpack the missing parts; a score over a part does not compare with published ones.",
    )


def pose_rows(path: Path, *, columns: int, separator: str = ",") -> tuple[list[npt.NDArray[np.float64]], list[Finding]]:
    """Rows of finite numbers; a first line of names is skipped, and a torn last line becomes a finding.

    Raises:
        InputError: ``dataset.matrix`` for any other line that does not hold ``columns`` numbers.
    """
    text = read_text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    findings: list[Finding] = []
    if text and not text.endswith("\n"):
        findings.append(_info("pose.final-newline", f"'{printable(path.name)}' ends without a line break."))
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


def lone_depths(paths: Sequence[Path]) -> list[Finding]:
    """A finding for depth files without a picture."""
    if not paths:
        return []
    return [
        Finding(
            severity=Severity.WARNING,
            code="image.missing",
            message=f"{len(paths)} depth file(s) have no picture, the first is '{printable(paths[0])}'.",
            fix="Unpack the pictures too.",
        )
    ]


def memo(function: Callable[[Path], Camera | None]) -> Callable[[Path], Camera | None]:
    """Remember what was read from a path: calibration is read once, not once a frame."""
    known: dict[Path, Camera | None] = {}

    def read(path: Path) -> Camera | None:
        if path not in known:
            known[path] = function(path)
        return known[path]

    return read


def information(code: str, message: str) -> Finding:
    """A finding that asks for nothing."""
    return _info(code, message)


def _check_sample(sample: Sample) -> list[Finding]:
    depth, key = sample.depth, sample.key
    if depth is None:
        return []
    found: list[Finding] = []
    values = depth.values[depth.valid]
    if not values.size:
        text = f"{key}: no pixel of the depth is valid."
        found.append(Finding(severity=Severity.ERROR, code="depth.empty", message=text, fix="Unpack the file again."))
    elif values.min() == values.max():
        text = f"{key}: every valid depth is {float(values[0]):g}."
        found.append(Finding(severity=Severity.WARNING, code="depth.constant", message=text, fix="Look at the file."))
    width, height = sample.frame.size
    if abs(width * depth.size[1] - height * depth.size[0]) > max(width, height):
        text = f"{key}: the picture is {width}x{height}, the depth {depth.size[0]}x{depth.size[1]}."
        fix = "Use files of one release; one of them was cropped or stretched."
        found.append(Finding(severity=Severity.ERROR, code="depth.aspect", message=text, fix=fix))
    if sample.excluded:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(sample.excluded.items()))
        found.append(_info("depth.excluded", f"{key}: {counts} of {depth.values.size} reference pixels are left out."))
    return found


def _check_offset(offset: Offset) -> list[Finding]:
    if not offset.misaligned:
        return []
    text = (
        f"Edges of the pictures lie {offset.x:+.0f} px across and {offset.y:+.0f} px down from those of the depth "
        f"(correlation {offset.peak:.2f} there, {offset.here:.2f} in place, {offset.frames} frames)."
    )
    fix = (
        "The depth may belong to other frames, another camera or another crop; errors at edges will not fall below it."
    )
    return [Finding(severity=Severity.WARNING, code="depth.misaligned", message=text, fix=fix)]


def _of_error(error: EndoluxError, key: FrameKey | None = None) -> Finding:
    text = f"{error.what}. {error.why}"
    text = text if key is None else f"{key}: {text}"
    return Finding(severity=Severity.ERROR, code=error.error_id, message=text, fix=error.fix)


def _floats(cells: Sequence[str]) -> list[float] | None:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return None


def _info(code: str, message: str) -> Finding:
    return Finding(severity=Severity.INFO, code=code, message=message)
