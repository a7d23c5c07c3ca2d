"""Sums over faces and noise in space are the same bits as in NumPy, whatever is compiled or cut into pieces."""

from __future__ import annotations

import numpy as np

from endolux.phantom.facets import by_axis, directions
from endolux.phantom.solids import ellipsoid_grid, open_body, solid_noise


def test_directions_are_the_sums_of_numpy() -> None:
    body = open_body(ellipsoid_grid((3.0, 2.0, 5.0), rows=17, columns=23))
    corners = body.vertices[body.faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    wanted = np.stack(
        [np.bincount(body.faces.reshape(-1), np.repeat(weighted[:, k], 3), len(body.vertices)) for k in range(3)], 1
    )
    sums, length = directions(body.vertices, body.faces)
    np.testing.assert_array_equal(sums, wanted)
    np.testing.assert_array_equal(length, np.linalg.norm(wanted, axis=1))


def test_vertices_are_doubled_where_the_axis_changes() -> None:
    body = open_body(ellipsoid_grid((3.0, 2.0, 5.0), rows=17, columns=23))
    dropped = np.abs(body.normals[body.faces].mean(axis=1)).argmin(axis=1)
    pairs, numbers = np.unique(body.faces.astype(np.int64) * 3 + dropped[:, None], return_inverse=True)
    source, axis, faces = by_axis(body.normals, body.faces)
    np.testing.assert_array_equal(3 * source + axis, pairs)
    np.testing.assert_array_equal(faces, numbers.reshape(-1, 3))
    assert len(source) > len(np.unique(source))
    assert set(axis.tolist()) == {0, 1, 2}


def test_noise_does_not_depend_on_the_other_points() -> None:
    points = np.random.default_rng(1).normal(0, 20, (5000, 3)).astype(np.float32)
    whole = solid_noise(np.random.default_rng(2), points, scale_mm=4.0)
    part = solid_noise(np.random.default_rng(2), points[3000:3300], scale_mm=4.0)
    np.testing.assert_allclose(part, whole[3000:3300], atol=2e-6)
    assert abs(float(whole.std()) - 1.0) < 0.2
