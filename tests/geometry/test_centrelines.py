"""Middles of drawn lines."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.geometry.centrelines import centrelines, thinned


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, np.pi), st.integers(3, 30), st.sampled_from([(120, 160), (540, 720)]))
def test_straight_lines(angle: float, width: int, size: tuple[int, int]) -> None:
    height, columns = size
    centre, reach = np.array([columns / 2, height / 2]), 0.35 * height
    along = reach * np.array([np.cos(angle), np.sin(angle)])
    mask = np.zeros(size, np.uint8)
    ends = [tuple(int(v) for v in np.rint(centre + sign * along)) for sign in (-1, 1)]
    cv2.line(mask, ends[0], ends[1], 1, width)
    found = centrelines(mask > 0, shortest=0.2)
    assert len(found) == 1
    normal = np.array([-along[1], along[0]]) / np.hypot(*along)
    step = max(1, round(columns / 320))
    # Skeletons of discs at the ends wander by less than half a width.
    assert np.abs((found[0] - centre) @ normal).max() <= 2.5 * step + 0.5 * width
    middle = [point for point in found[0] if np.hypot(*(point - centre)) < reach - width]
    assert all(abs((point - centre) @ normal) <= 2.5 * step for point in middle)
    length = np.hypot(*(found[0][-1] - found[0][0]))
    assert length == pytest.approx(2 * reach, abs=1.5 * width + 4 * step)


def test_specks_are_left_out() -> None:
    mask = np.zeros((100, 100), bool)
    mask[50:53, 50:53] = True
    assert centrelines(mask) == []
    assert centrelines(np.zeros((5, 5), bool)) == []
    assert not thinned(np.zeros((5, 5), bool)).any()


def test_longest_first() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:25, 20:60], mask[60:65, 20:180] = True, True
    first, second = centrelines(mask)
    assert np.ptp(first[:, 0]) > np.ptp(second[:, 0])


@pytest.mark.parametrize("width", [3, 7, 9, 19, 27])
@pytest.mark.parametrize("turned", [False, True])
def test_a_diagonal_line_keeps_its_length(width: int, turned: bool) -> None:
    mask = np.zeros((540, 720), np.uint8)
    cv2.line(mask, (180, 100), (520, 440), 1, width)
    (line,) = centrelines((mask[:, ::-1] if turned else mask) > 0)
    assert np.hypot(*(line[-1] - line[0])) == pytest.approx(np.hypot(340, 340), abs=width + 8)
