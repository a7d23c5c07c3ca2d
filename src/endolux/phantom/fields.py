"""Random fields: smooth, periodic noise from which shapes and textures are made."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

# Where a Gaussian spectrum has fallen below a thousandth nothing is left to add.
_REACH = 1.05
_BANK = 1 << 21


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
    return fractal_field(rng, shape, scale=scale, octaves=1)


def fractal_field(
    rng: np.random.Generator, shape: tuple[int, int], *, scale: tuple[float, float], octaves: int, gain: float = 0.5
) -> Field:
    """Sum of smooth fields, each octave at half the length and ``gain`` times the amplitude; unit deviation.

    The sum of independent Gaussian fields is the Gaussian field of the summed power spectra, so one synthesis makes
    all octaves.

    Example:
        >>> import numpy as np
        >>> fractal_field(np.random.default_rng(0), (8, 16), scale=(4, 4), octaves=2).dtype
        dtype('float32')
    """
    rows, columns = shape
    finest = 0.5 ** (octaves - 1)
    top_y = min(rows // 2, int(_REACH * rows / max(scale[0] * finest, 1e-6)) + 1)
    top_x = min(columns // 2, int(_REACH * columns / max(scale[1] * finest, 1e-6)) + 1)
    # Frequencies 0 .. top_y, then -low_y .. -1, in the order of the transform.
    low_y = min(top_y, (rows - 1) // 2)
    ky = np.concatenate([np.arange(top_y + 1), np.arange(-low_y, 0)])
    kx = np.arange(top_x + 1)
    power = np.zeros((ky.size, kx.size), np.float32)
    # All but the first and the middle column stand for two frequencies each.
    twice = np.where((kx == 0) | (2 * kx == columns), 1.0, 2.0)
    for octave in range(octaves):
        length = (scale[0] / 2**octave, scale[1] / 2**octave)
        along = np.exp(-4.0 * np.pi * (ky * length[0] / rows) ** 2)
        across = np.exp(-4.0 * np.pi * (kx * length[1] / columns) ** 2)
        total = along.sum() * (across * twice).sum() - 1.0
        if total > 1e-12:
            power += np.outer(along * (gain ** (2 * octave) / total), across).astype(np.float32)
    power[0, 0] = 0.0
    spectrum = _noise(rng, power.shape) * np.sqrt(power)
    _make_real(spectrum, low_y, 0)
    if 2 * top_x == columns:
        _make_real(spectrum, low_y, top_x)
    padded = np.zeros((rows, kx.size), np.complex64)
    padded[: top_y + 1] = spectrum[: top_y + 1]
    if low_y:
        padded[-low_y:] = spectrum[top_y + 1 :]
    half = np.fft.ifft(padded, axis=0, norm="forward") if rows > 1 else padded
    field = np.asarray(np.fft.irfft(half, n=columns, axis=1, norm="forward"), np.float32)
    deviation = float(field.std())
    return np.asarray(field / np.float32(deviation) if deviation > 0 else field, np.float32)


def _make_real(spectrum: npt.NDArray[np.complex64], low: int, column: int) -> None:
    """Give a column of frequencies that mirrors itself the symmetry of a real field."""
    if low:
        spectrum[-low:, column] = np.conj(spectrum[low:0:-1, column])
    spectrum[0, column] = spectrum[0, column].real


@functools.cache
def noise_bank() -> npt.NDArray[np.float32]:
    """Two million normal numbers, the same in every process; stretches of it stand for fresh ones."""
    return np.random.default_rng(20261121).standard_normal(_BANK, np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.complex64]:
    """Complex normal numbers: a random stretch of a fixed bank, which is ten times faster than drawing them."""
    count = 2 * shape[0] * shape[1]
    bank = noise_bank()
    if count > bank.size // 2:
        return rng.standard_normal(count, np.float32).view(np.complex64).reshape(shape)
    # Even starts keep real and imaginary parts apart; the random phase makes two uses of one stretch differ.
    start = 2 * int(rng.integers((bank.size - count) // 2))
    phase = np.complex64(np.exp(1j * rng.uniform(0.0, 2 * np.pi)))
    return np.asarray(bank[start : start + count].view(np.complex64).reshape(shape) * phase, np.complex64)
