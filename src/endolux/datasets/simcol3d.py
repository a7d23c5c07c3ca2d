"""SimCol3D: rendered colonoscopy with exact depth and poses (SyntheticColon I, II and III).

Source: Rau et al. 2024, "SimCol3D: 3D reconstruction during colonoscopy challenge". Depth files are 16-bit PNG that
hold 8-bit steps: depth = value / (255 * 256) * 200 mm, and 65280 is the largest value. Pictures are 8-bit, or RGBA of
16 bits in some copies. Poses are those of a left-handed engine in cm; here they are camera-to-world in mm with x right,
y down and z forward.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Averaging, Finding, FrameKey, Protocol, Sample, Severity, protocol, reader
from endolux.datasets.decode import folders, metric_depth, numbered_files, read_codes, wrong_size
from endolux.datasets.findings import lone_depths, published_count
from endolux.datasets.listing import DepthDataset, Entry, pose_rows
from endolux.datasets.splits import every_frame, sequences
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Camera, DepthMap, Frame

FULL_SCALE = 255 * 256
MM_AT_FULL_SCALE = 200.0
FRAMES = 37_800
SIZE = (475, 475)
TEST = ("S5", "S10", "S15", "B5", "B10", "B15", "O1", "O2", "O3")
TEST_FRAMES = 6 * 1201 + 3 * 601
CAMERA = Camera(width=475, height=475, fx=227.6, fy=227.6, cx=237.5, cy=237.5)
"""As the pictures are symmetric about their centre. The published code writes fx = cx = 227.6 and fy = cy = 237.5,
which mixes focal lengths with centres."""

_IMAGE = re.compile(r"FrameBuffer_(\d+)\.png")
_DEPTH = re.compile(r"Depth_(\d+)\.png")
_SEQUENCE = re.compile(r"(?:Frames_)?([SBO]\d+)")
_LAYOUT = "SyntheticColon_I/Frames_S1/FrameBuffer_0000.png with Depth_0000.png beside it"
_FLIP_Y = np.diag([1.0, -1.0, 1.0, 1.0])


@dataclasses.dataclass(frozen=True, slots=True)
class _Files(Entry):
    position: Path | None = None
    rotation: Path | None = None


class SimCol3dDataset(DepthDataset[_Files]):
    """SimCol3D on disk: the whole set, one of its three parts, or one folder of frames.

    Sequences are called ``S1``, ``B5``, ``O3`` as in the publication; other folders by their own name.

    Raises:
        InputError: ``dataset.empty``, ``input.missing``, ``input.not-a-folder``.
    """

    def __init__(self, root: Path) -> None:
        self._poses: dict[tuple[Path, Path], npt.NDArray[np.float64]] = {}
        entries, findings = _list(root)
        super().__init__(name="simcol3d", root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def read(self, key: FrameKey, entry: _Files) -> Sample:
        image = read_pixels(entry.image)
        size = (image.shape[1], image.shape[0])
        camera = CAMERA if size == SIZE else CAMERA.resize(*size)
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        depth: DepthMap | None = None
        excluded: dict[str, int] = {}
        if entry.depth is not None:
            codes = read_codes(entry.depth)
            if codes.shape != image.shape[:2]:
                raise wrong_size(printable(entry.depth), (codes.shape[1], codes.shape[0]), size, "its picture")
            depth, excluded = metric_depth(codes * (MM_AT_FULL_SCALE / FULL_SCALE), camera=camera)
            zero = int(np.count_nonzero(codes == 0))
            excluded = {**excluded, **({"zero": zero} if zero else {})}
        return Sample(key=key, frame=frame, depth=depth, pose=self._pose(key, entry), excluded=excluded)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        entry = self.entry(key)
        return [*super().files(key), *(path for path in (entry.position, entry.rotation) if path is not None)]

    @override
    def check_set(self) -> list[Finding]:
        found = [published_count(len(self.keys()), FRAMES, "frames of SimCol3D")]
        for key in self.probes(3):
            depth = self.entry(key).depth
            if depth is None:
                continue
            try:
                largest = int(read_codes(depth).max())
            except InputError:  # the probe of all sets reports it
                continue
            if largest > FULL_SCALE:
                found.append(
                    Finding(
                        severity=Severity.WARNING,
                        code="depth.full-scale",
                        message=f"{key}: the largest code is {largest}, above the published full scale {FULL_SCALE}.",
                        fix="The file was probably scaled to 65535 when it was saved again; use the original.",
                    )
                )
        return found

    def _pose(self, key: FrameKey, entry: _Files) -> npt.NDArray[np.float64] | None:
        if entry.position is None or entry.rotation is None:
            return None
        files = (entry.position, entry.rotation)
        if files not in self._poses:
            positions, _ = pose_rows(entry.position, columns=3)
            quaternions, _ = pose_rows(entry.rotation, columns=4)
            count = min(len(positions), len(quaternions))
            poses = [engine_pose(positions[i] * 10.0, quaternions[i]) for i in range(count)]
            self._poses[files] = np.array(poses).reshape(-1, 4, 4)
        poses_of_file = self._poses[files]
        return poses_of_file[key.index] if key.index < len(poses_of_file) else None


def engine_pose(position: npt.NDArray[np.float64], quaternion: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Camera-to-world of a left-handed engine (y up) in OpenCV's axes (y down): conjugated by diag(1, -1, 1, 1).

    Args:
        position: 3 numbers.
        quaternion: x, y, z, w; normalised here.

    Returns:
        4 x 4, translation in the unit of ``position``; the identity rotation for a zero quaternion.

    Example:
        >>> import numpy as np
        >>> engine_pose(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.0]))[:3, 3].tolist()
        [1.0, -2.0, 3.0]
    """
    norm = float(np.linalg.norm(quaternion))
    x, y, z, w = (quaternion / norm).tolist() if norm > 0 else (0.0, 0.0, 0.0, 1.0)
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = position
    return np.asarray(_FLIP_Y @ pose @ _FLIP_Y, dtype=np.float64)


def _list(root: Path) -> tuple[dict[FrameKey, _Files], list[Finding]]:
    places = [root, *folders(root)]
    places += [below for place in places[1:] for below in folders(place)]
    named: dict[str, tuple[Path, dict[int, Path]]] = {}
    for place in places:
        images = numbered_files(place, _IMAGE)
        if images:
            own = os.path.basename(os.path.abspath(place))  # noqa: PTH100, PTH119  -- '.' has a name too
            match = _SEQUENCE.fullmatch(own)
            named[match.group(1) if match else own] = (place, images)
    entries: dict[FrameKey, _Files] = {}
    findings: list[Finding] = []
    for name in sorted(named, key=natural_key):
        place, images = named[name]
        depths = numbered_files(place, _DEPTH)
        position = _beside(place, f"SavedPosition_{name}.txt")
        rotation = _beside(place, f"SavedRotationQuaternion_{name}.txt")
        for number, image in images.items():
            entries[FrameKey(sequence=name, index=number)] = _Files(image, depths.get(number), position, rotation)
        findings += lone_depths([path for number, path in depths.items() if number not in images])
    return entries, findings


def _beside(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder.parent / name) if path.is_file()), None)


@reader("simcol3d")
def open_simcol3d(root: Path) -> SimCol3dDataset:
    """Open SimCol3D."""
    return SimCol3dDataset(root)


_SOURCE = "Rau et al. 2024, the test sequences of the SimCol3D challenge"
protocol(
    Protocol(
        name="simcol3d",
        version=1,
        dataset="simcol3d",
        summary="The nine official test sequences, median scaling per frame, up to 20 cm",
        source=_SOURCE,
        select=sequences(*TEST),
        expected_frames=TEST_FRAMES,
        maximum=20.0,
        unit="cm",
    )
)
protocol(
    Protocol(
        name="simcol3d-metric",
        version=1,
        dataset="simcol3d",
        summary="The nine official test sequences, metric depth without scaling, up to 20 cm",
        source=_SOURCE,
        select=sequences(*TEST),
        expected_frames=TEST_FRAMES,
        maximum=20.0,
        alignment=Alignment.NONE,
        unit="cm",
    )
)
protocol(
    Protocol(
        name="simcol3d-official",
        version=1,
        dataset="simcol3d",
        summary="The challenge's own: a factor a sequence, L1 (mae), median relative error, RMSE, mean over sequences",
        source=_SOURCE,
        select=sequences(*TEST),
        expected_frames=TEST_FRAMES,
        maximum=20.0,
        unit="cm",
        scope="sequence",
        averaging=Averaging.SEQUENCE,
        extra_metrics=("mae", "median_rel"),
        reproduce=("float16-predictions",),
    )
)
protocol(
    Protocol(
        name="simcol3d-any",
        version=1,
        dataset="simcol3d",
        summary="Every frame of the folder, whatever part of the set it is; median scaling, up to 20 cm",
        source="This package; compares with nothing published",
        select=every_frame,
        maximum=20.0,
        unit="cm",
    )
)
