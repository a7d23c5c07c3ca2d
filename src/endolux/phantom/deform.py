"""How an organ itself moves: breathing and peristalsis, vertex by vertex."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field

from endolux.phantom.compile import compiled
from endolux.phantom.lumen import Centreline
from endolux.phantom.mesh import Mesh
from endolux.phantom.scene import Scene

Points = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]

_NORMAL_STEP_MM = 0.2


class Deformation(BaseModel):
    """How the organ itself moves: breathing shifts it as a slow wave, peristalsis narrows a lumen in travelling rings.

    The surface is displaced vertex by vertex for every frame, which makes a frame a few times slower; depth, normals
    and flow stay exact.

    Attributes:
        breathing_mm: amplitude of the respiratory shift.
        breathing_period_s: of one breath.
        peristalsis: largest share of the radius by which a ring narrows the lumen.
        wave_mm: distance of two rings.
        wave_mm_s: their speed, negative for the other way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    breathing_mm: Annotated[float, Field(ge=0, le=30), AllowInfNan(False)] = 3.0
    breathing_period_s: Annotated[float, Field(gt=0.2, le=60), AllowInfNan(False)] = 4.0
    peristalsis: Annotated[float, Field(ge=0, le=0.6), AllowInfNan(False)] = 0.0
    wave_mm: Annotated[float, Field(ge=10, le=500), AllowInfNan(False)] = 60.0
    wave_mm_s: Annotated[float, Field(ge=-100, le=100), AllowInfNan(False)] = 8.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Organ:
    """A scene whose surface moves.

    Where its points lie along the lumen does not depend on time: that is found once, and a moment is arithmetic.

    Attributes:
        mesh: at rest.
        deformation: how it moves.
        phase: radians, of the breath at time 0.
        stencil: V x 5 x 3 mm: each vertex and two pairs of points beside it in its tangent plane, at rest.
        share: V x 5 of the breath that arrives there.
        ring: V x 5 x 2 cosine and sine of the place along the travelling wave; empty without peristalsis.
        pull: V x 5 x 3 mm towards the axis where a ring is tightest; empty without peristalsis.
    """

    mesh: Mesh
    deformation: Deformation
    phase: float
    stencil: Array
    share: Array
    ring: Array
    pull: Array

    @classmethod
    def of(cls, scene: Scene, deformation: Deformation, *, phase: float) -> Organ:
        """Prepare a scene.

        Args:
            scene: at rest; peristalsis needs a lumen, and what is seen from outside only breathes.
            deformation: how it moves.
            phase: radians, of the breath at time 0.
        """
        mesh = scene.mesh
        normals = mesh.normals.astype(np.float64)
        helper = np.where(np.abs(normals[:, :1]) < 0.8, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
        first = np.cross(normals, helper)
        first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
        second = np.cross(normals, first)
        here, step = mesh.vertices.astype(np.float64), _NORMAL_STEP_MM
        stencil = np.stack(
            [here, here + step * first, here - step * first, here + step * second, here - step * second], axis=1
        )
        flat = stencil.reshape(-1, 3)
        share = np.zeros(len(flat))
        if deformation.breathing_mm > 0:
            share = _breath_share(flat, phase)
        ring, pull = np.empty((0, 5, 2)), np.empty((0, 5, 3))
        if deformation.peristalsis > 0 and scene.outlook is None:
            along_mm, pull = _grip(flat, deformation, scene.centreline)
            angle = 2 * np.pi * along_mm / deformation.wave_mm
            ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(-1, 5, 2)
            pull = pull.reshape(-1, 5, 3)
        return cls(mesh, deformation, phase, stencil, share.reshape(-1, 5), ring, pull)

    def at(self, pts_s: float) -> Mesh:
        """The mesh at a time in seconds: vertices displaced, normals turned with the surface."""
        how = self.deformation
        breath = 2 * np.pi * pts_s / how.breathing_period_s + self.phase
        shift = how.breathing_mm * np.sin(breath) * _direction(self.phase)
        wave = 2 * np.pi * how.wave_mm_s * pts_s / how.wave_mm
        vertices, normals = _moment(self.stencil, self.share, self.ring, self.pull, shift, np.cos(wave), np.sin(wave))
        return dataclasses.replace(self.mesh, vertices=vertices, normals=normals)


def displacement(
    points: Points, deformation: Deformation, *, scene: Scene, pts_s: float, phase: float
) -> npt.NDArray[np.float64]:
    """Where the organ's points have moved at a time, N x 3 mm, as a smooth function of their place at rest.

    Args:
        points: N x 3 at rest.
        deformation: how it moves.
        scene: for its centreline; peristalsis needs a lumen.
        pts_s: time in seconds.
        phase: radians, of the breath at time 0.

    Example:
        >>> import numpy as np
        >>> still = Deformation(breathing_mm=0)
        >>> displacement(np.ones((1, 3)), still, scene=None, pts_s=1.0, phase=0.0).tolist()
        [[0.0, 0.0, 0.0]]
    """
    rest = points.astype(np.float64)
    moved = np.zeros_like(rest)
    if deformation.breathing_mm > 0:
        breath = 2 * np.pi * pts_s / deformation.breathing_period_s + phase
        moved += deformation.breathing_mm * np.sin(breath) * _breath_share(rest, phase)[:, None] * _direction(phase)
    if deformation.peristalsis > 0 and scene.outlook is None:
        along_mm, pull = _grip(rest, deformation, scene.centreline)
        angle = 2 * np.pi * (along_mm - deformation.wave_mm_s * pts_s) / deformation.wave_mm
        # A ring is narrow and the relaxed stretch between two rings long.
        moved += pull * (np.maximum(np.cos(angle / 2) ** 2, 1e-9) ** 3)[:, None]
    return moved


def between(
    now: npt.NDArray[np.float32],
    later: npt.NDArray[np.float32],
    faces: npt.NDArray[np.int32],
    face: npt.NDArray[np.int32],
    u: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """N x 3 mm by which points on a surface move between two of its shapes.

    Args:
        now: V x 3 mm vertices.
        later: V x 3 mm, the same vertices.
        faces: F x 3 vertex indices.
        face: N faces that the points lie on; -1 stands still.
        u: N barycentric coordinates of the second corner.
        v: N barycentric coordinates of the third corner.

    Example:
        >>> now = np.zeros((3, 3), np.float32)
        >>> later = np.array([[0, 0, 0], [0, 0, 4], [0, 0, 8]], np.float32)
        >>> half = np.full(1, 0.5, np.float32)
        >>> between(now, later, np.array([[0, 1, 2]], np.int32), np.zeros(1, np.int32), half, half).tolist()
        [[0.0, 0.0, 6.0]]
    """
    return _between(now, later, faces, face, u, v)


@compiled
def _between(
    now: npt.NDArray[np.float32],
    later: npt.NDArray[np.float32],
    faces: npt.NDArray[np.int32],
    face: npt.NDArray[np.int32],
    u: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    moved = np.zeros((face.shape[0], 3), np.float32)
    for n in range(face.shape[0]):
        if face[n] < 0:
            continue
        a, b, c = faces[face[n], 0], faces[face[n], 1], faces[face[n], 2]
        for k in range(3):
            moved[n, k] = (
                (np.float32(1.0) - u[n] - v[n]) * (later[a, k] - now[a, k])
                + u[n] * (later[b, k] - now[b, k])
                + v[n] * (later[c, k] - now[c, k])
            )
    return moved


@compiled
def _moment(
    stencil: Array, share: Array, ring: Array, pull: Array, shift: Array, wave_cos: float, wave_sin: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    count = stencil.shape[0]
    vertices, normals = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    place = np.empty((5, 3))
    normal = np.empty(3)
    for n in range(count):
        for s in range(5):
            tight = 0.0
            if ring.shape[0] > 0:
                half = 0.5 + 0.5 * (ring[n, s, 0] * wave_cos + ring[n, s, 1] * wave_sin)
                tight = max(half, 1e-9) ** 3
            for k in range(3):
                place[s, k] = stencil[n, s, k] + share[n, s] * shift[k]
                if ring.shape[0] > 0:
                    place[s, k] += tight * pull[n, s, k]
        length = 0.0
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            normal[k] = (place[1, i] - place[2, i]) * (place[3, j] - place[4, j]) - (place[1, j] - place[2, j]) * (
                place[3, i] - place[4, i]
            )
            length += normal[k] ** 2
        length = max(np.sqrt(length), 1e-12)
        for k in range(3):
            vertices[n, k] = place[0, k]
            normals[n, k] = normal[k] / length
    return vertices, normals


def _breath_share(rest: Array, phase: float) -> Array:
    # What lies 150 mm away breathes otherwise, so that the organ bends as it shifts.
    return np.asarray(0.7 + 0.3 * np.cos(rest @ (2 * np.pi / 150.0 * _direction(phase + 1.0))))


def _grip(rest: Array, deformation: Deformation, line: Centreline) -> tuple[Array, Array]:
    """N places along the axis in mm, and N x 3 mm by which the tightest ring moves a point."""
    along_mm, axis, radius = _nearest_on(line, rest)
    inward = axis - rest
    distance = np.maximum(np.linalg.norm(inward, axis=1), 1e-6)
    # What lies near the axis, and the end walls, hardly moves.
    grip = np.clip(distance / np.maximum(radius, 1e-6), 0.0, 1.0) ** 2
    return along_mm, np.asarray(inward * (deformation.peristalsis * grip)[:, None])


def _direction(phase: float) -> npt.NDArray[np.float64]:
    vector = np.array([np.cos(1.7 * phase), np.sin(2.3 * phase), 0.5 + 0.5 * np.cos(phase)])
    return np.asarray(vector / np.linalg.norm(vector), np.float64)


def _nearest_on(
    line: Centreline, points: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Length along the axis, nearest place on it and its free radius, for N points; continuous along the axis."""
    skip = max(1, round(4.0 / line.step_mm))
    knots = line.points[::skip].astype(np.float64)
    tangents = line.frames[::skip, :, 2].astype(np.float64)
    radii = line.radius_mm[::skip].astype(np.float64)
    index = np.empty(len(points), np.intp)
    square = (knots**2).sum(axis=1)
    for low in range(0, len(points), 65536):
        part = points[low : low + 65536]
        index[low : low + 65536] = np.argmin(square[None] - 2.0 * part @ knots.T, axis=1)
    ahead = ((points - knots[index]) * tangents[index]).sum(axis=1)
    axis = knots[index] + ahead[:, None] * tangents[index]
    spacing = skip * line.step_mm
    return index * spacing + ahead, axis, radii[index]
