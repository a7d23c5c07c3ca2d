"""Leve's loss: golden values, closed forms, masks, precision, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.losses.leve import gradient_loss, ratio_l1, ssim_loss, ssim_map, student_loss

N, Y, X = (
    torch.arange(2.0).view(2, 1, 1, 1),
    torch.arange(24.0).view(1, 1, 24, 1),
    torch.arange(32.0).view(1, 1, 1, 32),
)
OUTPUT = (1 + 0.5 * N) * (3 + 2 * torch.sin(0.3 * X + 0.2 * Y + N))
TARGET = torch.where((X + Y) % 17 == 0, 0.0, 3 + 2 * torch.cos(0.25 * X - 0.15 * Y + 0.5 * N))
ALL = torch.ones_like(TARGET, dtype=torch.bool)


def near(value: torch.Tensor, expected: float, tolerance: float = 1e-5) -> bool:
    return abs(float(value) - expected) <= tolerance


def maps(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = shape or (2, 1, 14, 17)
    first, second, third = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return (1 + 9 * first).to(dtype), (1 + 9 * second).to(dtype), third > 0.3


def test_golden_values() -> None:
    assert near(ratio_l1(OUTPUT, TARGET), 1.8509372)
    assert near(ssim_map(OUTPUT, TARGET).mean(), 0.3164397)
    assert near(ssim_map(OUTPUT, TARGET, dynamic_range=100.0).mean(), 0.7562420)
    assert near(ssim_loss(OUTPUT, TARGET, mode="reproduce"), 0.8417802)
    assert near(ssim_loss(OUTPUT, TARGET), 0.3417802)
    assert near(gradient_loss(OUTPUT, TARGET), 1.3996700)
    assert near(student_loss(OUTPUT, TARGET, mode="reproduce")["total"], 2.4265440)
    assert near(student_loss(OUTPUT, TARGET)["total"], 1.9265440)
    assert near(student_loss(OUTPUT, OUTPUT, mode="reproduce")["total"], 0.5, 1e-6)


def test_parts_add_up_with_any_weights() -> None:
    parts = student_loss(OUTPUT, TARGET, l1=0.5, ssim=2.0, gradient=0.25)
    expected = 0.5 * parts["l1"] + 2.0 * parts["ssim"] + 0.25 * parts["gradient"]
    assert near(parts["total"], float(expected))
    assert near(parts["l1"], 1.8509372)
    assert not parts["l1"].requires_grad


def test_the_two_modes_have_the_same_gradient_until_the_coded_one_saturates() -> None:
    def gradient(output: torch.Tensor, target: torch.Tensor, mode: str) -> torch.Tensor:
        output = output.clone().requires_grad_()
        ssim_loss(output, target, mode=mode).backward()
        return output.grad

    torch.testing.assert_close(gradient(OUTPUT, TARGET, "reproduce"), gradient(OUTPUT, TARGET, "correct"))
    # Opposite contrast: the mean similarity is negative.
    wave = torch.sin(X * 1.3) * torch.cos(Y * 1.1)
    high, low = 3 * wave, -3 * wave
    assert float(ssim_map(high, low).mean()) < 0
    assert float(ssim_loss(high, low, mode="reproduce")) == 1.0
    assert not gradient(high, low, "reproduce").any()
    assert gradient(high, low, "correct").any()


def naive_ssim(o: torch.Tensor, t: torch.Tensor, mask: torch.Tensor | None, row: int, column: int) -> float:
    """One pixel by its definition; outside the picture zeros count, outside the mask nothing does."""
    weights = torch.exp(-(torch.arange(11.0, dtype=torch.float64) - 5).square() / 4.5)
    window = torch.outer(weights, weights) / weights.sum() ** 2
    sums = dict.fromkeys("wotOTx", 0.0)
    inside_picture = 0.0
    for dy in range(-5, 6):
        for dx in range(-5, 6):
            y, x, w = row + dy, column + dx, float(window[dy + 5, dx + 5])
            if not (0 <= y < o.shape[0] and 0 <= x < o.shape[1]):
                continue
            inside_picture += w
            if mask is not None and not mask[y, x]:
                continue
            a, b = float(o[y, x]), float(t[y, x])
            for name, value in zip("wotOTx", (1.0, a, b, a * a, b * b, a * b), strict=True):
                sums[name] += w * value
    share = inside_picture / sums["w"]
    mo, mt, oo, tt, ot = (sums[name] * share for name in "otOTx")
    return (
        (2 * mo * mt + 0.01) * (2 * (ot - mo * mt) + 0.09)
        / ((mo**2 + mt**2 + 0.01) * (oo - mo**2 + tt - mt**2 + 0.09))
    )  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
def test_similarity_by_its_definition(masked: bool) -> None:
    output, target, mask = maps(3, 1, 1, 14, 17, dtype=torch.float64)
    found = ssim_map(output, target, mask=mask if masked else None)[0, 0]
    for row, column in ((0, 0), (6, 8), (13, 3), (5, 16), (9, 9)):
        if masked and not mask[0, 0, row, column]:
            assert float(found[row, column]) == 1.0
            continue
        expected = naive_ssim(output[0, 0], target[0, 0], mask[0, 0] if masked else None, row, column)
        assert abs(float(found[row, column]) - expected) < 1e-9


def test_maps_smaller_than_the_window_keep_the_published_padding() -> None:
    output, target, _ = maps(0, 2, 1, 8, 9)
    assert ssim_map(output, target).shape == (2, 1, 11, 12)
    assert torch.isfinite(student_loss(output, target)["total"])


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_symmetric_and_zero_only_without_error(seed: int) -> None:
    output, target, mask = maps(seed)
    for loss in (ratio_l1, gradient_loss, ssim_loss):
        for chosen in (None, mask):
            assert abs(float(loss(output, output, mask=chosen))) < 1e-5
            assert near(loss(output, target, mask=chosen), float(loss(target, output, mask=chosen)), 1e-4)
            assert float(loss(output, target, mask=chosen)) > 0.01


@given(seed=st.integers(0, 1000), factor=st.floats(0.2, 5.0))
@settings(max_examples=20, deadline=None)
def test_units(seed: int, factor: float) -> None:
    output, target, _ = maps(seed)
    for loss in (ratio_l1, gradient_loss):
        scaled = float(loss(factor * output, factor * target))
        assert scaled == pytest.approx(factor * float(loss(output, target)), rel=1e-4)
    # The constants of the similarity go with the dynamic range.
    scaled = float(ssim_loss(factor * output, factor * target, dynamic_range=factor * 10.0))
    assert scaled == pytest.approx(float(ssim_loss(output, target)), abs=1e-4)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_mirroring_changes_nothing(seed: int) -> None:
    output, target, mask = maps(seed)
    for chosen in (None, mask):
        here = student_loss(output, target, mask=chosen)["total"]
        for axis in (2, 3):
            flipped = None if chosen is None else chosen.flip(axis)
            assert near(student_loss(output.flip(axis), target.flip(axis), mask=flipped)["total"], float(here), 1e-4)


def test_a_full_mask_is_no_mask() -> None:
    plain, full = student_loss(OUTPUT, TARGET), student_loss(OUTPUT, TARGET, mask=ALL)
    for name in plain:
        assert near(full[name], float(plain[name]))


@pytest.mark.parametrize("poison", [7e3, float("nan"), float("inf")])
def test_what_lies_outside_the_mask_changes_nothing(poison: float) -> None:
    output, target, mask = maps(5)
    expected = student_loss(output, target, mask=mask)["total"]
    bad_output = torch.where(mask, output, poison).requires_grad_()
    found = student_loss(bad_output, torch.where(mask, target, poison), mask=mask)["total"]
    assert float(found) == float(expected)
    found.backward()
    assert torch.isfinite(bad_output.grad).all()
    assert not bad_output.grad[~mask].any()


def test_an_empty_mask_is_zero_with_a_zero_gradient() -> None:
    output, target, _ = maps(6)
    output.requires_grad_()
    loss = student_loss(output, target, mask=torch.zeros_like(output, dtype=torch.bool))["total"]
    assert float(loss) == 0.0
    loss.backward()
    assert not output.grad.any()


def test_images_weigh_equally_under_a_mask() -> None:
    output, target, mask = maps(7)
    mask = mask.clone()
    mask[0, :, 4:] = False
    single = [float(student_loss(output[i : i + 1], target[i : i + 1], mask=mask[i : i + 1])["total"]) for i in (0, 1)]
    assert near(student_loss(output, target, mask=mask)["total"], sum(single) / 2, 1e-4)
    mask[0] = False
    assert near(student_loss(output, target, mask=mask)["total"], single[1], 1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mode", ["correct", "reproduce"])
def test_gradients_by_differences(mode: str, masked: bool) -> None:
    output, target, mask = maps(8, 2, 1, 11, 12, dtype=torch.float64)
    output.requires_grad_()
    chosen = mask if masked else None
    assert torch.autograd.gradcheck(lambda o: student_loss(o, target, mode=mode, mask=chosen)["total"], (output,))


def test_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = student_loss(OUTPUT, TARGET, mode="reproduce")["total"]
    assert inside.dtype == torch.float32
    assert near(inside, 2.4265440)
    halved = student_loss(OUTPUT.bfloat16(), TARGET)["total"]
    assert halved.dtype == torch.float32


def test_the_first_call_may_be_a_validation() -> None:
    from endolux.losses import leve

    leve._kernel.cache_clear()
    with torch.inference_mode():
        student_loss(OUTPUT, TARGET)
    output = OUTPUT.clone().requires_grad_()
    student_loss(output, TARGET)["total"].backward()
    assert output.grad.any()


def test_refusals() -> None:
    with pytest.raises(UsageError, match="shapes"):
        student_loss(OUTPUT, TARGET[:, :, :-1])
    with pytest.raises(UsageError, match="shapes"):
        ratio_l1(OUTPUT[:, 0], TARGET[:, 0])
    with pytest.raises(UsageError, match="mode"):
        student_loss(OUTPUT, TARGET, mode="thesis")
    with pytest.raises(UsageError, match="dynamic range"):
        ssim_map(OUTPUT, TARGET, dynamic_range=0.0)
    with pytest.raises(UsageError, match="masked SSIM"):
        ssim_map(OUTPUT[..., :8], TARGET[..., :8], mask=ALL[..., :8])
