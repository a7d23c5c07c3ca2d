"""Powers and logarithms of float32 without branches, so that loops over pixels vectorise."""

from __future__ import annotations

import numpy as np

from endolux.phantom.compile import compiled_fast

_F0, _F1 = np.float32(0.0), np.float32(1.0)


@compiled_fast
def log2(x: np.float32) -> np.float32:
    """Binary logarithm of a positive float32, to 1e-6, in a form that vectorises."""
    bits = np.float32(x).view(np.int32)
    # The mantissa into [0.71, 1.41).
    shifted = np.int32(bits - np.int32(0x3F3504F3))
    power = np.int32(shifted >> np.int32(23))
    mantissa = np.int32(bits - (power << np.int32(23))).view(np.float32)
    s = (mantissa - _F1) / (mantissa + _F1)
    s2 = s * s
    series = np.float32(0.32059) * s2 + np.float32(0.41219842)
    series = series * s2 + np.float32(0.57707802)
    series = series * s2 + np.float32(0.96179670)
    series = series * s2 + np.float32(2.88539008)
    return np.float32(power) + s * series


@compiled_fast
def exp2(x: np.float32) -> np.float32:
    """Two to the power of a float32 in -120 .. 120, to 1e-6, in a form that vectorises."""
    x = min(max(np.float32(x), np.float32(-120.0)), np.float32(120.0))
    whole = np.floor(x)
    f = x - whole
    series = np.float32(1.8775767e-3) * f + np.float32(8.9893397e-3)
    series = series * f + np.float32(5.5826318e-2)
    series = series * f + np.float32(2.4015361e-1)
    series = series * f + np.float32(6.9315308e-1)
    series = series * f + np.float32(9.9999994e-1)
    result: np.float32 = series * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return result
