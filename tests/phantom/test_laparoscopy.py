"""Scenes of the abdomen that chance makes rare."""

from __future__ import annotations

import numpy as np

from endolux.phantom.families import Family
from endolux.phantom.laparoscopy import build_laparoscopy


class _NoOrgans(np.random.Generator):
    """Draws as any generator does, but every single chance comes out against what it is asked for."""

    def random(self, size: object = None, *arguments: object, **options: object) -> object:
        return 0.99 if size is None else super().random(size, *arguments, **options)


def test_the_camera_finds_a_place_to_look_at_where_there_is_no_organ() -> None:
    for seed in range(4):
        scene = build_laparoscopy(_NoOrgans(np.random.PCG64(seed)), 0.2, Family.TRAIN)
        assert scene.record["liver"] == 0
        assert scene.outlook is not None
        aims = scene.outlook.targets
        assert len(aims) > 0
        assert np.isfinite(aims).all()
        assert (aims[:, 2] > scene.record["level_mm"] - 10).all()
