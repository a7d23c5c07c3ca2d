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
IntArray = npt.NDArray[np.int64]
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
            plane = np.empty(self._z.shape, np.float32)
            self._clear(slopes, np.arange(plane.size), light, plane)
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
        plane = np.empty(self._z.shape, np.float32)
        self._clear(slopes, _pixels_of(self._jumps, self._z.shape, True), light, plane)
        coarse = plane[few].astype(np.uint8)
        square = np.ones((3, 3), np.uint8)
        unsure = (cv2.dilate(coarse, square) != cv2.erode(coarse, square)) & ~self._jumps
        _spread(coarse, self._jumps, plane)
        if unsure.any():
            self._clear(slopes, _pixels_of(unsure, self._z.shape, False), light, plane)
        return plane

    def _clear(self, slopes: FloatArray, where: IntArray, light: tuple[float, float, float], plane: FloatArray) -> None:
        """Write 1 where the way to a light is free and 0 where it is not, at some pixels."""
        rays = _chosen(slopes, where)
        clear = np.ones(where.size, bool)
        for raster, pose in self._casters:
            clear &= ~raster.blocked(rays[0], rays[1], rays[2], light, pose)
        plane.reshape(-1)[where] = clear


@compiled
def _pixels_of(blocks: MaskArray, shape: tuple[int, int], corners: bool) -> IntArray:
    """Numbers of the pixels of some blocks, with ``corners`` also of the first pixel of every other one."""
    found = np.empty(shape[0] * shape[1], np.int64)
    count = 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            first = corners and i % _COARSE == 0 and j % _COARSE == 0
            found[count] = i * shape[1] + j
            count += int(first or blocks[i // _COARSE, j // _COARSE])
    return found[:count]


@compiled
def _chosen(slopes: FloatArray, where: IntArray) -> FloatArray:
    chosen = np.empty((slopes.shape[0], where.size), np.float32)
    for row in range(slopes.shape[0]):
        for n in range(where.size):
            chosen[row, n] = slopes[row, where[n]]
    return chosen


@compiled
def _spread(coarse: npt.NDArray[np.uint8], known: MaskArray, plane: FloatArray) -> None:
    """Give the pixels of each block that is not known the value of the coarse one."""
    for i in range(plane.shape[0]):
        for j in range(plane.shape[1]):
            if not known[i // _COARSE, j // _COARSE]:
                plane[i, j] = coarse[i // _COARSE, j // _COARSE]


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
