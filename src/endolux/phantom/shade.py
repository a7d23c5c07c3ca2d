"""Surface points to light: diffuse and wet reflection of near sources, compiled."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled, compiled_fast
from endolux.phantom.mesh import Mesh
from endolux.phantom.powers import exp2, log2
from endolux.phantom.raster import Seen
from endolux.phantom.tissue import Tissue

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

_CHANNELS = 8
_F0, _F1, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_TINY = np.float32(1e-12)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """The textures of several tissues side by side, texel by texel.

    Attributes:
        texels: T x 8 float32: red, green, blue, roughness, height in mm, unused (3).
        tiles: D x 1 float32 fine relief, one tile after the other.
        places: K x 5 int64: first texel, rows, columns, first tile value, side of the tile.
        numbers: K x 6 float32: size_mm (2), detail_mm, detail_height_mm, detail_albedo, specular.
    """

    texels: FloatArray
    tiles: FloatArray
    places: npt.NDArray[np.int64]
    numbers: FloatArray


def pack(tissues: tuple[Tissue, ...]) -> Atlas:
    """Lay the textures of tissues out for shading.

    Example:
        >>> import numpy as np
        >>> from endolux.phantom.tissue import sample_tissue
        >>> pack((sample_tissue(np.random.default_rng(0), shape=(64, 32), texel_mm=(1.0, 1.0)),)).texels.shape
        (2048, 8)
    """
    sizes = [tissue.height_mm.size for tissue in tissues]
    texels = np.empty((sum(sizes), _CHANNELS), np.float32)
    tiles = np.concatenate([tissue.detail.reshape(-1) for tissue in tissues]).astype(np.float32)
    places = np.zeros((len(tissues), 5), np.int64)
    numbers = np.zeros((len(tissues), 6), np.float32)
    at, tile_at = 0, 0
    for k, tissue in enumerate(tissues):
        rows, columns = tissue.height_mm.shape
        places[k] = at, rows, columns, tile_at, tissue.detail.shape[0]
        _pack_one(
            texels[at : at + sizes[k]],
            np.ascontiguousarray(tissue.albedo, np.float32).reshape(-1, 3),
            np.ascontiguousarray(tissue.roughness, np.float32).reshape(-1),
            np.ascontiguousarray(tissue.height_mm, np.float32).reshape(-1),
        )
        numbers[k] = (
            *tissue.size_mm,
            tissue.detail_mm,
            tissue.detail_height_mm,
            tissue.detail_albedo,
            tissue.specular,
        )
        at += sizes[k]
        tile_at += tissue.detail.size
    return Atlas(texels, tiles, places, numbers)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Skin:
    """The vertex attributes of a mesh side by side, so that a vertex costs one access to memory.

    Attributes:
        values: V x 16 float32: normal (3), texture (2), planar (2), blend, detail (2), tint (3), unused (3).
        codes: V x 2 uint8: label, tissue.
    """

    values: FloatArray
    codes: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, mesh: Mesh) -> Skin:
        """The attributes of ``mesh``."""
        values = np.concatenate(
            (
                mesh.normals,
                mesh.texture,
                mesh.planar,
                mesh.blend[:, None],
                mesh.detail,
                mesh.tint,
                np.zeros((len(mesh.vertices), 3), np.float32),
            ),
            axis=1,
            dtype=np.float32,
        )
        return cls(values, np.stack([mesh.label, mesh.tissue], axis=1).astype(np.uint8))

    def turned(self, normals: FloatArray) -> Skin:
        """The same skin with other normals, V x 3."""
        values = self.values.copy()
        values[:, :3] = normals
        return Skin(values, self.codes)


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
        seen.local,
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


def illuminate(
    points: Points,
    *,
    ray_u: FloatArray,
    ray_v: FloatArray,
    lights: FloatArray,
    free: list[FloatArray | None],
    falloff: float,
    wrap: float,
) -> tuple[FloatArray, FloatArray]:
    """Light that arrives at N points and mirror reflection of the wet layer towards the camera.

    Args:
        points: the points.
        ray_u: N slopes x/z of the rays.
        ray_v: N slopes y/z of the rays.
        lights: L x 10: position (3), axis (3), power, exponent of the beam, cosines where its cone ends and starts.
        free: for each light the N shares that arrive, None for all of it.
        falloff: exponent of distance.
        wrap: softening of the cosine law.

    Returns:
        irradiance (N) and mirror reflection (N).
    """
    count = ray_u.size
    irradiance, wet = np.zeros(count, np.float32), np.zeros(count, np.float32)
    everywhere = np.ones(1, np.float32)
    for light, plane in zip(lights, free, strict=True):
        _add_light(
            irradiance,
            wet,
            points.state,
            ray_u,
            ray_v,
            light,
            everywhere if plane is None else plane,
            plane is not None,
            np.float32(falloff),
            np.float32(wrap),
        )
    return irradiance, wet


@compiled
def _pack_one(texels: FloatArray, albedo: FloatArray, roughness: FloatArray, height: FloatArray) -> None:
    for k in range(height.size):
        texels[k, 0], texels[k, 1], texels[k, 2] = albedo[k, 0], albedo[k, 1], albedo[k, 2]
        texels[k, 3], texels[k, 4] = roughness[k], height[k]
        texels[k, 5], texels[k, 6], texels[k, 7] = _F0, _F0, _F0


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
def _add_light(
    irradiance: FloatArray,
    wet: FloatArray,
    state: FloatArray,
    ray_u: FloatArray,
    ray_v: FloatArray,
    light: FloatArray,
    free: FloatArray,
    shadowed: bool,
    falloff: float,
    wrap: float,
) -> None:
    """Add one light; without branches in the loop, so that it vectorises."""
    ax, ay, az, px, py, pz = light[0], light[1], light[2], light[3], light[4], light[5]
    power, beam, outer, inner = light[6], light[7], light[8], light[9]
    span = _F1 / max(inner - outer, np.float32(1e-6))
    exponent = -_HALF * falloff
    soft = _F1 / (_F1 + wrap)
    for k in range(ray_u.size):
        bx, by, bz, alpha2, specular, z = state[0, k], state[1, k], state[2, k], state[3, k], state[4, k], state[5, k]
        x, y = ray_u[k] * z, ray_v[k] * z
        scale = -_F1 / math.sqrt(x * x + y * y + z * z)
        ex, ey, ez = x * scale, y * scale, z * scale
        lx, ly, lz = ax - x, ay - y, az - z
        reach2 = max(lx * lx + ly * ly + lz * lz, np.float32(1e-6))
        scale = _F1 / math.sqrt(reach2)
        lx, ly, lz = lx * scale, ly * scale, lz * scale
        aim = max(-(px * lx + py * ly + pz * lz), _F0)
        arriving = power * (free[k] if shadowed else _F1)
        if beam != _F0:
            arriving *= exp2(beam * log2(max(aim, np.float32(1e-9))))
        edge = min(max((aim - outer) * span, _F0), _F1)
        arriving *= edge * edge * (np.float32(3.0) - np.float32(2.0) * edge)
        arriving = arriving if aim > _F0 and specular >= _F0 else _F0
        if falloff == np.float32(2.0):
            arriving /= reach2
        else:
            arriving *= exp2(exponent * log2(reach2))
        nl = bx * lx + by * ly + bz * lz
        irradiance[k] += arriving * max((nl + wrap) * soft, _F0)
        nl = max(nl, _F0)
        ne = max(bx * ex + by * ey + bz * ez, np.float32(1e-3))
        hx, hy, hz = lx + ex, ly + ey, lz + ez
        scale = _F1 / math.sqrt(max(hx * hx + hy * hy + hz * hz, _TINY))
        nh = (bx * hx + by * hy + bz * hz) * scale
        eh = max((ex * hx + ey * hy + ez * hz) * scale, _F0)
        spread = nh * nh * (alpha2 - _F1) + _F1
        rest = max(_F1 - eh, _F0)
        rest2 = rest * rest
        fresnel = specular + (_F1 - specular) * rest2 * rest2 * rest
        fresnel = fresnel if specular > _F0 else _F0
        # GGX with Smith shadowing in its height-correlated form, 1 / (4 n.l n.v) included. Diffuse radiance is
        # albedo/pi times irradiance; pi is left out of both.
        under = nl * math.sqrt(ne * ne * (_F1 - alpha2) + alpha2) + ne * math.sqrt(nl * nl * (_F1 - alpha2) + alpha2)
        wet[k] += arriving * nl * fresnel * _HALF * alpha2 / (spread * spread * under + _TINY)


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


@compiled_fast
def gather(
    irradiance: FloatArray,
    scattered: FloatArray,
    albedo: FloatArray,
    wet: FloatArray,
    around: FloatArray,
    bounce: float,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Direct light, light from other walls and mirror reflection together.

    Args:
        irradiance: N.
        scattered: N irradiance spread out under the surface, of which red takes most; or of size 1 for none.
        albedo: N x 3.
        wet: N.
        around: N x 3 light that arrives from the surroundings.
        bounce: its strength.

    Returns:
        N x 3 radiance, and where the mirror reflection outshines the tissue (N).
    """
    count = wet.size
    radiance = np.empty((count, 3), np.float32)
    shiny = np.empty(count, np.bool_)
    for k in range(count):
        total = _F0
        spread = scattered[k] - irradiance[k] if scattered.size > 1 else _F0
        for x in range(3):
            share = _F1 if x == 0 else np.float32(0.4)
            own = albedo[k, x] * (irradiance[k] + share * spread + bounce * around[k, x])
            total += own
            radiance[k, x] = own + wet[k]
        shiny[k] = np.float32(3.0) * wet[k] > total and wet[k] > _F0
    return radiance, shiny
