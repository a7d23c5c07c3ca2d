"""What belongs to a whole sequence: an instrument in the channel, smoke, and the package's front door."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

import endolux.phantom
from endolux.phantom import streams
from endolux.phantom.labels import Label
from endolux.phantom.mesh import Mesh
from endolux.phantom.presets import settings_of
from endolux.phantom.scene import Scene, build_scene
from endolux.phantom.smoke import Smoke
from endolux.phantom.streams import sequence

TINY = {"width": 48, "height": 40, "seed": 5, "anatomies": {"tube": 1.0}, "frames": 4, "sequence_frames": 4, "fps": 8.0}
PLATE_MM = 4.0


def plate() -> Mesh:
    """A square facing the lens, in camera axes, right of the middle of the picture."""
    corners = np.array(
        [[0, -0.6, PLATE_MM], [0, 0.6, PLATE_MM], [1.2, -0.6, PLATE_MM], [1.2, 0.6, PLATE_MM]], np.float32
    )
    flat, pair = np.zeros(4, np.float32), np.zeros((4, 2), np.float32)
    return Mesh(
        vertices=corners.astype(np.float32),
        faces=np.array([[0, 1, 2], [1, 3, 2]], np.int32),
        normals=np.tile(np.array([0, 0, -1], np.float32), (4, 1)),
        texture=pair,
        planar=pair,
        blend=flat,
        detail=pair,
        tint=np.ones((4, 3), np.float32),
        label=np.full(4, Label.TOOL_SHAFT, np.uint8),
    )


def tube(_settings: object, scene: int) -> Scene:
    return dataclasses.replace(build_scene("tube", np.random.default_rng(scene)), held=(plate(),))


@pytest.mark.parametrize("deformation", [None, {"breathing_mm": 1.0, "peristalsis": 0.1}])
def test_an_instrument_in_the_channel_moves_with_the_camera(
    deformation: dict[str, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "open_scene", tube)
    changes = {**TINY, "motion": "hover", "held": 1.0, "deformation": deformation, "baseline_mm": 1.0}
    made = list(sequence(settings_of("clean", changes), 0))
    assert all(shot.scene["held"] is True for shot in made)
    tool = made[0].truth.labels == Label.TOOL_SHAFT
    assert 30 < tool.sum() < 800
    for shot in made:
        np.testing.assert_array_equal(shot.truth.labels == Label.TOOL_SHAFT, tool)
        np.testing.assert_allclose(shot.depth.values[tool], PLATE_MM, atol=1e-4)
        if shot.flow is not None:
            np.testing.assert_allclose(shot.flow[tool & shot.depth.valid], 0.0, atol=1e-4)
            assert np.nanmax(np.abs(shot.flow[~tool])) > 0.2
        assert shot.right is not None
        other = shot.right.labels == Label.TOOL_SHAFT
        disparity = np.nonzero(tool)[1].mean() - np.nonzero(other)[1].mean()
        assert disparity == pytest.approx(shot.camera.fx * 1.0 / PLATE_MM, abs=0.6)
    assert np.abs(made[0].pose - made[-1].pose).max() > 1e-3
    without = next(sequence(settings_of("clean", changes | {"held": 0.0}), 0))
    assert without.scene["held"] is False
    assert not (without.truth.labels == Label.TOOL_SHAFT).any()


def test_averaged_pixels_show_the_instrument_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "open_scene", tube)
    for motion in ("still", "hover"):
        changes = {**TINY, "frames": 1, "motion": motion, "held": 1.0}
        plain = next(sequence(settings_of("clean", changes), 0))
        fine = next(sequence(settings_of("clean", changes | {"supersample": 2}), 0))
        tool = plain.truth.labels == Label.TOOL_SHAFT
        apart = np.abs(plain.frame.image[tool].astype(int) - fine.frame.image[tool])
        assert np.median(apart) < 12


def test_smoke_hangs_over_a_whole_sequence_and_leaves_its_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    liver = build_scene("laparoscopy", np.random.default_rng(2))
    monkeypatch.setattr(streams, "open_scene", lambda *_: liver)
    changes = {**TINY, "motion": "hover", "baseline_mm": 2.0}
    clear = list(sequence(settings_of("clean", changes | {"smoke": 0.0}), 0))
    hazy = list(sequence(settings_of("clean", changes | {"smoke": 1.0}), 0))
    assert all(shot.scene["smoke"] is None for shot in clear)
    drawn = hazy[0].scene["smoke"]
    assert isinstance(drawn, dict)
    assert 0.1 <= drawn["density"] <= 1.2
    densities = [shot.view["smoke_density"] for shot in hazy]
    assert len(set(densities)) == 4
    assert np.abs(np.diff(densities)).max() < 0.15 * drawn["density"]
    for with_smoke, without in zip(hazy, clear, strict=True):
        np.testing.assert_array_equal(with_smoke.depth.values, without.depth.values)
        np.testing.assert_array_equal(with_smoke.pose, without.pose)
        for ours, plain in ((with_smoke.truth, without.truth), (with_smoke.right, without.right)):
            assert ours is not None
            assert plain is not None
            # Grey is added: colours fade in both lenses.
            assert _colour(ours.frame.image) < 0.97 * _colour(plain.frame.image)


def _colour(image: np.ndarray) -> float:
    return float((image.max(axis=2) - image.min(axis=2).astype(float)).sum() / image.max(axis=2).sum())


def test_smoke_changes_smoothly_in_time() -> None:
    smoke = Smoke.draw(np.random.default_rng(5), (0.8, 0.9))
    light, depth = np.full((32, 32, 3), 0.1, np.float32), np.full((32, 32), 40.0, np.float32)
    light[:, :8] = 1.0
    first, soon, late = (smoke.over(light, depth, pts_s=pts_s) for pts_s in (1.0, 1.04, 4.0))
    assert np.abs(soon - first).max() < 0.03
    assert np.abs(late - first).max() > 0.1
    np.testing.assert_array_equal(smoke.over(light, depth, pts_s=1.0), first)
    assert smoke.density_at(1.0) == pytest.approx(smoke.density_at(1.0 + smoke.swell_period_s))
    none = dataclasses.replace(smoke, density=0.0)
    np.testing.assert_allclose(none.over(light, depth, pts_s=1.0), light, atol=1e-7)
    # Each of two seconds of drift: no moment is without plumes.
    marks = [smoke.over(light, depth, pts_s=pts_s)[:, 16].std() for pts_s in np.linspace(0, smoke.drift_period_s, 9)]
    assert min(marks) > 0.2 * max(marks)


def test_the_package_opens_without_the_renderer_and_has_what_it_lists() -> None:
    code = "import sys, endolux.phantom; sys.exit('numba' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in endolux.phantom.__all__:
        assert getattr(endolux.phantom, name).__class__ is not None
    assert endolux.phantom.stream is streams.stream
    assert dir(endolux.phantom) == sorted(endolux.phantom.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = endolux.phantom.nothing
