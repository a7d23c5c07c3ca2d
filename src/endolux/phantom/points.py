"""What rays meet: colour, normals, relief and labels of the surface, compiled."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.atlas import Atlas, Skin
from endolux.phantom.compile import compiled_fast
from endolux.phantom.lanes import fetch
from endolux.phantom.powers import exp2
from endolux.phantom.raster import Seen

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

_F0, _F1 = np.float32(0.0), np.float32(1.0)
_TINY = np.float32(1e-12)
# How many rays later what is brought into the cache is needed.
_AHEAD = 12


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Points:
    """What is known of the surface at each of N rays.

    Attributes:
        albedo: N x 3.
        normals: N x 3 unit normals of the smooth surface, in camera axes.
        state: 6 x N: normal of the rough surface (3), GGX alpha squared, reflectance of the wet layer (-1 where nothing
            was met), depth z in mm (there 1).
        labels: N semantic classes.
        facing: N, whether the surface is seen from its proper side.
    """

    albedo: FloatArray
    normals: FloatArray
    state: FloatArray
    labels: npt.NDArray[np.uint8]
    facing: npt.NDArray[np.bool_]

    @classmethod
    def none(cls, count: int) -> Points:
        """Nothing at ``count`` rays, to be filled in by ``find_points``."""
        state = np.zeros((6, count), np.float32)
        state[4], state[5] = -1.0, 1.0
        return cls(
            albedo=np.zeros((count, 3), np.float32),
            normals=np.zeros((count, 3), np.float32),
            state=state,
            labels=np.zeros(count, np.uint8),
            facing=np.zeros(count, np.bool_),
        )


def find_points(
    into: Points,
    *,
    skin: Skin,
    faces: IntArray,
    seen: Seen,
    local: FloatArray,
    turn: FloatArray,
    atlas: Atlas,
    ray_u: FloatArray,
    ray_v: FloatArray,
) -> None:
    """Look up what N rays meet on one mesh.

    Args:
        into: written where ``seen.face`` is not negative.
        skin: vertex attributes.
        faces: F x 3, in the order that ``seen.face`` counts in.
        seen: the hits.
        local: V x 3 mm vertices in camera axes.
        turn: 3 x 3, camera to the axes of the mesh's normals.
        atlas: textures of the tissues.
        ray_u: N slopes x/z of the rays.
        ray_v: N slopes y/z of the rays.
    """
    _find_points(
        into.albedo,
        into.normals,
        into.state,
        into.labels,
        into.facing,
        faces,
        local,
        skin.values,
        skin.codes,
        turn,
        atlas.texels,
        atlas.tiles,
        atlas.places,
        atlas.numbers,
        seen.face,
        seen.u,
        seen.v,
        seen.depth_mm,
        ray_u,
        ray_v,
    )


def glance(
    skin: Skin, faces: IntArray, seen: Seen, turn: FloatArray, ray_u: FloatArray, ray_v: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Normals (N x 3), labels (N) and whether the proper side is seen (N), without textures."""
    return _glance(skin.values, skin.codes, faces, seen.face, seen.u, seen.v, turn, ray_u, ray_v)


@compiled_fast
def _find_points(
    albedo: FloatArray,
    smooth: FloatArray,
    state: FloatArray,
    labels: npt.NDArray[np.uint8],
    facing: npt.NDArray[np.bool_],
    faces: IntArray,
    local: FloatArray,
    skin: FloatArray,
    codes: npt.NDArray[np.uint8],
    turn: FloatArray,
    texels: FloatArray,
    tiles: FloatArray,
    places: npt.NDArray[np.int64],
    numbers: FloatArray,
    face: IntArray,
    bary_u: FloatArray,
    bary_v: FloatArray,
    depth: FloatArray,
    ray_u: FloatArray,
    ray_v: FloatArray,
) -> None:
    own = np.empty(16, np.float32)
    per_e = np.float32(1.4426950408889634)
    for k in range(face.size):
        f = face[k]
        if f < 0:
            continue
        # Vertices of a large mesh are far apart in memory.
        ahead = max(face[min(k + _AHEAD, face.size - 1)], 0)
        for x in range(3):
            fetch(skin, skin.shape[1] * np.intp(faces[ahead, x]))
            fetch(local, 3 * np.intp(faces[ahead, x]))
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        wb, wc = bary_u[k], bary_v[k]
        wa = _F1 - wb - wc
        for x in range(16):
            own[x] = wa * skin[a, x] + wb * skin[b, x] + wc * skin[c, x]
        labels[k] = codes[a, 0]
        kind = codes[a, 1]
        # Smooth normal, into camera axes.
        mx = own[0]
        my = own[1]
        mz = own[2]
        nx = turn[0, 0] * mx + turn[1, 0] * my + turn[2, 0] * mz
        ny = turn[0, 1] * mx + turn[1, 1] * my + turn[2, 1] * mz
        nz = turn[0, 2] * mx + turn[1, 2] * my + turn[2, 2] * mz
        scale = _F1 / math.sqrt(max(nx * nx + ny * ny + nz * nz, _TINY))
        nx, ny, nz = nx * scale, ny * scale, nz * scale
        smooth[k, 0], smooth[k, 1], smooth[k, 2] = nx, ny, nz
        facing[k] = nx * ray_u[k] + ny * ray_v[k] + nz < np.float32(0.05)
        # Texture: one or two layers.
        first, rows, columns = places[kind, 0], places[kind, 1], places[kind, 2]
        tile_first, tile = places[kind, 3], places[kind, 4]
        span_u, span_v = numbers[kind, 0], numbers[kind, 1]
        detail_mm, detail_height, detail_albedo = numbers[kind, 2], numbers[kind, 3], numbers[kind, 4]
        specular = numbers[kind, 5]
        flat = own[7]
        red, green, blue, rough = _F0, _F0, _F0, _F0
        sx, sy, sz = _F0, _F0, _F0
        e1x, e1y, e1z = local[b, 0] - local[a, 0], local[b, 1] - local[a, 1], local[b, 2] - local[a, 2]
        e2x, e2y, e2z = local[c, 0] - local[a, 0], local[c, 1] - local[a, 1], local[c, 2] - local[a, 2]
        for layer in range(2):
            if layer == 0:
                share = _F1 - flat
                at = 3
            else:
                share = flat
                at = 5
            if share <= np.float32(0.001):
                continue
            au, av = skin[a, at], skin[a, at + 1]
            du1, dv1 = skin[b, at] - au, skin[b, at + 1] - av
            du2, dv2 = skin[c, at] - au, skin[c, at + 1] - av
            tu, tv = own[at], own[at + 1]
            if layer == 0:
                mu = own[8]
                mv = own[9]
            else:
                mu, mv = tu * span_u, tv * span_v
            row = (tu - np.floor(tu)) * np.float32(rows)
            column = (tv - np.floor(tv)) * np.float32(columns)
            i0, j0 = int(row), int(column)
            fr, fc = row - np.float32(i0), column - np.float32(j0)
            if i0 >= rows:
                i0 = 0
            if j0 >= columns:
                j0 = 0
            i1 = i0 + 1 if i0 + 1 < rows else 0
            j1 = j0 + 1 if j0 + 1 < columns else 0
            p = first + i0 * columns + j0
            q = first + i0 * columns + j1
            r = first + i1 * columns + j0
            s = first + i1 * columns + j1
            gr, gc = _F1 - fr, _F1 - fc
            wp, wq, wr, ws = gr * gc, gr * fc, fr * gc, fr * fc
            hp, hq = texels[p, 4], texels[q, 4]
            hr, hs = texels[r, 4], texels[s, 4]
            slope_u = ((hr - hp) * gc + (hs - hq) * fc) * np.float32(rows)
            slope_v = ((hq - hp) * gr + (hs - hr) * fr) * np.float32(columns)
            # Fine tile.
            mu, mv = mu / detail_mm, mv / detail_mm
            row = (mu - np.floor(mu)) * np.float32(tile)
            column = (mv - np.floor(mv)) * np.float32(tile)
            i0, j0 = int(row), int(column)
            fr, fc = row - np.float32(i0), column - np.float32(j0)
            if i0 >= tile:
                i0 = 0
            if j0 >= tile:
                j0 = 0
            i1 = i0 + 1 if i0 + 1 < tile else 0
            j1 = j0 + 1 if j0 + 1 < tile else 0
            hp, hq = tiles[tile_first + i0 * tile + j0], tiles[tile_first + i0 * tile + j1]
            hr, hs = tiles[tile_first + i1 * tile + j0], tiles[tile_first + i1 * tile + j1]
            gr, gc = _F1 - fr, _F1 - fc
            fine = (hp * gc + hq * fc) * gr + (hr * gc + hs * fc) * fr
            fine_scale = detail_height * np.float32(tile) / detail_mm
            fine_u = ((hr - hp) * gc + (hs - hq) * fc) * fine_scale
            fine_v = ((hq - hp) * gr + (hs - hr) * fr) * fine_scale
            weight = share * exp2(per_e * detail_albedo * fine)
            red += weight * (wp * texels[p, 0] + wq * texels[q, 0] + wr * texels[r, 0] + ws * texels[s, 0])
            green += weight * (wp * texels[p, 1] + wq * texels[q, 1] + wr * texels[r, 1] + ws * texels[s, 1])
            blue += weight * (wp * texels[p, 2] + wq * texels[q, 2] + wr * texels[r, 2] + ws * texels[s, 2])
            rough += share * (wp * texels[p, 3] + wq * texels[q, 3] + wr * texels[r, 3] + ws * texels[s, 3])
            # Directions of the two texture axes on the triangle.
            det = du1 * dv2 - du2 * dv1
            if abs(det) > np.float32(1e-14):
                inverse = _F1 / det
                ux, uy, uz = (
                    (e1x * dv2 - e2x * dv1) * inverse,
                    (e1y * dv2 - e2y * dv1) * inverse,
                    (e1z * dv2 - e2z * dv1) * inverse,
                )
                vx, vy, vz = (
                    (e2x * du1 - e1x * du2) * inverse,
                    (e2y * du1 - e1y * du2) * inverse,
                    (e2z * du1 - e1z * du2) * inverse,
                )
                lu, lv = ux * ux + uy * uy + uz * uz, vx * vx + vy * vy + vz * vz
                if lu > np.float32(1e-8) and lv > np.float32(1e-8):
                    cu = share * (slope_u / lu + fine_u / math.sqrt(lu))
                    cv = share * (slope_v / lv + fine_v / math.sqrt(lv))
                    sx += ux * cu + vx * cv
                    sy += uy * cu + vy * cv
                    sz += uz * cu + vz * cv
        red = min(max(red * (own[10]), _F0), _F1)
        green = min(max(green * (own[11]), _F0), _F1)
        blue = min(max(blue * (own[12]), _F0), _F1)
        bx, by, bz = nx - sx, ny - sy, nz - sz
        scale = _F1 / math.sqrt(max(bx * bx + by * by + bz * bz, _TINY))
        bx, by, bz = bx * scale, by * scale, bz * scale
        alpha = max(rough * rough, np.float32(1e-3))
        albedo[k, 0], albedo[k, 1], albedo[k, 2] = red, green, blue
        state[0, k], state[1, k], state[2, k] = bx, by, bz
        state[3, k], state[4, k], state[5, k] = alpha * alpha, specular, depth[k]


@compiled_fast
def _glance(
    skin: FloatArray,
    codes: npt.NDArray[np.uint8],
    faces: IntArray,
    face: IntArray,
    bary_u: FloatArray,
    bary_v: FloatArray,
    turn: FloatArray,
    ray_u: FloatArray,
    ray_v: FloatArray,
) -> tuple[FloatArray, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    count = face.size
    normals = np.zeros((count, 3), np.float32)
    labels = np.zeros(count, np.uint8)
    facing = np.zeros(count, np.bool_)
    for k in range(count):
        f = face[k]
        if f < 0:
            continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        wb, wc = bary_u[k], bary_v[k]
        wa = _F1 - wb - wc
        mx = wa * skin[a, 0] + wb * skin[b, 0] + wc * skin[c, 0]
        my = wa * skin[a, 1] + wb * skin[b, 1] + wc * skin[c, 1]
        mz = wa * skin[a, 2] + wb * skin[b, 2] + wc * skin[c, 2]
        scale = _F1 / math.sqrt(max(mx * mx + my * my + mz * mz, _TINY))
        for x in range(3):
            normals[k, x] = (turn[0, x] * mx + turn[1, x] * my + turn[2, x] * mz) * scale
        labels[k] = codes[a, 0]
        facing[k] = normals[k, 0] * ray_u[k] + normals[k, 1] * ray_v[k] + normals[k, 2] < np.float32(0.05)
    return normals, labels, facing
