"""Orthonormal bases of a gradient's leading directions, exact or sketched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, cast, get_args

import torch
from torch import Tensor

from endolux.errors import UsageError

Kind = Literal["svd", "srft", "srft-released", "gaussian", "dct", "random-columns", "random-orthonormal", "none"]
Side = Literal["auto", "reverse", "left", "right"]

KINDS: Final[tuple[str, ...]] = get_args(Kind)
SIDES: Final[tuple[str, ...]] = get_args(Side)


def resolve_side(shape: tuple[int, int], side: str) -> Literal["left", "right"]:
    """Which side of a matrix is projected.

    Args:
        shape: (rows, columns).
        side: ``auto`` projects the right side of tall and square matrices and the left side of wide ones, so that the
            basis is short; ``reverse`` the other way round, so that the moments are small.

    Raises:
        UsageError: an unknown side (``adapt.side``).

    Example:
        >>> resolve_side((1728, 576), "auto"), resolve_side((1728, 576), "reverse")
        ('right', 'left')
    """
    if side not in SIDES:
        raise UsageError(
            f"Unknown side '{side}'",
            why="A gradient is projected on one side of the matrix.",
            fix=f"Choose one of: {', '.join(SIDES)}.",
            error_id="adapt.side",
        )
    if side == "auto":
        return "right" if shape[0] >= shape[1] else "left"
    if side == "reverse":
        return "left" if shape[0] >= shape[1] else "right"
    return cast(Literal["left", "right"], side)


def check_kind(kind: str) -> None:
    """Refuse a projection that does not exist.

    Raises:
        UsageError: an unknown kind (``adapt.projection``).
    """
    if kind not in KINDS:
        raise UsageError(
            f"Unknown projection '{kind}'",
            why="It is none of the bases that can be computed.",
            fix=f"Choose one of: {', '.join(KINDS)}.",
            error_id="adapt.projection",
        )


def largest_rank(shape: tuple[int, int], kind: str, side: str = "auto") -> int:
    """The largest rank for which a basis of this kind exists.

    The half spectrum of ``srft`` leaves out the frequencies that are real, so it can give one or two directions
    fewer than the length of the side that it mixes.

    Example:
        >>> largest_rank((100, 40), "svd"), largest_rank((100, 40), "srft", "left")
        (40, 38)
    """
    rows, columns = shape
    smallest = min(rows, columns)
    if kind != "srft":
        return smallest
    mixed = rows if resolve_side(shape, side) == "right" else columns
    return min(smallest, 2 * ((mixed - 1) // 2))


def projection(
    gradient: Tensor,
    rank: int,
    kind: str = "srft",
    generator: torch.Generator | None = None,
    *,
    side: str = "auto",
    oversampling: int = 0,
    power: int = 1,
) -> Tensor:
    """An orthonormal basis P of the directions in which a gradient lives.

    With the right side the projected gradient is ``gradient @ P`` (rows x rank), with the left one ``P.T @ gradient``
    (rank x columns). ``svd`` is the best basis; ``srft``, ``srft-released``, ``gaussian``, ``dct`` and
    ``random-columns`` sketch the gradient and orthonormalise the sketch; ``random-orthonormal`` ignores the gradient.

    Args:
        gradient: a matrix, rows x columns, of any floating dtype; half precision is decomposed in float32.
        rank: number of columns of P.
        kind: one of ``KINDS`` except ``none``.
        generator: the random source; without one, a fresh generator of seed 0. Never the global one.
        side: ``right``, ``left``, ``auto`` or ``reverse`` (see ``resolve_side``).
        oversampling: further sketch vectors, after which the ``rank`` best directions are kept (``srft``,
            ``gaussian``, ``dct``, ``random-columns``); lowered where the matrix has not so many.
        power: power iterations, each one multiplication with the gradient and its transpose (the same kinds). One
            keeps at least 0.95 of what ``svd`` keeps also where the spectrum decays slowly; 0 is the published sketch.

    Returns:
        P in float32 (float64 for a float64 gradient): columns x rank on the right side, rows x rank on the left.

    Raises:
        UsageError: not a real matrix (``adapt.not-a-matrix``), a rank that is not positive or above the matrix size
            (``adapt.rank``), an unknown kind or side, or a kind without a basis (``adapt.projection``).

    Source: arXiv 2511.03163, section 3.2; Halko, Martinsson and Tropp (2011) for the range finder.

    Example:
        >>> import torch
        >>> gradient = torch.outer(torch.arange(1.0, 9.0), torch.tensor([3.0, 4.0, 0.0, 0.0]))
        >>> basis = projection(gradient, 2, "srft", torch.Generator().manual_seed(1))
        >>> tuple(basis.shape), bool(torch.allclose(gradient @ basis @ basis.T, gradient, atol=1e-4))
        ((4, 2), True)
    """
    check_kind(kind)
    if kind == "none":
        raise UsageError(
            "The projection 'none' has no basis",
            why="It stands for the whole gradient.",
            fix=f"Choose one of: {', '.join(KINDS[:-1])}.",
            error_id="adapt.projection",
        )
    if gradient.ndim != 2 or not gradient.is_floating_point():
        raise UsageError(
            f"A gradient of shape {tuple(gradient.shape)} and type {gradient.dtype} cannot be projected",
            why="A basis belongs to a matrix of real numbers.",
            fix="Flatten it to two dimensions, output channels first.",
            error_id="adapt.not-a-matrix",
        )
    shape = (gradient.shape[0], gradient.shape[1])
    check_rank(rank, shape, kind, side)
    if oversampling < 0 or power < 0:
        raise UsageError(
            f"Oversampling {oversampling} with {power} power iterations is not possible",
            why="Both are counts.",
            fix="Give zero or more.",
            error_id="adapt.sketch",
        )
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    wide = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32))
    A = wide.T if resolve_side(shape, side) == "right" else wide
    if kind == "svd":
        return cast(Tensor, torch.linalg.svd(A, full_matrices=False)[0])[:, :rank].contiguous()
    if kind == "srft-released":
        return _released(A, rank, generator)
    if kind == "random-orthonormal":
        return _orthonormal(_normal((A.shape[0], rank), A, generator))
    most = min(A.shape[0], largest_rank(shape, kind, side))
    count = min(rank + oversampling, most)
    basis = _orthonormal(_SKETCHES[kind](A, count, generator))
    for _ in range(power):
        small = A.T @ basis
        # Gradients of 1e-20 would vanish in the square, those of 1e20 overflow.
        small /= small.abs().amax().clamp_min(torch.finfo(A.dtype).tiny)
        basis = _orthonormal(A @ small)
    return basis if count == rank else _leading(A, basis, rank)


def check_rank(rank: int, shape: tuple[int, int], kind: str, side: str) -> None:
    """Refuse a rank for which the matrix has no basis.

    Raises:
        UsageError: ``adapt.rank``.
    """
    largest = largest_rank(shape, kind, side)
    if not 1 <= rank <= largest:
        raise UsageError(
            f"Rank {rank} does not fit a matrix of {shape[0]} x {shape[1]}",
            why=f"A basis of kind '{kind}' has at least one and at most {largest} columns there.",
            fix="Choose a rank within these bounds, or leave this matrix out.",
            error_id="adapt.rank",
        )


def captured_energy(gradient: Tensor, basis: Tensor, side: str = "auto") -> float:
    """Share of a gradient's squared Frobenius norm that lies in a basis, 0 to 1 (1 for a gradient of zeros).

    Example:
        >>> captured_energy(torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([[1.0], [0.0]]))
        0.8
    """
    A = gradient.T if resolve_side((gradient.shape[0], gradient.shape[1]), side) == "right" else gradient
    A = A.double()
    total = float(A.square().sum())
    return 1.0 if total == 0 else float((basis.double().T @ A).square().sum()) / total


def _orthonormal(matrix: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.qr(matrix)[0])


def _signs(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, (count,), generator=generator, device=generator.device)
    return (drawn * 2 - 1).to(device=like.device, dtype=like.dtype)


def _choice(count: int, population: int, like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randperm(population, generator=generator, device=generator.device)
    return drawn[:count].to(like.device)


def _normal(shape: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def _srft(A: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Real half spectrum: each sampled frequency gives its real and its imaginary part."""
    N = A.shape[1]
    admissible = (N - 1) // 2
    frequencies = (count + 1) // 2
    signs = _signs(N, A, generator)
    index = 1 + _choice(frequencies, admissible, A, generator)
    if A.stride(0) == 1:
        # The right side of a gradient: transposing its spectrum would take three times as long as the transform.
        spectrum = torch.fft.rfft(A.T * signs[:, None], dim=0, norm="ortho").index_select(0, index).T
    else:
        spectrum = torch.fft.rfft(A * signs, dim=1, norm="ortho").index_select(1, index)
    scale = math.sqrt(2 * admissible / frequencies)
    return torch.cat([spectrum.real, spectrum.imag], dim=1)[:, :count] * scale


def _gaussian(A: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return A @ (_normal((A.shape[1], count), A, generator) / math.sqrt(count))


def _dct(A: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sampled columns of the orthonormal cosine transform, as a matrix product."""
    N = A.shape[1]
    signs = _signs(N, A, generator)
    index = _choice(count, N, A, generator).to(A.dtype)
    position = torch.arange(N, device=A.device, dtype=A.dtype) + 0.5
    cosines = torch.cos(position[:, None] * (index * (math.pi / N)))
    cosines *= torch.where(index == 0, math.sqrt(1 / N), math.sqrt(2 / N)) * math.sqrt(N / count)
    return A @ (cosines * signs[:, None])


def _random_columns(A: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sampling without a transform: it misses whatever is concentrated in few columns."""
    N = A.shape[1]
    return A.index_select(1, _choice(count, N, A, generator)) * math.sqrt(N / count)


def _released(A: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Full complex spectrum, complex QR, real QR of the interleaved parts, first ``rank`` columns."""
    N = A.shape[1]
    signs = _signs(N, A, generator)
    spectrum = torch.fft.fft(A * signs, dim=1)
    sample = spectrum.index_select(1, _choice(rank, N, A, generator))
    complex_basis = _orthonormal(sample)
    interleaved = torch.stack([complex_basis.real, complex_basis.imag], dim=2).reshape(A.shape[0], -1)
    return _orthonormal(interleaved)[:, :rank].contiguous()


def _leading(A: Tensor, basis: Tensor, rank: int) -> Tensor:
    """The best ``rank`` directions inside a wider basis."""
    B = basis.T @ A
    # Gradients of 1e-20 would vanish in the square.
    B = B / B.abs().amax().clamp_min(torch.finfo(B.dtype).tiny)
    vectors: Tensor = torch.linalg.eigh(B @ B.T)[1]
    return basis @ vectors.flip(1)[:, :rank]


_SKETCHES: Final[dict[str, Callable[[Tensor, int, torch.Generator], Tensor]]] = {
    "srft": _srft,
    "gaussian": _gaussian,
    "dct": _dct,
    "random-columns": _random_columns,
}
