"""Streams of single views."""

import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("numba")

from endolux.phantom.world import PhantomSettings, frames
from endolux.types import DepthKind

SMALL = PhantomSettings(frames=3, width=64, height=48, views_per_scene=2, seed=11)


def test_frames_are_metric_valid_and_repeatable() -> None:
    first, again = list(frames(SMALL)), list(frames(SMALL))
    assert [item.frame.index for item in first] == [0, 1, 2]
    for a, b in zip(first, again, strict=True):
        assert a.frame.image.tobytes() == b.frame.image.tobytes()
        assert a.depth.values.tobytes() == b.depth.values.tobytes()
        assert a.depth.kind is DepthKind.METRIC
        assert (a.depth.values[a.depth.valid] > 0).all()
        assert not a.depth.valid[~a.frame.valid].any()
        np.testing.assert_allclose(a.pose[:3, :3] @ a.pose[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(a.pose[:3, :3]) == pytest.approx(1.0, abs=1e-6)


def test_scene_ranges_share_nothing_and_continue_each_other() -> None:
    whole = [item.frame.image.tobytes() for item in frames(SMALL.model_copy(update={"frames": 4}))]
    later = [item.frame.image.tobytes() for item in frames(SMALL.model_copy(update={"frames": 2, "first_scene": 1}))]
    assert whole[2:] == later
    assert not set(whole[:2]) & set(later)
