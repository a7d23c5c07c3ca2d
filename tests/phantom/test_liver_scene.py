"""The liver as it is looked at for its landmarks: scenes, lines and the preset for them."""

from __future__ import annotations

import numpy as np
import pytest

from endolux.phantom.families import Family, family_of
from endolux.phantom.labels import Label
from endolux.phantom.landmarks import Landmark, Line, draw
from endolux.phantom.liver import build_liver
from endolux.phantom.liver_scene import build_liver_scene, lie, meridian
from endolux.phantom.presets import settings_of
from endolux.phantom.streams import stream
from endolux.types import Camera

CAMERA = Camera(width=64, height=64, fx=64.0, fy=64.0, cx=31.5, cy=31.5)
LABEL = np.uint8


def test_most_views_show_landmarks_and_nothing_is_drawn_beyond_the_visible_area() -> None:
    seen, views = np.zeros(4), 0
    for shot in stream("l3d-like", frames=12, seed=2, width=128, height=72, views_per_scene=2):
        lines, visible = shot.truth.lines, shot.frame.valid
        assert lines is not None
        assert visible is not None
        assert not lines[~visible].any()
        seen += [(lines == landmark).mean() > 0.001 for landmark in Landmark]
        views += 1
    # In the mixture of all anatomies, one view in sixty shows a ligament.
    assert seen[Landmark.RIDGE] > 0.6 * views
    assert seen[Landmark.SILHOUETTE] > 0.5 * views
    assert seen[Landmark.LIGAMENT] > 0.35 * views


def test_the_mixture_for_training_depth_is_what_it_was() -> None:
    assert "liver" not in settings_of("train").anatomies
    assert settings_of("l3d-like").anatomies == {"liver": 1.0}


@pytest.mark.parametrize("family", list(Family))
def test_scenes_of_a_family_keep_to_its_shapes(family: Family) -> None:
    scene = build_liver_scene(np.random.default_rng(4), 0.0, family)
    for name in ("level_mm", "height_mm"):
        assert family_of("liver", name, float(scene.record[name])) is family


def test_a_meridian_lies_on_the_liver_and_leads_from_its_edge_to_its_top() -> None:
    rng = np.random.default_rng(1)
    liver = lie(build_liver(rng, height_mm=50.0, tilt_deg=0.0), front_mm=np.array([3.0, 7.0, -20.0]))
    path = meridian(liver, np.full(30, -1.5), until=0.2, count=30)
    nearest = [np.linalg.norm(liver.body.vertices - point, axis=1).min() for point in path.points]
    # Vertices lie up to 6 mm apart there.
    assert max(nearest) < 3.5
    assert np.linalg.norm(liver.rim - path.points[0], axis=1).min() < 3.0
    assert path.points[-1, 2] - path.points[0, 2] > 20.0
    assert np.abs((path.normals * path.aside).sum(axis=1)).max() < 1e-6
    front = liver.rim[np.abs(np.linspace(0, 2 * np.pi, 220, endpoint=False) - 1.5 * np.pi) < 0.5]
    np.testing.assert_allclose(front.mean(axis=0), [3.0, 7.0, -20.0], atol=1e-3)


def test_the_underside_arches_as_far_as_it_is_told() -> None:
    flat, arched = (
        build_liver(np.random.default_rng(8), height_mm=40.0, tilt_deg=0.0, hollow_mm=hollow).size[3]
        for hollow in (2.0, 26.0)
    )
    assert (flat, arched) == (2.0, 26.0)


def _halves() -> tuple[np.ndarray, np.ndarray]:
    """Liver on the left at 100 mm, wall on the right at the same depth."""
    labels = np.full((64, 64), Label.ABDOMINAL_WALL, LABEL)
    labels[:, :32] = Label.LIVER
    return np.full((64, 64), 100.0, np.float32), labels


def test_the_silhouette_runs_where_the_liver_touches_the_wall_if_asked_for() -> None:
    depth, labels = _halves()
    assert not draw((), CAMERA, np.eye(4), depth, labels).any()
    drawn = draw((), CAMERA, np.eye(4), depth, labels, touching=True)
    assert set(np.flatnonzero((drawn == Landmark.SILHOUETTE).any(axis=0))) <= {30, 31, 32}
    assert (drawn == Landmark.SILHOUETTE).any(axis=1).all()
    labels[:, 32:] = Label.FAT
    assert not draw((), CAMERA, np.eye(4), depth, labels, touching=True).any()


@pytest.mark.parametrize(
    ("before", "cover_mm", "drawn"),
    [(Label.LIGAMENT, 30.0, True), (Label.LIGAMENT, 0.0, False), (Label.LIVER, 30.0, False)],
)
def test_a_line_shows_behind_what_is_attached_along_it(before: Label, cover_mm: float, drawn: bool) -> None:
    depth, labels = np.full((64, 64), 100.0, np.float32), np.full((64, 64), before, LABEL)
    across = np.stack([np.linspace(-30, 30, 20), np.zeros(20), np.full(20, 120.0)], 1).astype(np.float32)
    line = Line(Landmark.LIGAMENT, across, cover_mm=cover_mm)
    assert bool((draw((line,), CAMERA, np.eye(4), depth, labels) == Landmark.LIGAMENT).any()) is drawn
