import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.adapt import KINDS, captured_energy, largest_rank, projection
from endolux.adapt.projections import _SKETCHES
from endolux.errors import UsageError

BASES = [kind for kind in KINDS if kind != "none"]
SKETCHES = ["srft", "srft-released", "gaussian", "dct"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_spectrum(values: torch.Tensor, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    count, values = len(values), values.double()
    left = torch.linalg.qr(torch.randn(rows, count, generator=seeded(seed), dtype=values.dtype))[0]
    right = torch.linalg.qr(torch.randn(columns, count, generator=seeded(seed + 1), dtype=values.dtype))[0]
    return (left * values) @ right.T


def share_of_best(gradient: torch.Tensor, basis: torch.Tensor) -> float:
    best = projection(gradient, basis.shape[1], "svd")
    return captured_energy(gradient, basis) / captured_energy(gradient, best)


@pytest.mark.parametrize("kind", BASES)
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(5, 40), columns=st.integers(5, 40), rank=st.integers(1, 4), seed=st.integers(0, 99), data=st.data()
)
def test_columns_are_orthonormal_on_every_side(kind, rows, columns, rank, seed, data):
    side = data.draw(st.sampled_from(["auto", "reverse", "left", "right"]))
    gradient = torch.randn(rows, columns, generator=seeded(seed)) * 10.0 ** data.draw(st.integers(-8, 8))
    basis = projection(gradient, rank, kind, seeded(seed), side=side)
    tall = rows >= columns
    right = {"auto": tall, "reverse": not tall, "left": False, "right": True}[side]
    assert basis.shape == ((columns if right else rows), rank)
    assert (basis.T @ basis - torch.eye(rank)).abs().max() < 1e-5


@pytest.mark.parametrize("options", [{}, {"oversampling": 4}, {"power": 0}, {"power": 0, "oversampling": 4}])
@pytest.mark.parametrize("kind", SKETCHES)
def test_a_gradient_of_low_rank_is_kept_whole(kind, options):
    gradient = with_spectrum(torch.tensor([5.0, 3.0, 1.0]), 60, 30)
    # The released sample may draw a frequency twice; more than twice the rank of the gradient is safe.
    basis = projection(gradient, 8, kind, seeded(3), **options)
    assert torch.dist(gradient @ basis @ basis.T, gradient) < 1e-9
    assert (basis.T @ basis - torch.eye(8, dtype=basis.dtype)).abs().max() < 1e-10


def test_svd_is_the_best_basis():
    gradient = with_spectrum(torch.tensor([4.0, 2.0, 1.0]), 20, 12)
    assert captured_energy(gradient, projection(gradient, 2, "svd")) == pytest.approx(20 / 21, abs=1e-6)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("gradient", [torch.zeros(12, 8), torch.ones(12, 8), torch.eye(12, 8) * 1e-30])
def test_degenerate_gradients_still_give_a_basis(kind, gradient):
    basis = projection(gradient, 4, kind, seeded(0))
    assert (basis.T @ basis - torch.eye(4)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("profile", "oversampling", "least"),
    [("inverse", 0, 0.97), ("exponential", 0, 0.92), ("slow", 0, 0.68), ("slow", 32, 0.77), ("exponential", 32, 0.97)],
)
def test_energy_of_decaying_spectra(profile, oversampling, least):
    i = torch.arange(1.0, 577.0)
    values = {"inverse": 1 / i, "exponential": torch.exp(-i / 30), "slow": i**-0.5}[profile]
    gradient = with_spectrum(values, 1728, 576).float()
    best = float(values[:64].square().sum() / values.square().sum())
    basis = projection(gradient, 64, "srft", seeded(0), oversampling=oversampling, power=0)
    assert captured_energy(gradient, basis) / best >= least
    basis = projection(gradient, 64, "srft", seeded(0))
    assert captured_energy(gradient, basis) / best >= 0.95
    assert (basis.T @ basis - torch.eye(64)).abs().max() < 1e-5
    assert captured_energy(gradient, projection(gradient, 64, "random-orthonormal", seeded(0))) < 0.2


def test_pure_tones_need_the_signs(monkeypatch):
    rows = torch.arange(1728.0)
    tones = torch.randperm(863, generator=seeded(5))[:8] + 1.0
    waves = torch.cos(2 * math.pi * rows[:, None] * tones / 1728 + tones)
    gradient = waves @ torch.randn(8, 576, generator=seeded(6)) + 0.01 * torch.randn(1728, 576, generator=seeded(7))
    assert share_of_best(gradient, projection(gradient, 32, "srft", seeded(1), power=0)) >= 0.99
    monkeypatch.setattr("endolux.adapt.projections._signs", lambda count, like, _: like.new_ones(count))
    assert share_of_best(gradient, projection(gradient, 32, "srft", seeded(1), power=0)) <= 0.5


def test_forty_active_rows_need_the_transform():
    gradient = 1e-3 * torch.randn(1728, 576, generator=seeded(8))
    gradient[torch.randperm(1728, generator=seeded(9))[:40]] = torch.randn(40, 576, generator=seeded(10))
    for kind in SKETCHES:
        assert share_of_best(gradient, projection(gradient, 64, kind, seeded(2), power=0)) >= 0.99, kind
    assert share_of_best(gradient, projection(gradient, 64, "random-columns", seeded(2), power=0)) <= 0.4


def test_released_form_follows_its_published_steps():
    gradient = torch.randn(10, 6, generator=seeded(0), dtype=torch.float64)
    generator = seeded(4)
    signs = torch.randint(0, 2, (10,), generator=generator) * 2.0 - 1
    index = torch.randperm(10, generator=generator)[:4]
    n = torch.arange(10, dtype=torch.float64)
    fourier = torch.exp(-2j * math.pi * n[:, None] * n / 10)
    sample = (gradient.T * signs).to(torch.complex128) @ fourier[:, index]
    # Only the span of the first half of the frequencies survives the truncation.
    kept = torch.cat([sample[:, :2].real, sample[:, :2].imag], dim=1)
    expected = torch.linalg.qr(kept)[0]
    basis = projection(gradient, 4, "srft-released", seeded(4))
    assert torch.dist(basis @ basis.T, expected @ expected.T) < 1e-9


def test_norm_of_the_sketch_is_the_norm_of_the_row():
    gradient = torch.randn(4, 512, generator=seeded(0))
    for kind in ("srft", "gaussian", "dct", "random-columns"):
        energies = torch.stack([_SKETCHES[kind](gradient, 64, seeded(s)).square().sum(1) for s in range(300)]).mean(0)
        ratio = energies / gradient.square().sum(1)
        assert torch.allclose(ratio, torch.ones(4), atol=0.06), (kind, ratio)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_scale_of_the_gradient_does_not_matter(scale):
    gradient = with_spectrum(1 / torch.arange(1.0, 31.0), 60, 30).float()
    for options in ({}, {"power": 2}, {"power": 0, "oversampling": 4}):
        basis = projection(gradient * scale, 6, "srft", seeded(0), **options)
        same = projection(gradient, 6, "srft", seeded(0), **options)
        assert torch.dist(basis @ basis.T, same @ same.T) < 1e-3, options


def test_both_layouts_give_the_same_sketch():
    A = torch.randn(12, 31, generator=seeded(0), dtype=torch.float64)
    transposed = A.T.contiguous().T
    assert torch.dist(_SKETCHES["srft"](A, 8, seeded(1)), _SKETCHES["srft"](transposed, 8, seeded(1))) < 1e-12


def test_only_the_generator_decides():
    gradient = torch.randn(30, 20, generator=seeded(0))
    before = torch.get_rng_state()
    for kind in BASES:
        one = projection(gradient, 5, kind, seeded(1))
        assert torch.equal(one, projection(gradient, 5, kind, seeded(1)))
        if kind != "svd":
            assert not torch.equal(one, projection(gradient, 5, kind, seeded(2)))
    assert torch.equal(before, torch.get_rng_state())


def test_half_precision_is_decomposed_in_single():
    gradient = torch.randn(30, 20, generator=seeded(0))
    assert projection(gradient.bfloat16(), 5).dtype == torch.float32
    assert projection(gradient.double(), 5).dtype == torch.float64


def test_half_spectrum_bounds_the_rank():
    gradient = torch.randn(40, 10, generator=seeded(0))
    assert largest_rank((40, 10), "srft", "left") == 8
    assert projection(gradient, 8, "srft", side="left", oversampling=9).shape == (40, 8)
    with pytest.raises(UsageError, match="at most 8"):
        projection(gradient, 9, "srft", side="left")


@pytest.mark.parametrize(
    ("arguments", "error_id"),
    [
        ({"rank": 7}, "adapt.rank"),
        ({"rank": 0}, "adapt.rank"),
        ({"rank": 2, "kind": "pca"}, "adapt.projection"),
        ({"rank": 2, "kind": "none"}, "adapt.projection"),
        ({"rank": 2, "side": "top"}, "adapt.side"),
        ({"rank": 2, "power": -1}, "adapt.sketch"),
    ],
)
def test_wrong_arguments(arguments, error_id):
    with pytest.raises(UsageError) as caught:
        projection(torch.ones(8, 6), **arguments)
    assert caught.value.error_id == error_id


@pytest.mark.parametrize("gradient", [torch.ones(8), torch.ones(8, 6, dtype=torch.int64), torch.ones(2, 3, 4)])
def test_only_matrices_have_a_basis(gradient):
    with pytest.raises(UsageError) as caught:
        projection(gradient, 1)
    assert caught.value.error_id == "adapt.not-a-matrix"


@pytest.mark.parametrize("columns", [10, 11])
def test_half_spectrum_leaves_out_the_real_frequencies(columns):
    # The mean and the alternating frequency have no imaginary part: they would give columns of zeros.
    gradient = torch.randn(30, columns, generator=seeded(0), dtype=torch.float64)
    sketch = _SKETCHES["srft"](gradient, 2 * ((columns - 1) // 2), seeded(1))
    assert torch.linalg.svdvals(sketch).min() > 0.1
