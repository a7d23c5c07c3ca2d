"""Texture leak and band residuals: planted amounts are found, invariances hold."""

import itertools
import math

import numpy as np
import pytest

from endolux.errors import UsageError
from endolux.metrics import EmptyMaskWarning, band_residuals, texture_leak
from endolux.metrics.texture import BAND_EDGES, flat_pixels, luma

SHAPE = (128, 160)


@pytest.fixture(scope="module")
def world():
    """Smooth walls with a nearer disc, and a picture whose texture has nothing to do with them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    truth = 60 + 15 * np.sin(x / 40) + 10 * np.cos(y / 30)
    truth = np.where((x - 50) ** 2 + (y - 60) ** 2 < 400, 0.6 * truth, truth)
    image = rng.integers(60, 200, (*SHAPE, 3)).astype(np.uint8)
    valid = (x - 80) ** 2 + (y - 64) ** 2 < 75**2
    return truth, image, valid


def test_planted_leak_is_found(world):
    truth, image, valid = world
    assert abs(texture_leak(truth, image, truth, valid).slope) < 1e-3
    for amount in (-0.2, 0.02, 0.5):
        copied = truth * np.exp(-amount * luma(image))
        found = texture_leak(copied, image, truth, valid, of="residual")
        assert found.slope == pytest.approx(amount, abs=1e-9)
        assert found.correlation == pytest.approx(math.copysign(1, amount), abs=1e-9)
        assert texture_leak(copied, image, truth, valid).slope == pytest.approx(amount, abs=2e-3)


def test_leak_grows_with_the_texture_copied(world):
    truth, image, valid = world
    slopes = [texture_leak(truth * np.exp(-a * luma(image)), image, truth, valid).slope for a in (0, 0.05, 0.1, 0.2)]
    assert slopes == sorted(slopes)


def test_leak_is_blind_to_scale_and_to_what_the_mask_hides(world):
    truth, image, valid = world
    copied = truth * np.exp(-0.1 * luma(image))
    base = texture_leak(copied, image, truth, valid)
    scaled = texture_leak(7.5 * copied, image, 0.1 * truth, valid)
    assert scaled.slope == pytest.approx(base.slope)
    assert scaled.pixels == base.pixels
    garbage, painted, dirty = copied.copy(), image.copy(), truth.copy()
    garbage[~valid], painted[~valid], dirty[~valid] = np.nan, 255, -5
    hidden = texture_leak(garbage, painted, dirty, valid)
    assert hidden.slope == pytest.approx(base.slope)
    assert hidden.correlation == pytest.approx(base.correlation)


def test_leak_halves_when_the_contrast_doubles(world):
    truth, image, valid = world
    soft = (image // 2).astype(np.uint8)
    strong = (2 * soft).astype(np.uint8)
    copied = truth * np.exp(-0.1 * luma(soft))
    a = texture_leak(copied, soft, truth, valid, of="residual")
    b = texture_leak(copied, strong, truth, valid, of="residual")
    assert a.slope == pytest.approx(2 * b.slope)
    assert a.correlation == pytest.approx(b.correlation)


def test_flat_pixels_keep_away_from_steps_and_slopes(world):
    truth, _, valid = world
    flat = flat_pixels(truth, valid)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    from_step = np.abs(np.hypot(x - 50, y - 60) - 20)
    assert from_step[flat].min() > 4
    assert not flat[~valid].any()
    assert 0.1 < flat.sum() / valid.sum() <= 0.31


def test_leak_without_anything_to_measure(world):
    truth, image, valid = world
    with pytest.warns(EmptyMaskWarning, match="0 flat pixels"):
        found = texture_leak(truth, image, truth, np.zeros(SHAPE, bool))
    assert math.isnan(found.slope)
    assert found.pixels == 0
    with pytest.warns(EmptyMaskWarning, match="no texture"):
        assert math.isnan(texture_leak(truth, np.full((*SHAPE, 3), 9, np.uint8), truth, valid).slope)
    with pytest.warns(EmptyMaskWarning, match="not positive"):
        assert math.isnan(texture_leak(0 * truth, image, truth, valid).slope)
    constant = texture_leak(np.full(SHAPE, 40.0), image, truth, valid)
    assert constant.slope == pytest.approx(0, abs=1e-12)
    assert math.isnan(constant.correlation)


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"image": np.zeros((4, 4, 3), np.uint8)}, "metrics.shape"),
        ({"valid": np.ones(SHAPE, np.uint8)}, "metrics.mask"),
        ({"of": "guess"}, "metrics.name"),
    ],
)
def test_leak_refusals(world, change, error_id):
    truth, image, valid = world
    arguments = {"prediction": truth, "image": image, "truth": truth, "valid": valid, **change}
    with pytest.raises(UsageError) as caught:
        texture_leak(**arguments)
    assert caught.value.error_id == error_id


def band_noise(rng, low, high):
    """Real noise whose spectrum lies between two radial frequencies, of unit variance."""
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(320)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(256, 320))) * ((radius >= low) & (radius < high))
    noise = np.fft.irfft2(spectrum, (256, 320))
    return noise / noise.std()


@pytest.mark.parametrize("band", [1, 3, 5])
def test_a_residual_planted_in_one_band_is_found_there(band):
    # Equal energy in every band of the truth, a quarter of the band's energy as residual.
    rng = np.random.default_rng(band)
    edges = BAND_EDGES
    middle = [(a + 0.1 * (b - a), b - 0.1 * (b - a)) for a, b in itertools.pairwise(edges)]
    z = sum(0.05 * band_noise(rng, *pair) for pair in middle)
    residual = 0.5 * 0.05 * band_noise(rng, *middle[band])
    every = np.ones(z.shape, bool)
    found = band_residuals(np.exp(-(z + residual)), np.exp(-z), every)
    assert len(found.rho) == 6
    assert found.rho[band] == pytest.approx(0.25, abs=0.06)
    assert max(rho for index, rho in enumerate(found.rho) if index != band) < 0.06


def smooth(seed=1):
    rng = np.random.default_rng(seed)
    z = 0.2 * band_noise(rng, 0, 1 / 32) + 0.02 * band_noise(rng, 1 / 32, 0.5)
    return np.exp(4 - z), rng


def test_scale_mode_is_blind_to_scale_and_not_to_shift_and_affine_to_both():
    truth, rng = smooth()
    prediction = truth * np.exp(0.05 * band_noise(rng, 1 / 16, 1 / 4))
    every = truth > 0
    for mode in ("scale", "affine"):
        base = np.array(band_residuals(prediction, truth, every, mode=mode).rho)
        assert np.allclose(band_residuals(3.7 * prediction, truth, every, mode=mode).rho, base, rtol=1e-9)
    shifted = 1 / (3.7 / prediction + 0.02)
    assert np.allclose(
        band_residuals(shifted, truth, every, mode="affine").rho,
        band_residuals(prediction, truth, every, mode="affine").rho,
        rtol=1e-6,
    )
    scale = [band_residuals(p, truth, every).rho[1] for p in (prediction, shifted)]
    assert abs(scale[0] - scale[1]) > 0.01
    assert max(band_residuals(truth, truth, every).rho) == 0.0


def test_rho_is_the_square_of_the_amplitude_and_garbage_outside_changes_nothing():
    truth, rng = smooth()
    z = 0.02 * band_noise(rng, 1 / 16, 1 / 4)
    y, x = np.mgrid[:256, :320]
    valid = (x - 160) ** 2 + (y - 128) ** 2 < 120**2
    once, twice = (band_residuals(truth * np.exp(a * z), truth, valid).rho for a in (1, 2))
    # The median moves a little too: it is no linear function.
    assert np.array(twice[3:5]) == pytest.approx(4 * np.array(once[3:5]), rel=1e-3)
    garbage = np.where(valid, truth * np.exp(z), np.nan)
    assert band_residuals(garbage, np.where(valid, truth, 0), valid).rho == pytest.approx(once)


def test_blur_is_seen_in_the_upper_bands_and_scrambled_phase_everywhere():
    truth, rng = smooth()
    blurred = np.exp(4 - 0.2 * band_noise(np.random.default_rng(1), 0, 1 / 32))
    rho = band_residuals(blurred, truth, truth > 0).rho
    assert rho[0] < 0.02
    assert rho[4] == pytest.approx(1.0, abs=0.1)
    other = np.exp(4 - 0.2 * band_noise(rng, 0, 1 / 32) - 0.02 * band_noise(rng, 1 / 32, 0.5))
    assert min(band_residuals(other, truth, truth > 0).rho) > 0.8


def test_small_images_have_fewer_bands():
    truth = 40 + 10 * np.sin(np.arange(64) / 5)[:, None] * np.ones((64, 64))
    assert (
        band_residuals(truth, truth, truth > 0).edges
        == (0.0, 1 / 32, 1 / 8, 1 / 4, BAND_EDGES[-1])[:1] + (BAND_EDGES[2:])
    )
    assert band_residuals(truth[:8, :8], truth[:8, :8], truth[:8, :8] > 0).edges == (0.0, 1 / 4, BAND_EDGES[-1])


def test_band_residuals_without_anything_to_measure():
    truth, _ = smooth()
    with pytest.warns(EmptyMaskWarning):
        found = band_residuals(truth, truth, np.zeros(truth.shape, bool))
    assert all(math.isnan(rho) for rho in found.rho)
    assert found.pixels == 0
    with pytest.warns(EmptyMaskWarning, match="does not vary"):
        assert math.isnan(band_residuals(truth, np.full(truth.shape, 5.0), truth > 0).rho[0])
    with pytest.raises(UsageError, match="mode"):
        band_residuals(truth, truth, truth > 0, mode="log")


@pytest.mark.parametrize(("shape", "mode"), [((66, 90), "scale"), ((67, 91), "scale"), ((66, 91), "affine")])
def test_band_residuals_are_the_formula_written_out_on_the_whole_plane(shape, mode):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    windows = pytest.importorskip("scipy.signal.windows", reason="scipy is the reference")
    rng = np.random.default_rng(0)
    truth = np.exp(4 + 0.2 * ndimage.gaussian_filter(rng.normal(size=shape), 3))
    prediction = truth * np.exp(0.05 * rng.normal(size=shape))
    valid = np.ones(shape, bool)
    valid[20:24, 50:60] = False
    z = []
    for depth in (prediction, truth):
        d = -np.log(depth) if mode == "scale" else 1 / depth
        d = d - np.median(d[valid])
        z.append(d if mode == "scale" else d / np.abs(d[valid]).mean())
    eroded = ndimage.binary_erosion(valid, np.ones((9, 9)), border_value=1).astype(float)
    weight = ndimage.uniform_filter(eroded, 9, mode="mirror")
    weight = weight * np.outer(*(windows.tukey(side, 0.25) for side in shape))
    energy, own = (np.abs(np.fft.fft2(weight * a)) ** 2 for a in (z[0] - z[1], z[1]))
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
    found = band_residuals(prediction, truth, valid, mode=mode)
    for low, high, rho in zip(found.edges, found.edges[1:], found.rho, strict=False):
        band = (radius >= low) & ((radius < high) | (high == found.edges[-1]))
        floor = 1e-3 * band.mean() * own.sum()
        assert rho == pytest.approx(energy[band].sum() / (own[band].sum() + floor), rel=1e-6)
