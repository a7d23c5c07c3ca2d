"""The spectral term of the trinity: residual energy relative to the teacher's, one octave band at a time.

Dividing by the teacher's band energy is what makes this more than the pixel error again (Parseval); the complex
residual, unlike amplitudes, knows position. The bands are those of a windowed Fourier transform, or of Haar wavelets
where masks are irregular. float32 whatever the autocast (float64 if that is what it gets).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.canonical import batch_mean, check_maps, precise, require_pixels
from endolux.losses.masks import as_weight, inside_only

Form: TypeAlias = Literal["energy", "amplitude"]
Transform: TypeAlias = Literal["fourier", "haar"]

BAND_EDGES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Radial frequencies between the six bands, cycles a pixel."""
BAND_WEIGHTS = (2 / 11, 2 / 11, 2 / 11, 2 / 11, 2 / 11, 1 / 11)
"""1 a band and 1/2 for the highest, which holds the teacher's own upsampling artefacts; their sum is 1."""
ETA = 1e-3
_TAPER = 0.25
_SOFT = 9
# Energy of a teacher's map below which it has no relief to compare with.
_FLAT = 1e-12


def spectral(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    form: Form = "energy",
    transform: Transform = "fourier",
    weights: Sequence[float] = BAND_WEIGHTS,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Weighted sum over octave bands of ``log(1 + rho)``, rho from :func:`band_residuals`; mean over images.

    ``amplitude`` is ``log(1 + sqrt(rho + 1e-4)) - log 1.01``, which reacts linearly to small errors.

    Args:
        student: canonical map, N x 1 x H x W.
        teacher: canonical map, same shape; gets no gradient.
        mask: bool, same shape. Images of which the soft mask leaves nothing are left out.
        form: see above.
        transform: ``fourier``, or ``haar`` for irregular masks and export.
        weights: of the six bands, coarse to fine; :func:`band_schedule` gives those of an epoch.
        precision: of the transform; None is float32 (float64 for float64 maps).

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``, ``loss.mask``; ``loss.precision`` for transforms of half
            precision.

    Source:
        Endolux's own definition. Related: focal frequency loss (Jiang et al., ICCV 2021), FreeKD (CVPR 2024),
        WaveletMonoDepth (Ramamonjisoa et al., CVPR 2021).

    Example:
        >>> teacher = torch.rand(1, 1, 64, 64)
        >>> float(spectral(teacher, teacher)), 0.6 < float(spectral(0 * teacher, teacher)) < 0.7
        (0.0, True)
    """
    if form not in ("energy", "amplitude"):
        raise _setting(f"No form {form!r}", "It is 'energy' or 'amplitude'.", "Use form='energy'.")
    _check_weights(weights)
    check_maps(student, teacher, mask=mask)
    with torch.autocast(student.device.type, enabled=False):
        rho, share, known = _residuals(student, teacher, mask, transform, precision)
        # The zero of the amplitude form is computed alike, or equality would not be exactly 0.
        terms = torch.log1p(rho) if form == "energy" else _amplitude(rho) - _amplitude(torch.zeros_like(rho))
        merged = share @ terms.new_tensor(list(weights))
        return batch_mean(torch.where(known, terms @ merged, 0.0), known.long())


def band_residuals(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    transform: Transform = "fourier",
    precision: torch.dtype | None = None,
) -> Tensor:
    """Relative residual energy of every band: 0 at equality, 1 where the student has nothing, above it for too much.

    ``rho_b = sum_b |R|^2 / (sum_b |T|^2 + 1e-3 (n_b / n) sum |T|^2)``: R and T are the transforms of the residual and
    of the teacher, n_b / n is the band's share of coefficients. ``fourier``: both maps are multiplied by a Tukey(0.25)
    window and by the mask, eroded and blurred with 9 x 9 pixels. ``haar``: orthonormal, over coefficients all of whose
    pixels are valid.

    Args and errors as for :func:`spectral`.

    Returns:
        N x B, coarse to fine; B is 6, less where maps are too small and the coarsest bands were merged (a Fourier band
        is at least two bins wide). NaN for images without a valid pixel, or with a flat teacher.

    Example:
        >>> teacher = torch.rand(1, 1, 256, 256)
        >>> [round(rho, 2) for rho in band_residuals(1.5 * teacher, teacher)[0].tolist()]
        [0.25, 0.25, 0.25, 0.25, 0.25, 0.25]
    """
    check_maps(student, teacher, mask=mask)
    with torch.autocast(student.device.type, enabled=False):
        rho, _, known = _residuals(student, teacher, mask, transform, precision)
        return torch.where(known[:, None], rho, torch.nan)


def band_schedule(epoch: float) -> tuple[float, ...]:
    """Weights of the bands in an epoch: band b from epoch b/2 + 1 on, coarse to fine; all of them from 3.5 on.

    Example:
        >>> [sum(weight > 0 for weight in band_schedule(epoch)) for epoch in (0, 1, 2, 3, 4, 5)]
        [0, 1, 3, 5, 6, 6]
    """
    return tuple(weight if epoch >= band / 2 + 1 else 0.0 for band, weight in enumerate(BAND_WEIGHTS))


def _residuals(
    student: Tensor, teacher: Tensor, mask: Tensor | None, transform: Transform, precision: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals N x B, which of the six bands each holds (B x 6), and the images that have a residual (N)."""
    if transform not in ("fourier", "haar"):
        raise _setting(f"No transform {transform!r}", "It is 'fourier' or 'haar'.", "Use transform='fourier'.")
    _check_precision(precision, student)
    student, teacher = precise(student), precise(teacher.detach())
    if precision is not None:
        student, teacher = student.to(precision), teacher.to(precision)
    inside = torch.ones_like(student, dtype=torch.bool) if mask is None else mask
    teacher = inside_only(teacher, inside)
    residual = inside_only(student, inside) - teacher
    bands = _haar_energies if transform == "haar" else _fourier_energies
    wrong, right, counts, share = bands(residual, teacher, inside)
    total = right.sum(dim=1, keepdim=True)
    fraction = counts / counts.sum(dim=1, keepdim=True).clamp(min=1.0)
    known = total[:, 0] > _FLAT
    floor = right + ETA * fraction * total
    # A band may have no valid coefficient at all: no residual then, and nothing to divide by.
    return wrong / torch.where(known[:, None] & (floor > 0.0), floor, 1.0), share, known


def _fourier_energies(residual: Tensor, teacher: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = residual.shape[2:]
    soft = _soft(inside, residual)
    require_pixels(soft > 0.0, f"The mask, eroded by {_SOFT} x {_SOFT} pixels,")
    taper, bins, share = _plan(height, width, residual.dtype, residual.device)
    window = soft * taper

    def energies(maps: Tensor) -> Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft2(maps * window, norm="ortho"))
        return spectrum.square().sum(dim=-1).flatten(1).to(bins.dtype) @ bins

    with torch.no_grad():
        right = energies(teacher)
    return energies(residual), right, bins.sum(dim=0)[None], share


def _soft(inside: Tensor, like: Tensor) -> Tensor:
    """The mask, eroded and blurred by a square; beyond the border nothing is invalid, and nothing counts."""
    reach = _SOFT // 2
    eroded = inside
    for axis in (-1, -2):
        eroded = _shifted(eroded, axis, reach, fill=True, combine=torch.logical_and)
    sums, counts = as_weight(eroded, torch.ones(())), torch.ones(1, 1, *inside.shape[2:], device=inside.device)
    for axis in (-1, -2):
        sums = _shifted(sums, axis, reach, fill=False, combine=torch.add)
    for axis in (-1, -2):
        place = torch.arange(inside.shape[axis], device=inside.device)
        span = (place + reach).clamp(max=inside.shape[axis] - 1) - (place - reach).clamp(min=0) + 1
        counts = counts * (span if axis == -1 else span[:, None])
    return (sums / counts).to(like.dtype)


def _shifted(maps: Tensor, axis: int, reach: int, *, fill: bool, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """All that lies within ``reach`` pixels along an axis, combined: in four steps for nine, not eight."""
    pad = (reach, reach) if axis == -1 else (0, 0, reach, reach)
    padded = F.pad(maps, pad, value=float(fill))
    size, width, result = maps.shape[axis], 1, padded
    while width < 2 * reach + 1:
        step = min(width, 2 * reach + 1 - width)
        if maps.dtype != torch.bool and step < width:
            # Sums may not count a pixel twice.
            more = padded.narrow(axis, width, result.shape[axis] - step)
            result, width = combine(result.narrow(axis, 0, more.shape[axis]), more), width + 1
            continue
        length = result.shape[axis] - step
        result, width = combine(result.narrow(axis, 0, length), result.narrow(axis, step, length)), width + step
    return result.narrow(axis, 0, size)


@functools.lru_cache(maxsize=8)
def _plan(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Window H x W, weights of the bins in the bands (H * (W // 2 + 1)) x B, and the bands' members B x 6."""
    # Not inference tensors, even if the first to ask is a validation: the backward pass of later calls keeps them.
    with torch.inference_mode(False):
        exact = torch.float64
        taper = _tukey(height)[:, None] * _tukey(width)[None]
        down, across = torch.fft.fftfreq(height, dtype=exact), torch.fft.rfftfreq(width, dtype=exact)
        band = torch.bucketize(
            (down[:, None].square() + across.square()).sqrt(), torch.tensor(BAND_EDGES, dtype=exact), right=True
        )
        # Half of a real picture's spectrum is not computed: its bins stand for two, but for the columns on the axis.
        twice = torch.full((height, len(across)), 2.0, dtype=exact)
        twice[:, 0] = 1.0
        if width % 2 == 0:
            twice[:, -1] = 1.0
        every = F.one_hot(band.flatten(), len(BAND_WEIGHTS)).to(exact) * twice.flatten()[:, None]
        share = _merge(
            [(low, high) for low, high in zip((0.0, *BAND_EDGES), (*BAND_EDGES, 0.5), strict=True)], min(height, width)
        )
        half = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
        return (
            taper.to(device=device, dtype=dtype),
            (every @ share.T).to(device=device, dtype=half),
            share.to(device=device, dtype=half),
        )


def _merge(bands: list[tuple[float, float]], side: int) -> Tensor:
    """Bands joined with the next finer one until each is two bins wide, B x 6 of 0 and 1."""
    rows: list[list[int]] = []
    start = bands[0][0]
    members: list[int] = []
    for index, (_, high) in enumerate(bands):
        members.append(index)
        if (high - start) * side >= 2.0:
            rows.append(members)
            start, members = high, []
    if members:
        rows = [*rows[:-1], [*(rows[-1] if rows else []), *members]]
    share = torch.zeros(len(rows), len(bands), dtype=torch.float64)
    for row, joined in enumerate(rows):
        share[row, joined] = 1.0
    return share


def _tukey(size: int) -> Tensor:
    if size < 3:
        return torch.ones(size, dtype=torch.float64)
    position = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
    edge = torch.minimum(position, 1.0 - position).clamp(max=_TAPER / 2)
    return 0.5 * (1.0 - torch.cos(2.0 * math.pi * edge / _TAPER))


def _haar_energies(residual: Tensor, teacher: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    maps = torch.cat([residual, teacher], dim=1)
    energies: list[Tensor] = []
    counts: list[Tensor] = []
    valid = inside
    while len(energies) < len(BAND_EDGES) and min(maps.shape[2:]) >= 2:
        rows, columns = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
        valid = F.max_pool2d((~valid).to(maps.dtype), 2) == 0.0
        a, b = maps[..., 0:rows:2, 0:columns:2], maps[..., 0:rows:2, 1:columns:2]
        c, d = maps[..., 1:rows:2, 0:columns:2], maps[..., 1:rows:2, 1:columns:2]
        details = ((a - b + c - d).square() + (a + b - c - d).square() + (a - b - c + d).square()) / 4.0
        energies.append(torch.where(valid, details, 0.0).sum(dim=(2, 3)))
        counts.append(3.0 * valid.sum(dim=(1, 2, 3)).to(maps.dtype))
        maps = torch.where(valid, (a + b + c + d) / 2.0, 0.0)
    energies.append(torch.where(valid, maps, 0.0).square().sum(dim=(2, 3)))
    counts.append(valid.sum(dim=(1, 2, 3)).to(maps.dtype))
    require_pixels(torch.stack(counts), "The mask, in whole 2 x 2 pixels,")
    share = torch.zeros(len(counts), len(BAND_WEIGHTS), dtype=maps.dtype, device=maps.device)
    share[0, : len(BAND_WEIGHTS) - len(counts) + 1] = 1.0
    for row in range(1, len(counts)):
        share[row, len(BAND_WEIGHTS) - len(counts) + row] = 1.0
    wrong, right = torch.stack(energies[::-1], dim=2).unbind(dim=1)
    return wrong, right, torch.stack(counts[::-1], dim=1), share


def _amplitude(rho: Tensor) -> Tensor:
    return torch.log1p((rho + 1e-4).sqrt())


def _check_precision(precision: torch.dtype | None, maps: Tensor) -> None:
    if precision in (None, torch.float32, torch.float64):
        return
    height, width = maps.shape[2:]
    powers = height & (height - 1) == 0 and width & (width - 1) == 0
    if precision == torch.float16 and powers and maps.is_cuda:
        return
    raise UsageError(
        f"A Fourier transform of {width}x{height} pixels in {precision}",
        why="Half-precision transforms exist for float16 on CUDA and sides that are powers of two only, and overflow.",
        fix="Leave precision=None: the transform then runs in float32 under any autocast.",
        error_id="loss.precision",
    )


def _check_weights(weights: Sequence[float]) -> None:
    if len(weights) != len(BAND_WEIGHTS) or not all(0.0 <= weight < math.inf for weight in weights):
        raise _setting(
            f"Weights {tuple(weights)} of the bands",
            f"There are {len(BAND_WEIGHTS)} bands, and no weight is negative.",
            "Use BAND_WEIGHTS or band_schedule(epoch).",
        )


def _setting(what: str, why: str, fix: str) -> UsageError:
    return UsageError(what, why=why, fix=fix, error_id="loss.setting")
