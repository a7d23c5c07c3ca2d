"""Camera motion: errors of short snippets and of whole trajectories."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.metrics.checks import Float64, mean, one_of, warn_empty
from endolux.metrics.similarity import TrajectoryAlignment, similarity

SnippetVariant = Literal["af-sfmlearner"]
TrajectoryVariant = Literal["simcol3d"]
MotionArray = npt.NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SnippetErrors:
    """Errors of every snippet of a sequence of relative motions.

    Attributes:
        ate: one absolute trajectory error a snippet, in the unit of the truth.
        rotation_rad: one mean rotation error a snippet, radians.
        scale: the factor fitted to each predicted snippet; 0 where the prediction stands still.
        positions: camera positions in each snippet.
        reproduce: the variant, None for the correct form.
    """

    ate: Float64
    rotation_rad: Float64
    scale: Float64
    positions: npt.NDArray[np.intp]
    reproduce: str | None

    @property
    def ate_mean(self) -> float:
        """Mean over snippets."""
        return mean(self.ate)

    @property
    def ate_std(self) -> float:
        """Population standard deviation over snippets, as the field prints it."""
        return float(self.ate.std()) if self.ate.size else float("nan")

    @property
    def rotation_mean(self) -> float:
        """Mean over snippets, radians."""
        return mean(self.rotation_rad)

    @property
    def rotation_std(self) -> float:
        """Population standard deviation over snippets, radians."""
        return float(self.rotation_rad.std()) if self.rotation_rad.size else float("nan")

    def summary(self) -> dict[str, float]:
        """The four numbers and the count of snippets, by name."""
        return {
            "ate_mean": self.ate_mean,
            "ate_std": self.ate_std,
            "rotation_mean": self.rotation_mean,
            "rotation_std": self.rotation_std,
            "snippets": float(self.ate.size),
        }


def ate_snippets(
    truth: MotionArray,
    predicted: MotionArray,
    length: int = 5,
    *,
    reproduce: SnippetVariant | bool | None = None,
) -> SnippetErrors:
    """Absolute trajectory and rotation errors of all snippets of ``length`` positions, each scaled on its own.

    Motion t maps points in the camera of frame t to the camera of frame t + 1. Both snippets start at the origin; the
    predicted positions are multiplied by the factor that fits the true ones best.

    The correct form: motions are chained so that they telescope (later motions on the left), positions are the camera
    centres -R^T t, only full snippets count, and the error is the root mean square distance over the positions.

    ``reproduce="af-sfmlearner"`` (or True) is the figure printed for SCARED by AF-SfMLearner, EndoDAC, DARES and their
    family. It chains on the right, which does not telescope for such motions; takes the translation columns as
    positions; divides the root of the summed squares by n instead of its root, so that it is sqrt(5) times smaller; and
    starts a snippet at every motion, so that the last ones are shorter. There are N - length + 2 snippets in the
    correct form and N - 1 as coded. A rotation error is in radians, and its mean includes the first rotation, which
    is 0, in both.

    Args:
        truth: N x 4 x 4 relative motions, translation in mm.
        predicted: N x 4 x 4 relative motions, translation up to scale.
        length: positions in a snippet, at least 2.
        reproduce: None or False for the correct form.

    Returns:
        Arrays over snippets. Empty, with an ``EmptyMaskWarning``, if there are too few motions: their mean is NaN.

    Raises:
        UsageError: ``metrics.poses``, ``metrics.length`` or ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> motions = np.tile(np.eye(4), (6, 1, 1))
        >>> motions[:, 2, 3] = -1.0
        >>> straight = ate_snippets(motions, motions)
        >>> straight.ate_mean, straight.ate.size
        (0.0, 3)
        >>> ate_snippets(motions, motions, reproduce="af-sfmlearner").positions.tolist()
        [5, 5, 5, 4, 3]
    """
    t, p = _poses(truth), _poses(predicted)
    if len(t) != len(p):
        raise _pose_error(f"{len(t)} true motions against {len(p)} predicted", "Pair them first.")
    if length < 2:
        raise UsageError(
            f"Snippets of {length} positions",
            why="An error needs a motion, so at least two positions.",
            fix="Use 5, as the field does.",
            error_id="metrics.length",
        )
    variant = ("af-sfmlearner" if reproduce else None) if isinstance(reproduce, bool) else reproduce
    if variant is not None:
        one_of(variant, ["af-sfmlearner"], what="variant of the snippet error")
    full = max(len(t) - length + 2, 0)
    counts = [length] * full
    if variant is not None:
        counts = [min(length, len(t) - start + 1) for start in range(max(len(t) - 1, 0))]
    if not counts:
        warn_empty(f"Snippet errors: {len(t)} motions make no snippet of {length} positions")
    positions = np.array(counts, np.intp)
    ate, rotation, scale = (np.empty(len(counts)) for _ in range(3))
    # Snippets of one size together: a step of the chain is one product of stacks.
    for size in np.unique(positions):
        starts = np.flatnonzero(positions == size)
        true_xyz, true_r = _snippets(t, starts, int(size), as_coded=variant is not None)
        xyz, r = _snippets(p, starts, int(size), as_coded=variant is not None)
        energy = (xyz**2).sum(axis=(1, 2))
        factor = np.where(energy > 0, (xyz * true_xyz).sum(axis=(1, 2)) / np.where(energy > 0, energy, 1.0), 0.0)
        squares = ((factor[:, None, None] * xyz - true_xyz) ** 2).sum(axis=(1, 2))
        ate[starts] = np.sqrt(squares) / (size if variant is not None else np.sqrt(size))
        rotation[starts] = rotation_angle(true_r @ np.linalg.inv(r)).mean(axis=1)
        scale[starts] = factor
    return SnippetErrors(ate=ate, rotation_rad=rotation, scale=scale, positions=positions, reproduce=variant)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrajectoryErrors:
    """Errors of a whole trajectory.

    Attributes:
        ate: absolute trajectory error, in the unit of the truth: root mean square (median if ``simcol3d``).
        rte: relative translation error over ``delta`` frames, same statistic and unit.
        rotation_deg: relative rotation error over ``delta`` frames, same statistic, degrees.
        scale: factor applied to the predicted translations.
        position_errors, relative_errors, rotation_errors_deg: what the statistics run over.
        reproduce: the variant, None for the correct form.
    """

    ate: float
    rte: float
    rotation_deg: float
    scale: float
    position_errors: Float64
    relative_errors: Float64
    rotation_errors_deg: Float64
    reproduce: str | None


def trajectory_errors(
    truth: MotionArray,
    predicted: MotionArray,
    *,
    alignment: TrajectoryAlignment = "sim3",
    delta: int = 1,
    reproduce: TrajectoryVariant | None = None,
) -> TrajectoryErrors:
    """Absolute and relative errors of camera poses (Sturm et al. 2012; alignment by Umeyama 1991).

    ``reproduce="simcol3d"`` is the SimCol3D challenge: both trajectories start at the identity, one factor is fitted to
    the frame-to-frame translations, nothing else is aligned, and all three statistics are medians.

    Args:
        truth: N x 4 x 4 camera-to-world poses.
        predicted: N x 4 x 4 camera-to-world poses, frame by frame.
        alignment: what is fitted to the true camera centres: ``none``, ``scale`` (with the first poses brought
            together), ``se3`` or ``sim3``.
        delta: distance in frames of the relative errors.
        reproduce: None or ``"simcol3d"`` (``alignment`` is then ignored).

    Returns:
        Errors; relative ones are NaN, with an ``EmptyMaskWarning``, if there are no more than ``delta`` poses.

    Raises:
        UsageError: ``metrics.poses``, ``metrics.length`` or ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> truth = np.tile(np.eye(4), (5, 1, 1))
        >>> truth[:, :3, 3] = np.arange(15).reshape(5, 3) ** 2
        >>> predicted = truth.copy()
        >>> predicted[:, :3, 3] *= 0.5
        >>> found = trajectory_errors(truth, predicted)
        >>> round(found.scale, 9), round(found.ate, 9), round(found.rte, 9)
        (2.0, 0.0, 0.0)
    """
    t, p = _poses(truth), _poses(predicted)
    if len(t) != len(p) or not len(t):
        raise _pose_error(f"{len(t)} true poses against {len(p)} predicted", "Pair them first; one is the least.")
    if delta < 1:
        raise UsageError(
            f"A distance of {delta} frames",
            why="Relative errors compare a frame with a later one.",
            fix="Use 1 or more.",
            error_id="metrics.length",
        )
    if reproduce is not None:
        one_of(reproduce, ["simcol3d"], what="variant of the trajectory error")
    if reproduce is not None or alignment == "scale":
        t, p = _poses(np.linalg.inv(t[0]) @ t), _poses(np.linalg.inv(p[0]) @ p)
    if reproduce is not None:
        steps_t, steps_p = _relative(t, 1)[:, :3, 3], _relative(p, 1)[:, :3, 3]
        scale = similarity(steps_p, steps_t, alignment="scale")[0] if len(t) > 1 else 1.0
        centres = scale * p[:, :3, 3]
    else:
        scale, rotation, translation = similarity(p[:, :3, 3], t[:, :3, 3], alignment=alignment)
        centres = scale * p[:, :3, 3] @ rotation.T + translation
    scaled = p.copy()
    scaled[:, :3, 3] *= scale
    position = np.linalg.norm(centres - t[:, :3, 3], axis=1)
    error = np.linalg.inv(_relative(t, delta)) @ _relative(scaled, delta)
    relative = np.linalg.norm(error[:, :3, 3], axis=1)
    degrees = np.degrees(rotation_angle(error[:, :3, :3]))
    if not relative.size:
        warn_empty(f"Relative errors over {delta} frames of {len(t)} poses")

    def statistic(values: Float64) -> float:
        if not values.size:
            return float("nan")
        return float(np.median(values)) if reproduce is not None else float(np.sqrt((values**2).mean()))

    return TrajectoryErrors(
        ate=statistic(position),
        rte=statistic(relative),
        rotation_deg=statistic(degrees),
        scale=scale,
        position_errors=position,
        relative_errors=relative,
        rotation_errors_deg=degrees,
        reproduce=reproduce,
    )


def camera_poses(motions: MotionArray) -> Float64:
    """Camera-to-world poses from relative motions: the inverse of the chained frame-to-frame maps of points.

    Args:
        motions: N x 4 x 4; motion t maps points in camera t to camera t + 1.

    Returns:
        (N + 1) x 4 x 4; the first is the identity.

    Raises:
        UsageError: ``metrics.poses``.

    Example:
        >>> import numpy as np
        >>> motion = np.eye(4)
        >>> motion[2, 3] = -1.0
        >>> camera_poses(np.stack([motion, motion]))[:, 2, 3].tolist()
        [0.0, 1.0, 2.0]
    """
    steps = np.linalg.inv(_poses(motions)) if len(motions) else np.empty((0, 4, 4))
    poses = np.empty((len(steps) + 1, 4, 4))
    poses[0] = np.eye(4)
    for index, step in enumerate(steps):
        poses[index + 1] = poses[index] @ step
    return poses


def rotation_angle(rotations: Float64) -> Float64:
    """Angle of rotation matrices in radians, accurate near 0 and pi.

    Args:
        rotations: ... x 3 x 3.

    Example:
        >>> import numpy as np
        >>> float(rotation_angle(np.diag([-1.0, -1.0, 1.0]))) == np.pi
        True
    """
    r = rotations
    sine = np.sqrt(
        (r[..., 2, 1] - r[..., 1, 2]) ** 2 + (r[..., 0, 2] - r[..., 2, 0]) ** 2 + (r[..., 1, 0] - r[..., 0, 1]) ** 2
    )
    # Twice the sine and twice the cosine: arctan2 needs the ratio only.
    return np.asarray(np.arctan2(sine, np.trace(r, axis1=-2, axis2=-1) - 1.0), np.float64)


def _snippets(motions: Float64, starts: npt.NDArray[np.intp], size: int, *, as_coded: bool) -> tuple[Float64, Float64]:
    # Positions (snippets x size x 3) and rotations (snippets x size x 3 x 3) along each snippet.
    pose = np.tile(np.eye(4), (len(starts), 1, 1))
    chain = [pose]
    for step in range(size - 1):
        motion = motions[starts + step]
        pose = np.asarray(pose @ motion if as_coded else motion @ pose, np.float64)
        chain.append(pose)
    poses = np.stack(chain, axis=1)
    if not as_coded:
        poses = np.asarray(np.linalg.inv(poses), np.float64)
    return poses[..., :3, 3], poses[..., :3, :3]


def _relative(poses: Float64, delta: int) -> Float64:
    return np.asarray(np.linalg.inv(poses[:-delta]) @ poses[delta:], np.float64)


def _poses(poses: MotionArray) -> Float64:
    p = np.asarray(poses, np.float64)
    if p.ndim != 3 or p.shape[1:] != (4, 4) or not np.isfinite(p).all():
        raise _pose_error(
            f"Poses of shape {p.shape}, {int((~np.isfinite(p)).sum())} numbers not finite",
            "Stack the matrices to N x 4 x 4, and leave out frames that were lost.",
        )
    if not np.allclose(p[:, 3], [0, 0, 0, 1], atol=1e-4) or (np.abs(np.linalg.det(p[:, :3, :3]) - 1) > 1e-2).any():
        raise _pose_error(
            "A matrix is no rigid motion: its last row is not 0 0 0 1, or its rotation has another determinant than 1",
            "Transpose matrices that are stored column by column, and divide the scale out of the rotation.",
        )
    return p


def _pose_error(what: str, fix: str) -> UsageError:
    return UsageError(what, why="Poses are N x 4 x 4 finite rigid motions.", fix=fix, error_id="metrics.poses")
