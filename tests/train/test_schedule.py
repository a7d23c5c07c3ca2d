"""Schedules in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from endolux.train.recipe import ConstantSchedule, CosineSchedule, OneCycleSchedule, StepSchedule
from endolux.train.schedule import rate_factor


def test_one_cycle_rises_and_falls() -> None:
    rates = [rate_factor(OneCycleSchedule(warm_up=0.1), step=step, steps=200) for step in range(200)]
    assert np.argmax(rates) in (19, 20)
    assert max(rates) == pytest.approx(1.0)
    assert np.all(np.diff(rates[:20]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


def test_step() -> None:
    by_epoch = [rate_factor(StepSchedule(), step=0, steps=1, epoch=epoch) for epoch in range(11)]
    assert by_epoch == pytest.approx([1.0] * 5 + [0.1] * 5 + [0.01])
    by_step = StepSchedule(every=3, factor=0.5, interval="step")
    assert [rate_factor(by_step, step=step, steps=9) for step in (2, 3, 6)] == [1.0, 0.5, 0.25]


def test_constant() -> None:
    assert {rate_factor(ConstantSchedule(), step=step, steps=9) for step in range(9)} == {1.0}
    warm = [rate_factor(ConstantSchedule(warm_up=0.5), step=step, steps=4) for step in range(4)]
    assert warm == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_cosine(final: float) -> None:
    schedule = CosineSchedule(final=final)
    for step in range(10):
        expected = final + (1 - final) * (1 + math.cos(math.pi * step / 10)) / 2
        assert rate_factor(schedule, step=step, steps=10) == pytest.approx(expected)
    staircase = CosineSchedule(interval="epoch")
    values = [rate_factor(staircase, step=step, steps=40, epoch=step // 10, epochs=4) for step in range(40)]
    assert len(set(values)) == 4
    assert values[10] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
