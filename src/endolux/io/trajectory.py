"""Camera trajectories as text in the TUM format, which evo, ORB-SLAM tools and COLMAP scripts read.

One line a frame: ``timestamp tx ty tz qx qy qz qw``, camera to world, the timestamp in seconds. Lines that begin with #
are comments. Source: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.errors import InputError, UsageError, from_os_error
from endolux.io.paths import check_file, input_error, printable

Float64 = npt.NDArray[np.float64]
_LARGEST_BYTES = 1 << 30
_UNIT_TOLERANCE = 1e-3


def quaternions(rotations: Float64) -> Float64:
    """Unit quaternions of rotation matrices, with qw >= 0.

    Args:
        rotations: N x 3 x 3.

    Returns:
        N x 4: qx, qy, qz, qw.

    Example:
        >>> quaternions(np.diag([-1.0, -1.0, 1.0])[None]).tolist()
        [[0.0, 0.0, 1.0, 0.0]]
    """
    r = np.asarray(rotations, np.float64)
    x, y, z = (r[:, axis, axis] for axis in range(3))
    # Four times the product of the quaternion with itself: its largest column loses no digits (Shepperd 1978).
    k = np.empty((len(r), 4, 4))
    k[:, 0, 0], k[:, 1, 1], k[:, 2, 2], k[:, 3, 3] = 1 + x - y - z, 1 - x + y - z, 1 - x - y + z, 1 + x + y + z
    k[:, 0, 1] = k[:, 1, 0] = r[:, 1, 0] + r[:, 0, 1]
    k[:, 0, 2] = k[:, 2, 0] = r[:, 2, 0] + r[:, 0, 2]
    k[:, 1, 2] = k[:, 2, 1] = r[:, 2, 1] + r[:, 1, 2]
    k[:, 0, 3] = k[:, 3, 0] = r[:, 2, 1] - r[:, 1, 2]
    k[:, 1, 3] = k[:, 3, 1] = r[:, 0, 2] - r[:, 2, 0]
    k[:, 2, 3] = k[:, 3, 2] = r[:, 1, 0] - r[:, 0, 1]
    largest = np.argmax(np.diagonal(k, axis1=1, axis2=2), axis=1)
    q = k[np.arange(len(r)), largest]
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    # Adding 0 turns -0 into 0.
    return np.asarray(np.where(q[:, 3:] < 0, -q, q) + 0.0, np.float64)


def rotations(quaternion: Float64) -> Float64:
    """Rotation matrices of quaternions, N x 4 (qx, qy, qz, qw; any length but 0) to N x 3 x 3.

    Example:
        >>> rotations(np.array([[0.0, 0.0, 2.0, 0.0]]))[0].diagonal().tolist()
        [-1.0, -1.0, 1.0]
    """
    q = np.asarray(quaternion, np.float64)
    x, y, z, w = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.asarray(np.moveaxis(np.array(rows), 2, 0), np.float64)


def write_tum(
    path: str | os.PathLike[str], times_s: Sequence[float], poses: Float64, *, comments: Sequence[str] = ()
) -> None:
    """Write a trajectory; the file appears whole or not at all, an older one is replaced.

    Args:
        path: file to write.
        times_s: seconds, one a pose.
        poses: N x 4 x 4, camera to world.
        comments: lines for the head, for example the unit of length.

    Raises:
        UsageError: ``trajectory.poses`` for shapes that do not fit, numbers that are not finite, or matrices that are
            no rigid motions; ``output.not-writable``.
        DeviceError: disk full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "traj.txt")
        ...     write_tum(file, [0.0, 0.04], np.stack([np.eye(4), np.eye(4)]), comments=["unit mm"])
        ...     file.read_text().splitlines()[1:]
        ['# timestamp tx ty tz qx qy qz qw', '0 0 0 0 0 0 0 1', '0.04 0 0 0 0 0 0 1']
    """
    path = Path(path)
    times = np.asarray(times_s, np.float64)
    _check(times, poses)
    turned = quaternions(poses[:, :3, :3])
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    lines.append("# timestamp tx ty tz qx qy qz qw")
    for time, pose, quaternion in zip(times, poses, turned, strict=True):
        numbers = " ".join(f"{value + 0.0:.10g}" for value in (*pose[:3, 3], *quaternion))
        lines.append(f"{time:.9f}".rstrip("0").rstrip(".") + f" {numbers}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise from_os_error(error, path) from error


def read_tum(path: str | os.PathLike[str]) -> tuple[Float64, Float64]:
    r"""Read a trajectory.

    Args:
        path: file to read.

    Returns:
        Times in seconds, N, and poses, camera to world, N x 4 x 4.

    Raises:
        InputError: no such file, or ``trajectory.format`` with the number of the first bad line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "traj.txt")
        ...     _ = file.write_text("# head\n0.5 1 2 3 0 0 0 1\n")
        ...     times, poses = read_tum(file)
        >>> times.tolist(), poses[0, :3, 3].tolist()
        ([0.5], [1.0, 2.0, 3.0])
    """
    path = Path(path)
    name = printable(path)
    if check_file(path) > _LARGEST_BYTES:
        raise _format_error(name, "it is far too large for a trajectory")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise input_error(error, path) from error
    except UnicodeDecodeError as error:
        raise _format_error(name, "it is not text") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise _format_error(name, f"line {number}: {error}") from error
        if len(row) != 8 or not np.isfinite(row).all():
            raise _format_error(name, f"line {number} has {len(row)} numbers, of which not all may be finite")
        if abs(np.linalg.norm(row[4:]) - 1) > _UNIT_TOLERANCE:
            raise _format_error(name, f"line {number}: the quaternion has length {np.linalg.norm(row[4:]):.4g}, not 1")
        rows.append(row)
    table = np.array(rows, np.float64).reshape(-1, 8)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, 3] = table[:, 1:4]
        poses[:, :3, :3] = rotations(table[:, 4:])
    return table[:, 0], poses


def _check(times: Float64, poses: Float64) -> None:
    problem = ""
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or times.shape != poses.shape[:1]:
        problem = f"{times.shape} times and poses of shape {poses.shape}"
    elif not (np.isfinite(poses).all() and np.isfinite(times).all()):
        problem = "numbers that are not finite"
    else:
        turns = poses[:, :3, :3]
        error = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
        if error > _UNIT_TOLERANCE or (np.linalg.det(turns) < 0).any():
            problem = "matrices that are no rigid motions"
    if problem:
        raise UsageError(
            f"Cannot write {problem} as a trajectory",
            why="It takes N times in seconds and N x 4 x 4 rigid camera-to-world poses.",
            fix="Leave out frames that were lost, and divide a scale out of the rotations.",
            error_id="trajectory.poses",
        )


def _format_error(name: str, detail: str) -> InputError:
    return InputError(
        f"'{name}' is no trajectory: {detail}",
        why="A line is: timestamp tx ty tz qx qy qz qw.",
        fix="Write such a file with endolux.io.trajectory.write_tum or 'endolux trajectory'.",
        error_id="trajectory.format",
    )
