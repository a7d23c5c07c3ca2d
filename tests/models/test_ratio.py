"""Ratio and depth: the published table, and the way there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from endolux.models import from_ratio, to_ratio

METRES = 10.0


@pytest.mark.parametrize(
    ("ratio", "published", "correct"),
    [
        (-1, 0.1, 10),
        (-1e-9, 0.1, 10),
        (0, 0, 10),
        (0.5, 10, 10),
        (1, 10, 10),
        (4, 2.5, 2.5),
        (100, 0.1, 0.1),
        (1e6, 0.1, 0.1),
    ],
)
def test_depth_of_a_ratio(ratio: float, published: float, correct: float) -> None:
    tensor = torch.tensor([ratio], dtype=torch.float64)
    assert from_ratio(tensor, METRES, reproduce=True).item() == pytest.approx(published)
    assert from_ratio(tensor, METRES).item() == pytest.approx(correct)


@pytest.mark.parametrize(("depth", "ratio"), [(0, 0), (0.001, 100), (0.1, 100), (2.5, 4), (10, 1), (50, 1)])
def test_ratio_of_a_depth(depth: float, ratio: float) -> None:
    assert to_ratio(torch.tensor([depth], dtype=torch.float64), METRES).item() == pytest.approx(ratio)


@given(st.floats(0.01, 1.0), st.floats(0.5, 1e5), st.booleans())
def test_there_and_back(fraction: float, largest: float, reproduce: bool) -> None:
    depth = torch.tensor([fraction * largest], dtype=torch.float64)
    ratio = to_ratio(depth, largest)
    assert 1.0 - 1e-12 <= ratio.item() <= 100.0 * (1 + 1e-12)
    torch.testing.assert_close(from_ratio(ratio, largest, reproduce), depth)


@given(st.lists(st.floats(-50, 150), min_size=2, max_size=20))
def test_depth_never_grows_with_the_ratio(ratios: list[float]) -> None:
    depth = from_ratio(torch.tensor(sorted(ratios), dtype=torch.float64), METRES)
    assert bool((depth.diff() <= 0).all())


def test_what_is_not_a_number_stays_so() -> None:
    nan = torch.tensor([float("nan")])
    assert from_ratio(nan, METRES).isnan().all()
    assert from_ratio(nan, METRES, reproduce=True).isnan().all()
