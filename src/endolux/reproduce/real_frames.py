"""Loose real and field-standard frames as their sources published them: pictures, truths and how they compare.

Figures are means over frames of the frame's metric, in float64, at the size of the truth. The layout of each folder is
the source's own; none of these files comes with Endolux.

* ``c3vd-c3v4``, ``c3vd-cecum``, ``c3vd-sigmoid``: depth min-max normalised per frame, v = 0..255; what was depth 0 is
  unknown. Truth is taken as 0.2 + v/255 in every pixel (the least depth one sixth of the greatest, as in a lumen seen
  along its axis; without an offset AbsRel would be ruled by the nearest pixels). Scale and shift fitted in depth. The
  first is a real colonoscope in a silicone colon, the others are rendered.
* ``simcol3d``: depth_cm = value/65535*20, 0 = no value. Median ratio.
* ``endoslam``: truth is inverse depth v (8-bit, 1..50; 0 = no value). Scale and shift fitted between 1/prediction and
  v; AbsRel is between fitted and true *inverse* depth, so it is not comparable with the other sets. Pixels below 16 of
  255 in every frame are the black corners of the image (the truth has values there) and do not count.
* ``liver-mesh``: left and right view; depth ray-cast from the mesh with the given cameras, within the given masks.
  Median ratio.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.paths import printable
from endolux.types import DepthKind, ImageArray

C3VD_OFFSET = 0.2
DARK_CORNER = 16
Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_Float64 = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RealFrame:
    """One image with its truth (H x W, valid where ``valid``) and how it is to be compared."""

    dataset: str
    name: str
    image: ImageArray
    truth: _Float64
    valid: npt.NDArray[np.bool_]
    alignment: Alignment
    truth_kind: DepthKind


def read_rgb(path: Path) -> ImageArray:
    """A picture as H x W x 3 uint8 RGB: the high byte of 16-bit files, alpha dropped.

    Raises:
        InputError: ``input.missing`` or ``image.unreadable``.
    """
    stored = _read(path)
    image = (stored >> 8 if stored.dtype == np.uint16 else stored).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, 2::-1], np.uint8)


def read_plane(path: Path) -> Plane:
    """The first channel of a picture, H x W, unchanged. Raises as :func:`read_rgb`."""
    image = _read(path)
    return image if image.ndim == 2 else image[:, :, 0]


def _read(path: Path) -> Plane:
    if not path.is_file():
        raise InputError(
            f"No file '{printable(path)}'",
            why="The set of real frames is not complete.",
            fix="Copy the folder again from its source, or leave --real-data out.",
            error_id="input.missing",
        )
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"Cannot read '{printable(path)}' as a picture",
            why="It is damaged, or of a kind that the set does not hold.",
            fix="Copy the folder again from its source, or leave --real-data out.",
            error_id="image.unreadable",
        )
    return cast(Plane, image)


def _c3vd(root: Path, sequence: str) -> Iterator[RealFrame]:
    for path in sorted((root / "c3vd_phantom" / sequence / "test/ours_7000/gt").glob("*_depth.png")):
        truth = C3VD_OFFSET + read_plane(path) / 255.0
        image = read_rgb(path.with_name(path.name.replace("_depth", "")))
        valid = np.ones(truth.shape, bool)
        yield RealFrame(
            f"c3vd-{sequence}", path.stem, image, truth, valid, Alignment.SCALE_SHIFT_DEPTH, DepthKind.RELATIVE_DEPTH
        )


def _simcol(root: Path) -> Iterator[RealFrame]:
    for path in sorted((root / "simcol3d_10frames").glob("Depth_*.png")):
        raw = read_plane(path)
        truth_mm = raw / 65535.0 * 200.0
        image = read_rgb(path.with_name(path.name.replace("Depth", "FrameBuffer")))
        yield RealFrame("simcol3d", path.stem, image, truth_mm, raw > 0, Alignment.MEDIAN, DepthKind.METRIC)


def _endoslam(root: Path) -> Iterator[RealFrame]:
    folder = root / "endoslam_unity_stomach"
    paths = sorted((folder / "eval_depth").glob("aov_image_*.png"))
    images = [read_rgb(folder / "eval_frame" / path.name.removeprefix("aov_")) for path in paths]
    lit = np.max([image.max(axis=2) for image in images], axis=0) >= DARK_CORNER if images else np.zeros((0, 0), bool)
    for path, image in zip(paths, images, strict=True):
        truth = read_plane(path).astype(np.float64)
        kind = DepthKind.RELATIVE_DISPARITY
        valid = (truth > 0) & lit
        yield RealFrame("endoslam", path.stem, image, truth, valid, Alignment.SCALE_SHIFT_DISPARITY, kind)


def read_ply(path: Path) -> tuple[_Float64, npt.NDArray[np.int32]]:
    """Vertices N x 3 and triangles M x 3 of a binary mesh."""
    # Binary little endian: x y z nx ny nz float, flags int; faces as a uchar count of 3 and three ints (+ flags).
    data = path.read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    codes = {"float": "<f4", "int": "<i4", "uchar": "u1", "uint": "<u4", "short": "<i2", "double": "<f8"}
    elements: list[tuple[str, int, list[tuple[str, str] | tuple[str, str, tuple[int]]]]] = []
    for line in data[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[0] == "element":
            elements.append((words[1], int(words[2]), []))
        elif words[0] == "property" and words[1] == "list":
            elements[-1][2].extend([("count", codes[words[2]]), ("indices", codes[words[3]], (3,))])
        elif words[0] == "property":
            elements[-1][2].append((words[2], codes[words[1]]))
    arrays = {}
    for name, count, fields in elements:
        arrays[name] = np.frombuffer(data, np.dtype(fields), count, end)
        end += arrays[name].nbytes
    vertices, faces = arrays["vertex"], arrays["face"]
    if not (faces["count"] == 3).all():
        raise ValueError(f"{path}: not a triangle mesh")
    return np.stack([vertices[k] for k in "xyz"], 1).astype(np.float64), faces["indices"].astype(np.int32)


def raycast(vertices: _Float64, faces: npt.NDArray[np.int32], K: _Float64, where: npt.NDArray[np.bool_]) -> _Float64:
    """Depth (0 = no hit) of a mesh in camera coordinates at the pixels ``where``."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(vertices[faces], np.float32))
    y, x = np.nonzero(where)
    directions = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(x.size)], 1)
    length = np.linalg.norm(directions, axis=1)
    directions = np.ascontiguousarray(directions / length[:, None], np.float32)
    distance = scene.run(np.zeros_like(directions), directions, query="DISTANCE")
    hit = distance < 1e6
    depth = np.zeros(where.shape)
    depth[y[hit], x[hit]] = distance[hit] / length[hit]
    return depth


def _liver(root: Path) -> Iterator[RealFrame]:
    folder = root / "synthetic_liver_stereo_mesh"
    vertices, faces = read_ply(folder / "liver-H07.ply")
    to_camera = np.linalg.inv(np.loadtxt(folder / "camera_to_world.txt")) @ np.loadtxt(folder / "model_to_world.txt")
    left = vertices @ to_camera[:3, :3].T + to_camera[:3, 3]
    l2r = np.loadtxt(folder / "calib/calib.l2r.txt")
    # The file stores the rotation transposed: so the render covers mask-right with IoU 0.986, otherwise 0.901.
    right = left @ l2r[:3] + l2r[3]
    for side, points in (("left", left), ("right", right)):
        mask = read_plane(folder / f"mask-{side}.png") > 127
        depth_mm = raycast(points, faces, np.loadtxt(folder / f"calib/calib.{side}.intrinsics.txt"), mask)
        image = read_rgb(folder / f"synthetic-{side}.png")
        yield RealFrame("liver-mesh", side, image, depth_mm, depth_mm > 0, Alignment.MEDIAN, DepthKind.METRIC)


SETS: Mapping[str, Callable[[Path], Iterator[RealFrame]]] = {
    "c3vd-c3v4": lambda root: _c3vd(root, "c3v4"),
    "c3vd-cecum": lambda root: _c3vd(root, "cecum"),
    "c3vd-sigmoid": lambda root: _c3vd(root, "sigmoid"),
    "simcol3d": _simcol,
    "endoslam": _endoslam,
    "liver-mesh": _liver,
}
"""Readers by name: from the folder that holds all sets to frames."""

FOLDERS: Mapping[str, str] = {
    "c3vd-c3v4": "c3vd_phantom/c3v4",
    "c3vd-cecum": "c3vd_phantom/cecum",
    "c3vd-sigmoid": "c3vd_phantom/sigmoid",
    "simcol3d": "simcol3d_10frames",
    "endoslam": "endoslam_unity_stomach",
    "liver-mesh": "synthetic_liver_stereo_mesh",
}
"""Where each lies in that folder."""


def present(root: Path) -> tuple[str, ...]:
    """Names of the sets that a folder holds.

    Raises:
        InputError: ``reproduce.real-data`` where it holds none.

    Example:
        >>> present(Path("no-such-folder"))
        Traceback (most recent call last):
        ...
        endolux.errors.InputError: error[reproduce.real-data]: No real frames in 'no-such-folder'
        ...
    """
    found = tuple(name for name, folder in FOLDERS.items() if (root / folder).is_dir())
    if not found:
        raise InputError(
            f"No real frames in '{printable(root)}'",
            why=f"None of these folders lies there: {', '.join(FOLDERS.values())}.",
            fix="Name the folder that holds them, or leave --real-data out; its tables are then left out.",
            error_id="reproduce.real-data",
        )
    return found


def set_sha256(name: str, root: Path) -> str:
    """Hash of all files of a set, names included."""
    digest, folder = hashlib.sha256(), root / FOLDERS[name]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
