"""Arrays that compiled loops do not read have room for all that they could read: bits do not depend on memory."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("numba")

from endolux.phantom import render, shade
from endolux.phantom.world import PhantomSettings, frames


def _room(array: np.ndarray) -> int:
    return array.size if array.base is None else int(np.asarray(array.base).size)


def test_loops_over_pixels_get_arrays_with_room_for_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[tuple[int, int]] = []
    add_light, gather = shade._add_light, render.gather

    def seen_light(irradiance: np.ndarray, wet: np.ndarray, *rest: np.ndarray) -> None:
        rooms.append((_room(rest[4]), irradiance.size))
        add_light(irradiance, wet, *rest)

    def seen_gather(irradiance: np.ndarray, scattered: np.ndarray, *rest: np.ndarray) -> object:
        rooms.append((_room(scattered), irradiance.size))
        return gather(irradiance, scattered, *rest)

    monkeypatch.setattr(shade, "_add_light", seen_light)
    monkeypatch.setattr(render, "gather", seen_gather)
    settings = PhantomSettings(anatomies={"tube": 0.5, "colon": 0.5}, frames=4, width=48, height=32, seed=3)
    list(frames(settings))
    assert rooms
    assert all(room >= needed for room, needed in rooms)
