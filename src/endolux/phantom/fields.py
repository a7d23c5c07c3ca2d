"""Random fields: smooth, periodic noise from which shapes and textures are made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], *, scale: tuple[float, float]) -> Field:
    """A periodic Gaussian random field of zero mean and unit deviation.

    Args:
        rng: source of randomness.
        shape: rows, columns.
        scale: correlation length in rows and columns, in cells.

    Returns:
        rows x columns float32.

    Example:
        >>> import numpy as np
        >>> smooth_field(np.random.default_rng(0), (8, 16), scale=(2, 4)).shape
        (8, 16)
    """
    white = np.fft.rfft2(rng.standard_normal(shape, np.float32))
    fy = np.fft.fftfreq(shape[0])[:, None] * scale[0]
    fx = np.fft.rfftfreq(shape[1])[None, :] * scale[1]
    kernel = np.exp(-2.0 * np.pi * (fy**2 + fx**2)).astype(np.float32)
    kernel[0, 0] = 0.0
    field = np.fft.irfft2(white * kernel, s=shape)
    deviation = float(field.std())
    return (field / deviation if deviation > 0 else field).astype(np.float32)


def fractal_field(
    rng: np.random.Generator, shape: tuple[int, int], *, scale: tuple[float, float], octaves: int, gain: float = 0.5
) -> Field:
    """Sum of smooth fields, each octave at half the length and ``gain`` times the amplitude; unit deviation.

    Example:
        >>> import numpy as np
        >>> fractal_field(np.random.default_rng(0), (8, 16), scale=(4, 4), octaves=2).dtype
        dtype('float32')
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        length = (scale[0] / 2**octave, scale[1] / 2**octave)
        total += np.float32(gain**octave) * smooth_field(rng, shape, scale=length)
    deviation = float(total.std())
    return total / np.float32(deviation) if deviation > 0 else total
