"""How an instrument in the scope's channel is handled: pushed, drawn back, turned and swayed while the scope moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.mesh import Mesh

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Handling:
    """Smooth motion of an instrument in camera axes; at rest it is where its scene put it.

    Attributes:
        push_mm: amplitude along the channel.
        push_period_s: of pushing and drawing back.
        turn_rad: amplitude of the rotation about the channel.
        turn_period_s: of turning.
        sway_rad: amplitudes about the picture's horizontal and vertical axis, at the channel's mouth.
        sway_period_s: of swaying.
        phases: radians of push, turn and both sways at time 0.
    """

    push_mm: float
    push_period_s: float
    turn_rad: float
    turn_period_s: float
    sway_rad: tuple[float, float]
    sway_period_s: float
    phases: tuple[float, float, float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Handling:
        """How one instrument is handled in one clip.

        Example:
            >>> import numpy as np
            >>> handling = Handling.draw(np.random.default_rng(0))
            >>> early, soon = handling.at(1.0), handling.at(1.04)
            >>> bool(0 < abs(early - soon).max() < 1.0)
            True
        """
        sways = rng.uniform(0.01, 0.06, 2)
        return cls(
            push_mm=float(rng.uniform(0.5, 5.0)),
            push_period_s=float(rng.uniform(2.0, 7.0)),
            turn_rad=float(rng.uniform(0.1, 1.2)),
            turn_period_s=float(rng.uniform(3.0, 9.0)),
            sway_rad=(float(sways[0]), float(sways[1])),
            sway_period_s=float(rng.uniform(1.5, 6.0)),
            phases=tuple(map(float, rng.uniform(0, 2 * np.pi, 4))),  # type: ignore[arg-type]
        )

    def at(self, pts_s: float) -> Array:
        """4 x 4 motion of the instrument in axes at the channel's mouth, at a time in seconds."""

        def swing(amplitude: float, period_s: float, phase: float) -> float:
            return amplitude * float(np.sin(2 * np.pi * pts_s / period_s + phase))

        roll = swing(self.turn_rad, self.turn_period_s, self.phases[1])
        pitch, yaw = (
            swing(amplitude, self.sway_period_s, phase)
            for amplitude, phase in zip(self.sway_rad, self.phases[2:], strict=True)
        )
        about_z = _rotation(2, roll)
        motion = np.eye(4)
        motion[:3, :3] = _rotation(0, pitch) @ _rotation(1, yaw) @ about_z
        # Never further back than where it is at rest less the amplitude: the tip stays in view.
        motion[2, 3] = swing(self.push_mm, self.push_period_s, self.phases[0])
        return motion

    def moved(self, held: Mesh, pts_s: float) -> Mesh:
        """The instrument at a time, in camera axes.

        Args:
            held: as the scene has it, in camera axes.
            pts_s: time in seconds.
        """
        motion = self.at(pts_s)
        # It turns about its own axis, which leaves the channel beside the lens.
        near = held.vertices[:, 2] <= np.percentile(held.vertices[:, 2], 10)
        mouth = held.vertices[near].mean(axis=0).astype(np.float64)
        turn = motion[:3, :3]
        vertices = (held.vertices - mouth) @ turn.T + mouth + motion[:3, 3]
        return dataclasses.replace(
            held,
            vertices=np.ascontiguousarray(vertices, np.float32),
            normals=np.ascontiguousarray(held.normals @ turn.T, np.float32),
        )

    def record(self) -> dict[str, object]:
        """The sampled numbers as JSON values."""
        return dataclasses.asdict(self) | {"sway_rad": list(self.sway_rad), "phases": list(self.phases)}


def _rotation(axis: int, angle: float) -> Array:
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
