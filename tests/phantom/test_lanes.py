"""Eight rays at a time give what one at a time gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.culling import farthest_nearby
from endolux.phantom.lanes import LANES, block, meet, padded, reaching, waiting, waiting_within
from endolux.phantom.pencils import grid_of_rays

FloatArray = npt.NDArray[np.float32]
_PLANES = (0.3, -0.1, 0.05, -0.2, 0.4, 0.1, 0.1, 0.1, 0.4, 7.5)


@compiled
def _masks(depth, u, v, near, low):  # type: ignore[no-untyped-def]
    return (
        waiting(depth, 2, 5, near),
        waiting_within(depth, 2, 5, near, u, v, -0.2, 0.6, -0.5, 0.5),
        reaching(depth, u, v, 2, 5, 0.2, -0.3, 0.9, low),
    )


@compiled
def _met(u, v, depth, face, bary_u, bary_v, blocked, shut, planes):  # type: ignore[no-untyped-def]
    meet(u, v, depth, face, bary_u, bary_v, 1, planes, 42)
    block(u, v, blocked, shut, 1, planes, 42)


def _rays(count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(3)
    u, v = rng.uniform(-1, 1, (2, count)).astype(np.float32)
    depth = rng.uniform(5, 40, count).astype(np.float32)
    depth[3], depth[4] = np.inf, -1.0
    return u, v, depth


def _bits(mask: npt.NDArray[np.bool_]) -> int:
    return sum(1 << k for k in range(mask.size) if mask[k])


def test_masks_are_those_of_numpy_and_end_with_the_count() -> None:
    u, v, depth = _rays(2 + LANES)
    near, low = np.float32(18.0), 14.0
    own = slice(2, 7)
    beyond = depth[own] > near
    within = beyond & (u[own] >= np.float32(-0.2)) & (u[own] <= np.float32(0.6)) & (np.abs(v[own]) <= 0.5)
    with np.errstate(invalid="ignore"):
        along = 0.2 * u[own].astype(float) + -0.3 * v[own].astype(float) + 0.9
        reached = (depth[own] > 0) & (depth[own] * along > low)
    assert beyond.any()
    assert reached.any()
    assert not beyond.all()
    assert _masks(depth, u, v, near, low) == (_bits(beyond), _bits(within), _bits(reached))


def test_a_triangle_is_met_bit_by_bit_as_by_numpy() -> None:
    u, v, depth = _rays(2 + LANES)
    u[5] = np.nan
    p, q, r = (u.astype(float) * _PLANES[k] + v.astype(float) * _PLANES[k + 1] + _PLANES[k + 2] for k in (0, 3, 6))
    total = p + q + r
    with np.errstate(invalid="ignore"):
        hit = (p >= 0) & (q >= 0) & (r >= 0) & (total > 0) & (total * depth > _PLANES[9])
    hit[0], hit[1 + LANES :] = False, False
    assert 0 < hit.sum() < LANES
    assert not hit[4]
    assert not hit[5]
    face, shut = np.full((2, depth.size), -1, np.int32)
    bary_u, bary_v, now, blocked = np.zeros_like(u), np.zeros_like(u), depth.copy(), depth.copy()
    _met(u, v, now, face, bary_u, bary_v, blocked, shut, _PLANES)
    np.testing.assert_array_equal(face, np.where(hit, 42, -1))
    np.testing.assert_array_equal(shut, face)
    np.testing.assert_array_equal(now, np.where(hit, (_PLANES[9] / total).astype(np.float32), depth))
    np.testing.assert_array_equal(bary_u, np.where(hit, (q / total).astype(np.float32), 0))
    np.testing.assert_array_equal(bary_v, np.where(hit, (r / total).astype(np.float32), 0))
    np.testing.assert_array_equal(blocked, np.where(hit, np.float32(-1), depth))


def test_padding_is_met_by_nothing() -> None:
    grid = grid_of_rays(np.linspace(-1, 1, 5, dtype=np.float32), np.zeros(5, np.float32))
    assert grid.count == 5
    assert grid.u.size == grid.v.size == 5 + LANES
    assert np.isnan(grid.u[5:]).all()
    assert np.isfinite(grid.u[:5]).all()
    assert padded(np.arange(2, dtype=np.int32), 7).tolist() == [0, 1, *[7] * LANES]


def test_farthest_nearby_covers_three_by_three_cells() -> None:
    rows, columns = 4, 5
    depth = np.random.default_rng(0).uniform(1, 9, 2 * rows * columns).astype(np.float32)
    start = np.arange(0, 2 * rows * columns + 1, 2, dtype=np.int32)
    found = farthest_nearby(padded(depth, 99.0), start, rows, columns).reshape(rows, columns)
    cells = depth.reshape(rows, columns, 2).max(axis=2)
    for i in range(rows):
        for j in range(columns):
            assert found[i, j] == cells[i : i + 3, j : j + 3].max()
