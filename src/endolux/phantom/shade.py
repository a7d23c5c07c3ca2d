"""Surface points to light: diffuse and wet reflection of near sources, compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from endolux.errors import missing_extra

try:
    from numba import njit
except ImportError:

    def njit(**_options: bool) -> Callable[[object], Callable[..., object]]:
        """Stand-in that lets the module be imported and says what is missing when something is shaded."""

        def decorate(_function: object) -> Callable[..., object]:
            def refuse(*_arguments: object) -> object:
                raise missing_extra("numba", "phantom")

            return refuse

        return decorate


FloatArray = npt.NDArray[np.float32]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _bilinear(texture: FloatArray, row: float, column: float) -> tuple[float, float, float]:
    """Value and its derivatives by row and column, periodic."""
    rows, columns = texture.shape
    r0, c0 = np.floor(row), np.floor(column)
    fr, fc = row - r0, column - c0
    i0, j0 = int(r0) % rows, int(c0) % columns
    i1, j1 = (i0 + 1) % rows, (j0 + 1) % columns
    a, b, c, d = texture[i0, j0], texture[i0, j1], texture[i1, j0], texture[i1, j1]
    value = (a * (1 - fc) + b * fc) * (1 - fr) + (c * (1 - fc) + d * fc) * fr
    return value, (c - a) * (1 - fc) + (d - b) * fc, (b - a) * (1 - fr) + (d - c) * fr


@njit(cache=True)  # type: ignore[untyped-decorator]
def shade(  # noqa: D417 - arguments are documented in groups
    face: npt.NDArray[np.int32],
    bary_u: FloatArray,
    bary_v: FloatArray,
    points: FloatArray,
    eye: FloatArray,
    axis: FloatArray,
    vertices: FloatArray,
    faces: npt.NDArray[np.int32],
    normals: FloatArray,
    texture: FloatArray,
    planar: FloatArray,
    blend: FloatArray,
    detail_at: FloatArray,
    tint: FloatArray,
    albedo_map: FloatArray,
    height_map: FloatArray,
    roughness_map: FloatArray,
    detail_map: FloatArray,
    mm_per_unit: FloatArray,
    detail_mm: float,
    detail_height_mm: float,
    detail_albedo: float,
    specular: float,
    light_at: FloatArray,
    light_power: FloatArray,
    light_beam: FloatArray,
    light_free: FloatArray,
    falloff: float,
    wrap: float,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Shade N points.

    Args:
        face, bary_u, bary_v: N hits; face -1 is left black.
        points: N x 3 world positions in mm.
        eye: camera centre, 3.
        axis: optical axis, 3.
        vertices, faces, normals, texture, planar, blend, detail_at, tint: the mesh.
        albedo_map, height_map, roughness_map, detail_map: textures, rows along the lumen.
        mm_per_unit: lengths that the two planar texture axes span, 2.
        detail_mm, detail_height_mm, detail_albedo: the repeated fine relief.
        specular: reflectance of the wet layer at normal incidence.
        light_at: L x 3 world positions.
        light_power, light_beam: L.
        light_free: L x N, 1 where the light sees the point.
        falloff: exponent of distance.
        wrap: softening of the cosine law.

    Returns:
        irradiance (N), wet reflection (N), albedo (N x 3), geometric shading normal (N x 3).
    """
    count = face.shape[0]
    irradiance = np.zeros(count, np.float32)
    wet = np.zeros(count, np.float32)
    albedo = np.zeros((count, 3), np.float32)
    smooth = np.zeros((count, 3), np.float32)
    rows, columns = height_map.shape
    tile = detail_map.shape[0]
    n = np.empty(3, np.float32)
    bumped = np.empty(3, np.float32)
    to_eye = np.empty(3, np.float32)
    to_light = np.empty(3, np.float32)
    along = np.empty(3, np.float32)
    around = np.empty(3, np.float32)
    half = np.empty(3, np.float32)
    slope = np.empty(3, np.float32)
    for k in range(count):
        f = face[k]
        if f < 0:
            continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        wb, wc = bary_u[k], bary_v[k]
        wa = np.float32(1.0) - wb - wc
        length = np.float32(0.0)
        for x in range(3):
            n[x] = wa * normals[a, x] + wb * normals[b, x] + wc * normals[c, x]
            length += n[x] * n[x]
        length = np.sqrt(max(length, np.float32(1e-12)))
        distance = np.float32(0.0)
        for x in range(3):
            n[x] /= length
            smooth[k, x] = n[x]
            slope[x] = 0.0
            to_eye[x] = eye[x] - points[k, x]
            distance += to_eye[x] * to_eye[x]
        distance = np.sqrt(distance)
        flat = wa * blend[a] + wb * blend[b] + wc * blend[c]
        rough = np.float32(0.0)
        for layer in range(2):
            share = flat if layer == 1 else np.float32(1.0) - flat
            if share <= 0.001:
                continue
            at = planar if layer == 1 else texture
            row = (wa * at[a, 0] + wb * at[b, 0] + wc * at[c, 0]) * rows
            column = (wa * at[a, 1] + wb * at[b, 1] + wc * at[c, 1]) * columns
            # Directions of the two texture axes on the triangle.
            du1, dv1 = at[b, 0] - at[a, 0], at[b, 1] - at[a, 1]
            du2, dv2 = at[c, 0] - at[a, 0], at[c, 1] - at[a, 1]
            det = du1 * dv2 - du2 * dv1
            lu, lv = np.float32(0.0), np.float32(0.0)
            if abs(det) > 1e-14:
                for x in range(3):
                    e1, e2 = vertices[b, x] - vertices[a, x], vertices[c, x] - vertices[a, x]
                    along[x] = (e1 * dv2 - e2 * dv1) / det
                    around[x] = (e2 * du1 - e1 * du2) / det
                    lu += along[x] * along[x]
                    lv += around[x] * around[x]
            if layer == 1:
                mu, mv = row / rows * mm_per_unit[0], column / columns * mm_per_unit[1]
            else:
                mu = wa * detail_at[a, 0] + wb * detail_at[b, 0] + wc * detail_at[c, 0]
                mv = wa * detail_at[a, 1] + wb * detail_at[b, 1] + wc * detail_at[c, 1]
            _, gu, gv = _bilinear(height_map, row, column)
            fine, hu, hv = _bilinear(detail_map, mu / detail_mm * tile, mv / detail_mm * tile)
            value, _, _ = _bilinear(roughness_map, row, column)
            rough += share * value
            shade_fine = np.exp(detail_albedo * fine)
            for x in range(3):
                value, _, _ = _bilinear(albedo_map[:, :, x], row, column)
                albedo[k, x] += share * value * shade_fine
                if lu > 1e-8 and lv > 1e-8:
                    relief = along[x] * gu * rows / lu + around[x] * gv * columns / lv
                    relief += (
                        detail_height_mm
                        * tile
                        / detail_mm
                        * (along[x] * hu / np.sqrt(lu) + around[x] * hv / np.sqrt(lv))
                    )
                    slope[x] += share * relief
        length = np.float32(0.0)
        for x in range(3):
            tinted = albedo[k, x] * (wa * tint[a, x] + wb * tint[b, x] + wc * tint[c, x])
            albedo[k, x] = min(max(tinted, 0.0), 1.0)
            bumped[x] = n[x] - slope[x]
            length += bumped[x] * bumped[x]
        length = np.sqrt(max(length, np.float32(1e-12)))
        ne = np.float32(0.0)
        for x in range(3):
            bumped[x] /= length
            to_eye[x] /= max(distance, np.float32(1e-6))
            ne += bumped[x] * to_eye[x]
        ne = max(ne, np.float32(1e-3))
        alpha2 = max(rough * rough, np.float32(1e-3)) ** 2
        for m in range(light_at.shape[0]):
            if light_free[m, k] <= 0:
                continue
            reach2 = np.float32(0.0)
            for x in range(3):
                to_light[x] = light_at[m, x] - points[k, x]
                reach2 += to_light[x] * to_light[x]
            reach = np.sqrt(max(reach2, np.float32(1e-6)))
            nl, aim, length = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for x in range(3):
                to_light[x] /= reach
                nl += bumped[x] * to_light[x]
                aim -= axis[x] * to_light[x]
                half[x] = to_light[x] + to_eye[x]
                length += half[x] * half[x]
            arriving = light_free[m, k] * light_power[m] * max(aim, 0.0) ** light_beam[m] / reach**falloff
            lit = (nl + wrap) / (1.0 + wrap)
            if lit > 0:
                irradiance[k] += arriving * lit
            if nl > 0 and specular > 0:
                length = np.sqrt(max(length, np.float32(1e-12)))
                nh, eh = np.float32(0.0), np.float32(0.0)
                for x in range(3):
                    nh += bumped[x] * half[x] / length
                    eh += to_eye[x] * half[x] / length
                spread = nh * nh * (alpha2 - 1.0) + 1.0
                facets = alpha2 / (np.pi * spread * spread)
                fresnel = specular + (1.0 - specular) * (1.0 - max(eh, np.float32(0.0))) ** 5
                # Smith shadowing in its height-correlated form, 1 / (4 n.l n.v) included.
                mask = 0.5 / (
                    nl * np.sqrt(ne * ne * (1 - alpha2) + alpha2) + ne * np.sqrt(nl * nl * (1 - alpha2) + alpha2)
                )
                # Diffuse radiance is albedo/pi times irradiance; pi is left out of both.
                wet[k] += arriving * nl * facets * fresnel * mask * np.pi
    return irradiance, wet, albedo, smooth
