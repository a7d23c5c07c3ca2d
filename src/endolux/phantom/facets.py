"""Sums over the faces of a mesh, compiled; the bits are those of the same sums in NumPy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@compiled
def directions(vertices: FloatArray, faces: IntArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The area-weighted sums of the normals of each vertex's faces (V x 3), and their lengths (V).

    Example:
        >>> corners = np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0]], np.float32)
        >>> directions(corners, np.array([[0, 1, 2]], np.int32))[0].tolist()
        [[0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]]
    """
    sums = np.zeros((vertices.shape[0], 3))
    length = np.empty(vertices.shape[0])
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        px, py, pz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        qx, qy, qz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        for k in range(3):
            at = faces[f, k]
            sums[at, 0] += nx
            sums[at, 1] += ny
            sums[at, 2] += nz
    for k in range(vertices.shape[0]):
        length[k] = math.sqrt(sums[k, 0] * sums[k, 0] + sums[k, 1] * sums[k, 1] + sums[k, 2] * sums[k, 2])
    return sums, length


@compiled
def by_axis(
    normals: FloatArray, faces: IntArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Vertices once for each axis that the normal of one of their faces has least of.

    Returns:
        the vertices, the axes, and F x 3 faces that count in these pairs.

    Example:
        >>> up = np.tile(np.array([0.6, 0.0, 0.8], np.float32), (3, 1))
        >>> by_axis(up, np.array([[0, 1, 2]], np.int32))[1].tolist()
        [1, 1, 1]
    """
    number = np.full(3 * normals.shape[0], -1, np.int32)
    dropped = np.empty(faces.shape[0], np.int64)
    for f in range(faces.shape[0]):
        least = np.float32(np.inf)
        dropped[f] = 0
        for axis in range(3):
            total = normals[faces[f, 0], axis] + normals[faces[f, 1], axis] + normals[faces[f, 2], axis]
            size = abs(total / np.float32(3.0))
            if size < least:
                least, dropped[f] = size, axis
        for k in range(3):
            number[3 * faces[f, k] + dropped[f]] = 0
    used = 0
    for key in range(number.size):
        if number[key] == 0:
            number[key] = used
            used += 1
    source, axes = np.empty(used, np.int64), np.empty(used, np.int64)
    for key in range(number.size):
        if number[key] >= 0:
            source[number[key]], axes[number[key]] = key // 3, key % 3
    renumbered = np.empty(faces.shape, np.int32)
    for f in range(faces.shape[0]):
        for k in range(3):
            renumbered[f, k] = number[3 * faces[f, k] + dropped[f]]
    return source, axes, renumbered
