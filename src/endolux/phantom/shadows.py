"""Which points of a picture a light reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.raster import Raster

if TYPE_CHECKING:
    from endolux.phantom.pose import Pose

FloatArray = npt.NDArray[np.float32]
MaskArray = npt.NDArray[np.bool_]

# A hit this much nearer than the surface counts as shadow: surfaces do not hide themselves.
_SLACK = 0.985
# Narrower images ask for the shadow of every pixel at once.
_COARSE_WIDTH = 128
_COARSE = 4
_JUMP = 1.15


class Arrivals:
    """Shares of lights that arrive at the points that a picture shows.

    Args:
        u: H x W slopes x/z of the pixels' rays, 0 where there is none.
        v: H x W slopes y/z.
        depth: H*W mm along z, infinite where nothing is.
        casters: what may stand in the way, each with its pose to world; all have the picture's camera axes.
    """

    def __init__(self, u: FloatArray, v: FloatArray, depth: FloatArray, casters: Sequence[tuple[Raster, Pose]]) -> None:
        self._u, self._v, self._casters = u, v, casters
        # Where nothing is, the point falls onto the lens and counts as lit.
        self._z: FloatArray = np.where(np.isfinite(depth), depth, np.float32(0.0)).reshape(u.shape)
        self._jumps: MaskArray | None = None

    def of(self, light: tuple[float, float, float]) -> FloatArray:
        """H*W shares of the light at a position in camera axes."""
        slopes = _from_light(self._u, self._v, self._z, np.asarray(light, np.float32), np.float32(_SLACK))
        if self._u.shape[1] < _COARSE_WIDTH:
            plane = self._clear(slopes, np.ones(self._z.shape, bool), light)
        else:
            plane = self._refined(slopes, light)
        # A light guide is not a point: a pixel of blur stands for its penumbra.
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), 1.0).reshape(-1), np.float32)

    def _refined(self, slopes: FloatArray, light: tuple[float, float, float]) -> FloatArray:
        """Every fourth pixel, and all of them where those disagree or the depth jumps."""
        few = np.s_[::_COARSE, ::_COARSE]
        if self._jumps is None:
            block = np.ones((2 * _COARSE + 1, 2 * _COARSE + 1), np.uint8)
            self._jumps = np.asarray((cv2.dilate(self._z, block) > _JUMP * cv2.erode(self._z, block))[few])
        # It is known where the depth jumps: those blocks and the coarse pixels go into one cast.
        known = self._spread(self._jumps) > 0
        asked = known.copy()
        asked[few] = True
        plane = self._clear(slopes, asked, light)
        coarse = plane[few].astype(np.uint8)
        square = np.ones((3, 3), np.uint8)
        unsure = (cv2.dilate(coarse, square) != cv2.erode(coarse, square)) & ~self._jumps
        result = self._spread(coarse).astype(np.float32)
        result[known] = plane[known]
        if unsure.any():
            more = self._spread(unsure) > 0
            result[more] = self._clear(slopes, more, light)[more]
        return result

    def _spread(self, small: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Each coarse pixel as a block of pixels."""
        height, width = self._u.shape
        return small.astype(np.uint8).repeat(_COARSE, axis=0)[:height].repeat(_COARSE, axis=1)[:, :width]

    def _clear(self, slopes: FloatArray, asked: MaskArray, light: tuple[float, float, float]) -> FloatArray:
        """H x W, 1 where the way to a light is free; only where it is asked for."""
        where = np.flatnonzero(asked)
        u, v, limit = slopes[:, where]
        clear = np.ones(where.size, bool)
        for raster, pose in self._casters:
            clear &= ~raster.blocked(u, v, limit, light, pose)
        plane = np.ones(self._z.size, np.float32)
        plane[where] = clear
        return plane.reshape(self._z.shape)


@compiled
def _from_light(u: FloatArray, v: FloatArray, z: FloatArray, light: FloatArray, slack: float) -> FloatArray:
    """3 x H*W: slopes of the rays from the light to the points, NaN where it shines away; z up to which they go."""
    height, width = z.shape
    result = np.empty((3, height * width), np.float32)
    for i in range(height):
        for j in range(width):
            k = i * width + j
            rest = z[i, j] - light[2]
            if rest > 0.01 and rest < 1e30:
                result[0, k] = (u[i, j] * z[i, j] - light[0]) / rest
                result[1, k] = (v[i, j] * z[i, j] - light[1]) / rest
                result[2, k] = slack * rest
            else:
                result[0, k] = np.nan
                result[1, k] = np.nan
                result[2, k] = 0.0
    return result
