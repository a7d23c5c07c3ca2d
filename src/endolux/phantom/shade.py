"""Surface points to light: diffuse and wet reflection of near sources, compiled."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled_fast, unread
from endolux.phantom.points import Points
from endolux.phantom.powers import exp2, log2

FloatArray = npt.NDArray[np.float32]

_F0, _F1, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_TINY = np.float32(1e-12)


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
    everywhere = unread(count)
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
