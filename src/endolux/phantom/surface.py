"""What one camera sees of a scene: before exposure, and as a finished frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.pose import Pose
from endolux.phantom.raster import Seen
from endolux.types import Camera, DepthMap, Frame, MaskArray

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class PhantomFrame:
    """An image and everything that is known about it.

    Attributes:
        frame: RGB image with its camera and visible area.
        depth: METRIC, exact z in mm.
        normals: H x W x 3 float32 unit normals in camera axes, towards the camera.
        labels: H x W uint8 semantic classes (``endolux.phantom.labels``).
        pose: 4 x 4 camera-to-world in mm.
        specular: H x W bool, where the mirror reflection of a light outshines the tissue.
        lines: H x W uint8 landmark lines of the liver (``endolux.phantom.landmarks``), None in scenes without.
    """

    frame: Frame
    depth: DepthMap
    normals: FloatArray
    labels: npt.NDArray[np.uint8]
    pose: Pose
    specular: MaskArray | None = None
    lines: npt.NDArray[np.uint8] | None = None

    @property
    def camera(self) -> Camera | None:
        """Intrinsics of the frame."""
        return self.frame.camera


@dataclasses.dataclass(frozen=True, slots=True)
class Surface:
    """What one camera sees before exposure.

    Attributes:
        depth_mm: H x W z, 0 where nothing is.
        normals: H x W x 3 in camera axes.
        labels: H x W.
        radiance: H x W x 3 linear light.
        facing: share of the pixels that see a surface from its proper side.
        specular: H x W bool, where mirror reflection outshines the tissue.
        hit: faces of the scene and places on them, row by row; none where nothing is or something is held.
    """

    depth_mm: FloatArray
    normals: FloatArray
    labels: npt.NDArray[np.uint8]
    radiance: FloatArray
    facing: float
    specular: MaskArray | None = None
    hit: Seen | None = None

    @property
    def held(self) -> MaskArray:
        """H x W bool, where something moves with the camera because the scope holds it."""
        if self.hit is None:
            return np.zeros(self.depth_mm.shape, bool)
        return np.asarray((self.hit.face.reshape(self.depth_mm.shape) < 0) & (self.depth_mm > 0))
