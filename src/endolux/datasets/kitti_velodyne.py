"""KITTI with depth from its laser scanner, projected into the picture: the reference of the Eigen protocol.

Sources: Geiger et al. 2013 (format and calibration), Eigen et al. 2014 (protocol). Files, below the root::

    2011_09_26/calib_cam_to_cam.txt                 R_rect_00, P_rect_02, P_rect_03, S_rect_02, S_rect_03
    2011_09_26/calib_velo_to_cam.txt                R, T
    2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
    2011_09_26/2011_09_26_drive_0002_sync/velodyne_points/data/0000000069.bin   N x 4 float32: x, y, z, reflectance

A point X of the scanner lands at P_rect R_rect_00 [R T] X. Evaluations in common use take the scanner's forward
distance x for depth, though the cameras stand elsewhere, and move points one pixel up and left, a relic of counting
from one. Both are kept by :data:`AS_PUBLISHED` and put right by the other reader.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.decode import damaged, matrix_of, metric_depth, read_bytes, read_text
from endolux.datasets.findings import information, lone_depths
from endolux.datasets.kitti import EIGEN_FRAMES, GARG_CROP, SIDES, drives, eigen_test, numbered_pictures, read_camera
from endolux.datasets.listing import DepthDataset, Entry
from endolux.io.images import read_pixels
from endolux.io.paths import printable, truncated
from endolux.types import Camera, DepthMap, Frame

_POINT = 16
_CAMERA_OF = {"left": "02", "right": "03"}
_LAYOUT = (
    "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png with velodyne_points/data/0000000069.bin and "
    "the two calib_*.txt of the day"
)

Float64 = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """How scanner points become a depth map.

    Attributes:
        forward: depth is the scanner's x instead of the camera's z.
        shift: pixels by which points are moved up and left after rounding.
    """

    forward: bool = False
    shift: int = 0


CORRECT = Projection()
AS_PUBLISHED = Projection(forward=True, shift=1)


class KittiVelodyneDataset(DepthDataset[Entry]):
    """KITTI's raw recordings. Sequences are drives; the reference is sparse, about 5 % of the pixels.

    Args:
        root: folder that holds the days.
        projection: how points become depth.
        name: registry name.

    Raises:
        InputError: ``dataset.empty``, ``input.missing``, ``input.not-a-folder``; from ``load``, ``dataset.damaged`` and
            ``input.truncated`` for calibration and scans.
    """

    def __init__(self, root: Path, *, projection: Projection = CORRECT, name: str = "kitti-velodyne") -> None:
        self._projection = projection
        # Once a day of recordings, not once a frame.
        self._read_camera = lru_cache(maxsize=32)(read_camera)
        self._scanner_to_pixels = lru_cache(maxsize=32)(scanner_to_pixels)
        entries, findings = _list(root)
        super().__init__(name=name, root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def read(self, key: FrameKey, entry: Entry) -> Sample:
        image = read_pixels(entry.image)
        height, width = image.shape[:2]
        day = entry.image.parents[3]
        camera = self._read_camera(day, _CAMERA_OF[key.side])
        if camera is not None and (camera.width, camera.height) != (width, height):
            camera = None
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        if entry.depth is None:
            return Sample(key=key, frame=frame)
        depth, excluded = self._depth(entry.depth, day, key.side, (width, height), camera)
        return Sample(key=key, frame=frame, depth=depth, excluded=excluded)

    def _depth(
        self, scan: Path, day: Path, side: str, size: tuple[int, int], camera: Camera | None
    ) -> tuple[DepthMap, dict[str, int]]:
        matrix = self._scanner_to_pixels(day, _CAMERA_OF[side])
        metres = project_points(read_scan(scan), matrix, size, projection=self._projection)
        return metric_depth(1000.0 * metres, camera=camera)

    @override
    def check_set(self) -> list[Finding]:
        scanned = sum(self.entry(key).depth is not None for key in self.keys())
        return [information("count.scans", f"{scanned} of {len(self.keys())} pictures have a laser scan.")]

    # The sun does not move with the camera.
    lit_by_camera = False


def read_scan(path: Path) -> npt.NDArray[np.float32]:
    """Points of a scan, N x 3 metres (x forward, y left, z up).

    Raises:
        InputError: missing, ``input.truncated`` where a point is cut, ``dataset.damaged`` where one is not finite.
    """
    data = read_bytes(path)
    if not data or len(data) % _POINT:
        raise truncated(path, f"its {len(data)} bytes are no whole number of points of {_POINT} bytes")
    points = np.frombuffer(data, "<f4").reshape(-1, 4)[:, :3]
    if not np.isfinite(points).all():
        raise damaged(printable(path), f"{int((~np.isfinite(points)).any(axis=1).sum())} points are not finite")
    return points


def project_points(
    points: npt.NDArray[np.floating], matrix: Float64, size: tuple[int, int], *, projection: Projection = CORRECT
) -> Float64:
    """A sparse H x W depth map in metres, 0 where no point lands; the nearest point wins a pixel.

    Args:
        points: N x 3 in the scanner's axes.
        matrix: 3 x 4, from the scanner to pixels times depth.
        size: (width, height).
        projection: which distance, and where it lands.

    Example:
        >>> forward = np.array([[0.0, -100.0, 0.0, 0.0], [0.0, 0.0, -100.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
        >>> project_points(np.array([[10.0, -0.2, -0.1], [20.0, -0.4, -0.2]]), forward, (4, 3)).tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    width, height = size
    points = points[points[:, 0] >= 0].astype(np.float64)
    pixels = points @ matrix[:, :3].T + matrix[:, 3]
    ahead = pixels[:, 2] > 0
    points, pixels = points[ahead], pixels[ahead]
    depth = points[:, 0] if projection.forward else pixels[:, 2]
    columns, rows = (np.rint(pixels[:, axis] / pixels[:, 2]) - projection.shift for axis in (0, 1))
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    places = (rows[inside] * width + columns[inside]).astype(np.intp)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, places, depth[inside])
    nearest[~np.isfinite(nearest)] = 0.0
    return nearest.reshape(height, width)


def scanner_to_pixels(day: Path, number: str) -> Float64:
    """3 x 4 matrix from the scanner's axes to pixels times depth, of one day's calibration.

    Args:
        day: folder with the two calibration files.
        number: ``02`` or ``03``.

    Raises:
        InputError: a file is missing or damaged.
    """
    cameras, scanner = day / "calib_cam_to_cam.txt", day / "calib_velo_to_cam.txt"
    place = np.eye(4)
    place[:3, :3] = _matrix(scanner, "R", (3, 3))
    place[:3, 3] = _matrix(scanner, "T", (3, 1))[:, 0]
    rectify = np.eye(4)
    rectify[:3, :3] = _matrix(cameras, "R_rect_00", (3, 3))
    return np.asarray(_matrix(cameras, f"P_rect_{number}", (3, 4)) @ rectify @ place, np.float64)


def _matrix(path: Path, name: str, shape: tuple[int, int]) -> Float64:
    lines = dict(line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    if name not in lines:
        raise damaged(printable(path), f"it holds no '{name}'")
    try:
        numbers = [float(text) for text in lines[name].split()]
    except ValueError as error:
        raise damaged(printable(path), f"'{name}' is not numbers") from error
    return matrix_of(numbers, shape, f"'{name}' of '{printable(path)}'")


def _list(root: Path) -> tuple[dict[FrameKey, Entry], list[Finding]]:
    entries: dict[FrameKey, Entry] = {}
    lone: list[Path] = []
    for drive in drives(root):
        folder = drive / "velodyne_points" / "data"
        scans = numbered_pictures(folder, suffixes="bin") if folder.is_dir() else {}
        used: set[int] = set()
        for place, side in SIDES.items():
            pictures = drive / place / "data"
            images = numbered_pictures(pictures) if pictures.is_dir() else {}
            used |= set(images)
            for number, image in images.items():
                entries[FrameKey(sequence=drive.name, index=number, side=side)] = Entry(image, scans.get(number))
        lone += [path for number, path in scans.items() if number not in used]
    return entries, lone_depths(lone)


@reader("kitti-velodyne")
def open_kitti_velodyne(root: Path) -> KittiVelodyneDataset:
    """Open KITTI's raw recordings with depth from the scanner."""
    return KittiVelodyneDataset(root)


@reader("kitti-velodyne-published")
def open_published(root: Path) -> KittiVelodyneDataset:
    """Open KITTI's raw recordings with depth as evaluations in common use make it."""
    return KittiVelodyneDataset(root, projection=AS_PUBLISHED, name="kitti-velodyne-published")


for _name, _dataset, _summary in (
    (
        "kitti-eigen-velodyne",
        "kitti-velodyne-published",
        "The listed test frames, scanner points as commonly projected, Garg crop, median scaling, 1e-3..80 m",
    ),
    (
        "kitti-eigen-velodyne-z",
        "kitti-velodyne",
        "The same with the camera's depth in the right pixel",
    ),
):
    protocol(
        Protocol(
            name=_name,
            version=1,
            dataset=_dataset,
            summary=_summary,
            source="Eigen et al. 2014, Garg et al. 2016 (window); points as monocular depth papers project them",
            select=eigen_test,
            expected_frames=EIGEN_FRAMES,
            minimum=1e-3,
            maximum=80.0,
            clamp_prediction=True,
            crop=GARG_CROP,
            reproduce=("strict-maximum",),
            unit="m",
        )
    )
