"""Presets, splits, motion and deformation: data that says everything, and geometry that holds."""

import dataclasses
import itertools
import json

import cv2
import numpy as np
import pytest

pytest.importorskip("numba")

from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as some

from endolux.errors import UsageError
from endolux.geometry.cameras import project, rays
from endolux.phantom.deform import Deformation, Organ, displacement
from endolux.phantom.instrument import CameraChoice, LightChoice, ScopeChoice, look_fields
from endolux.phantom.lumen import Centreline
from endolux.phantom.motion import Motion, path
from endolux.phantom.pose import look_along
from endolux.phantom.presets import PRESETS, SPLITS, StreamSettings, settings_of
from endolux.phantom.scene import ANATOMIES, Scene, build_scene
from endolux.phantom.scope import sample_scope
from endolux.phantom.streams import sequence, shots, stream
from endolux.phantom.world import open_scene, views
from endolux.types import CameraModel

TINY = {"width": 48, "height": 40, "seed": 3}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_data_that_comes_back(name: str) -> None:
    settings = settings_of(name, {"frames": 5})
    assert settings.preset == name
    assert set(settings.anatomies) <= set(ANATOMIES)
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    assert StreamSettings.model_validate_json(text) == settings


def test_settings_that_older_runs_lack_are_written_down_only_where_they_differ() -> None:
    assert not {"held", "smoke"} & set(settings_of("train").model_dump())
    changed = settings_of("train", {"held": 0.0, "smoke": 1.0})
    assert changed.model_dump(mode="json")["held"] == 0.0
    assert StreamSettings.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_draw_what_they_say(name: str) -> None:
    choice = settings_of(name, TINY).scope
    for seed in range(12):
        scope = settings_of(name, TINY).instrument(np.random.default_rng(seed))
        for field, (low, high) in choice.look.items():
            scale = 48 / 320 if field.endswith("_px") else 1.0
            assert low * scale - 0.51 <= float(getattr(scope, field)) <= high * scale + 0.51
            assert type(getattr(scope, field)) is type(getattr(_any_scope(), field))
        if choice.content == "full":
            assert scope.content.all()
        if choice.lights is not None:
            assert choice.lights.count[0] <= len(scope.lights) <= choice.lights.count[1]
        if choice.camera is not None and choice.camera.fixed is None:
            assert scope.camera.model in choice.camera.models


def _any_scope():
    return sample_scope(np.random.default_rng(0), width=48, height=40)


def test_train_has_every_anatomy() -> None:
    # The liver has a preset of its own.
    assert set(settings_of("train").anatomies) == set(ANATOMIES) - {"liver"}


def test_clean_has_no_artefacts_and_repeats() -> None:
    settings = settings_of("clean", {**TINY, "frames": 2, "anatomies": {"tube": 1.0}})
    scope = settings.instrument(np.random.default_rng(0))
    assert scope.camera.model is CameraModel.PINHOLE
    for field in ("shot_noise", "read_noise", "jpeg_quality", "vignette", "defocus_px", "overlay_seed", "h264_crf"):
        assert not getattr(scope, field)
    for name in ("clean", "endoslam-like"):
        drawn = settings_of(name, TINY).instrument(np.random.default_rng(4))
        assert (drawn.scatter_mm, drawn.saturation, drawn.white_balance) == (0.0, 1.0, (1.0, 1.0, 1.0))
    first, again = list(shots(settings)), list(shots(settings))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.frame.image, b.frame.image)
        np.testing.assert_array_equal(a.depth.values, b.depth.values)


def test_a_wide_choice_leaves_the_worlds_stills_as_they_are() -> None:
    settings = StreamSettings(**TINY, anatomies={"tube": 1.0}, frames=2, views_per_scene=2)
    for shot, frame in zip(shots(settings), views(settings, 0), strict=True):
        np.testing.assert_array_equal(shot.frame.image, frame.frame.image)


@pytest.mark.parametrize("model", [CameraModel.PINHOLE, CameraModel.FISHEYE, CameraModel.RADTAN])
@given(degrees=some.floats(20, 140), seed=some.integers(0, 99))
@limits(max_examples=20, deadline=None)
def test_field_of_view_is_that_across_the_diagonal(model: CameraModel, degrees: float, seed: int) -> None:
    choice = CameraChoice(models={model: 1.0}, field_of_view_deg=degrees, centre=0.0, k1=0.0)
    camera = choice.draw(np.random.default_rng(seed), 60, 44)
    wide = dataclasses.replace(camera, cx=0.0, cy=0.0, width=31, height=23)
    ray = rays(wide)[22, 30]
    edge = np.hypot(30, 22) / np.hypot(30, 22)
    assert edge == 1.0
    assert np.rad2deg(np.arctan(np.hypot(ray[0], ray[1]))) == pytest.approx(degrees / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"scope": {"camera": {"field_of_view_deg": 0}}}, "field of view of 0"),
        ({"scope": {"camera": {"field_of_view_deg": 179}}}, "179"),
        ({"scope": {"camera": {"field_of_view_deg": float("nan")}}}, "two finite"),
        ({"scope": {"camera": {"models": {"pinhole": 0}}}}, "weights"),
        ({"scope": {"lights": {"count": [0, 1]}}}, "lights"),
        ({"scope": {"look": {"shot_noize": 1}}}, "did you mean 'shot_noise'"),
        ({"scope": {"look": {"gamma": [3, 1]}}}, "smaller first"),
        ({"baseline_mm": -1}, "baseline_mm: -1"),
        ({"baseline_mm": float("inf")}, "baseline_mm"),
        ({"width": 0}, "width: 0"),
        ({"frames": 0}, "frames: 0"),
        ({"fps": 0}, "fps: 0"),
        ({"motion": "fly"}, "'fly'"),
        ({"split": "val"}, "'val'"),
        ({"deformation": {}}, "deformation needs a motion"),
        ({"motion": "hover", "deformation": {"peristalsis": 2}}, "peristalsis: 2"),
        ({"anatomies": {"tube": 0}}, "no anatomy has a weight"),
        ({"anatomies": {"tube": float("nan")}}, "weight of 'tube'"),
        ({"first_scene": 10**9}, "a split has"),
        ({"widht": 5}, "Unknown setting 'widht'"),
    ],
)
def test_impossible_settings_name_the_value(changes: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of("train", changes)
    assert what in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: settings_of("trian"), "train"),
        (lambda: settings_of("train", {"anatomies": {"colno": 1}}), "colon"),
        (lambda: settings_of("train", {"widht": 1}), "width"),
    ],
)
def test_unknown_names_name_the_nearest(call, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.fix == f"Did you mean '{nearest}'?"


def test_a_fixed_camera_has_no_other_field_of_view() -> None:
    with pytest.raises(UsageError, match="fixed"):
        settings_of("c3vd-like", {"scope": {"camera": {"field_of_view_deg": 80}}})


@given(
    first=some.integers(0, 10**9 - 1000),
    other=some.integers(0, 10**9 - 1000),
    frames=some.integers(1, 5000),
)
def test_splits_share_no_scene(first: int, other: int, frames: int) -> None:
    scenes = {}
    for split, start in zip(SPLITS, (first, other, first), strict=True):
        settings = StreamSettings(split=split, first_scene=start, frames=frames)
        scenes[split] = range(settings.scene(0), settings.scene(settings.sequences - 1) + 1)
    for a in scenes:
        for b in scenes:
            assert a == b or scenes[a].stop <= scenes[b].start or scenes[b].stop <= scenes[a].start


def test_splits_show_other_scenes_from_the_same_command() -> None:
    pictures = [
        next(stream("clean", **TINY, anatomies={"tube": 1.0}, split=split)).frame.image.tobytes() for split in SPLITS
    ]
    assert len(set(pictures)) == 3


def test_lights_and_look_fields() -> None:
    lights = LightChoice(count=(2, 2), spread_mm=3, beam=1, shadows=1).draw(np.random.default_rng(0))
    gap = np.linalg.norm(np.subtract(lights[0].position_mm, lights[1].position_mm))
    assert gap == pytest.approx(6.0)
    assert all(light.casts_shadow for light in lights)
    assert {"gamma", "jpeg_quality", "blur_px"} <= set(look_fields())
    assert "camera" not in look_fields()
    same = ScopeChoice().narrow(_any_scope(), np.random.default_rng(1))
    assert same.camera == _any_scope().camera


def straight(length: int = 400) -> Centreline:
    points = np.stack([np.zeros(length), np.zeros(length), np.arange(length, dtype=float)], 1).astype(np.float32)
    frames = np.broadcast_to(np.eye(3, dtype=np.float32), (length, 3, 3))
    return Centreline(points, frames, np.full(length, 15.0, np.float32), 1.0)


def tube_scene() -> Scene:
    return dataclasses.replace(build_scene("tube", np.random.default_rng(2)), centreline=straight())


@pytest.mark.parametrize("motion", [Motion.INSERTION, Motion.WITHDRAWAL, Motion.HOVER, Motion.PAN, Motion.SWEEP])
@pytest.mark.parametrize("fps", [5.0, 25.0])
def test_paths_are_rigid_and_smooth(motion: Motion, fps: float) -> None:
    scene, start = tube_scene(), np.eye(4)
    for seed in range(4):
        frames = round(6 * fps)
        poses = np.array(
            path(
                np.random.default_rng(seed), scene, start, motion=motion, frames=frames, fps=fps, reach_mm=40.0,
                clear=lambda _: True,
            ).poses
        )  # fmt: skip
        assert poses.shape == (frames, 4, 4)
        turns = poses[:, :3, :3]
        np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-9)
        np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-9)
        speed = np.diff(poses[:, :3, 3], axis=0) * fps
        assert np.linalg.norm(speed, axis=1).max() < 40.0
        # mm/s2: a hand, not a jump, whatever the frame rate.
        assert np.abs(np.diff(speed, axis=0) * fps).max() < 60.0
        step = turns[1:] @ turns[:-1].transpose(0, 2, 1)
        rate = np.rad2deg(np.arccos(np.clip((np.trace(step, axis1=1, axis2=2) - 1) / 2, -1, 1))) * fps
        assert rate.max() < 75.0
        travelled = poses[-1, 2, 3] - poses[0, 2, 3]
        if motion is Motion.INSERTION:
            assert travelled > 15.0
        elif motion is Motion.WITHDRAWAL:
            assert travelled < -15.0
        elif motion is Motion.SWEEP:
            way = poses[:, :3, 3] - poses[0, :3, 3]
            assert np.ptp(way[:, :2], axis=0).max() > 2 * np.ptp(way[:, 2])
            assert np.linalg.norm(way, axis=1).max() < 30.0
        else:
            assert np.linalg.norm(poses[:, :3, 3] - start[:3, 3], axis=1).max() < 12.0


def test_the_same_motion_at_another_frame_rate_passes_the_same_places() -> None:
    scene = tube_scene()
    made = {}
    for fps in (5.0, 25.0):
        frames = round(2 * fps) + 1
        made[fps] = path(
            np.random.default_rng(1), scene, np.eye(4), motion=Motion.PAN, frames=frames, fps=fps, reach_mm=40.0,
            clear=lambda _: True,
        ).poses  # fmt: skip
    np.testing.assert_allclose(made[25.0][::5], made[5.0], atol=1e-12)


def test_a_path_without_room_holds_still() -> None:
    start = look_along(straight(), at=50, offset_mm=(1, 2), forward=1, tilt=0.1, azimuth=0, roll=0)
    asked = []
    way = path(
        np.random.default_rng(0), tube_scene(), start, motion=Motion.HOVER, frames=5, fps=5.0, reach_mm=40.0,
        clear=lambda poses: asked.append(poses) or False,
    )  # fmt: skip
    np.testing.assert_allclose(way.poses, np.broadcast_to(start, (5, 4, 4)))
    assert way.record == {"kind": "hover", "damping": 0.0, "reach_mm": 40.0, "hand_mm": 0.0}
    reach = [np.abs(np.array(tried) - start).max() for tried in asked]
    assert reach == sorted(reach, reverse=True)
    assert len(reach) > 2


@pytest.mark.parametrize("motion", ["insertion", "hover"])
def test_flow_leads_to_the_same_surface_in_the_next_frame(motion: str) -> None:
    settings = settings_of(
        "clean",
        {
            **TINY,
            "seed": 4,
            "anatomies": {"tube": 1.0},
            "frames": 3,
            "motion": motion,
            "fps": 8.0,
            "sequence_frames": 3,
        },
    )
    _check_flow(list(sequence(settings, 0)), least=0.9)


@pytest.mark.parametrize("deformation", [{"breathing_mm": 4.0}, {"breathing_mm": 0, "peristalsis": 0.3, "wave_mm": 15}])
def test_flow_follows_the_vertices_of_a_moving_organ(
    deformation: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**TINY, "anatomies": {"tube": 1.0}, "frames": 2, "motion": "hover", "fps": 4.0, "sequence_frames": 2}
    meshes = []
    bend = Organ.at
    monkeypatch.setattr(Organ, "at", lambda organ, pts_s: meshes.append(bend(organ, pts_s)) or meshes[-1])
    first, second = sequence(settings_of("clean", {**changes, "deformation": deformation}), 0)
    places = [mesh.vertices.astype(np.float64) for mesh in meshes[:2]]
    assert np.linalg.norm(places[1] - places[0], axis=1).max() > 0.5
    local = [
        (place - shot.pose[:3, 3]) @ shot.pose[:3, :3] for place, shot in zip(places, (first, second), strict=True)
    ]
    ahead = (local[0][:, 2] > 1) & (local[1][:, 2] > 1)
    pixels = [project(points[ahead], first.camera) for points in local]
    near = np.rint(pixels[0]).astype(int)
    seen = (near >= 0).all(1) & (near[:, 0] < 48) & (near[:, 1] < 40)
    near, truth, z = near[seen], (pixels[1] - pixels[0])[seen], local[0][ahead][seen, 2]
    assert first.flow is not None
    visible = np.abs(first.depth.values[near[:, 1], near[:, 0]] / z - 1) < 0.01
    error = np.linalg.norm(first.flow[near[:, 1], near[:, 0]] - truth, axis=1)[visible]
    assert visible.sum() > 200
    assert np.linalg.norm(truth[visible], axis=1).max() > 1.0
    # The pixel lies up to half a pixel beside the vertex.
    assert np.median(error) < 0.1


def _check_flow(made, *, least: float) -> None:
    assert made[-1].flow is None
    for first, second in itertools.pairwise(made):
        flow = first.flow
        assert flow is not None
        known = np.isfinite(flow).all(2)
        np.testing.assert_array_equal(known, first.depth.valid)
        rows, columns = np.nonzero(known)
        x, y = (columns + flow[known][:, 0]).astype(np.float32), (rows + flow[known][:, 1]).astype(np.float32)
        inside = (x > 0) & (y > 0) & (x < 47) & (y < 39)
        there = cv2.remap(second.depth.values, x[None], y[None], cv2.INTER_LINEAR)[0]
        # Nothing but another wall may hide the point from the second frame.
        local = rays(first.camera)[known] * first.depth.values[known][:, None]
        world = local @ first.pose[:3, :3].T + first.pose[:3, 3]
        expected = ((world - second.pose[:3, 3]) @ second.pose[:3, :3])[:, 2]
        close = np.abs(there / expected - 1)[inside] < 0.12
        assert inside.mean() > 0.5
        assert close.mean() > least


@pytest.mark.parametrize("peristalsis", [0.0, 0.3])
def test_an_organ_moves_by_its_displacement_and_normals_turn_with_the_wall(peristalsis: float) -> None:
    scene = build_scene("tube", np.random.default_rng(1))
    deformation = Deformation(breathing_mm=4.0, peristalsis=peristalsis)
    organ = Organ.of(scene, deformation, phase=0.4)
    rest = scene.mesh.vertices.astype(np.float64)
    for pts_s in (0.6, 1.3, 78.5):
        moved = displacement(rest, deformation, scene=scene, pts_s=pts_s, phase=0.4)
        assert np.abs(moved).max() > 0.1
        np.testing.assert_allclose(organ.at(pts_s).vertices, rest + moved, atol=2e-5)
    mesh = organ.at(1.3)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = np.linalg.norm(flat, axis=1)
    keep = size > np.percentile(size, 20)
    flat = flat[keep] / size[keep, None]
    smooth = mesh.normals[mesh.faces[keep, 0]]
    agreement = np.abs((flat * smooth).sum(1))
    assert np.median(agreement) > 0.97
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-3)


def test_stereo_disparity_is_focal_length_times_baseline_over_depth() -> None:
    shot = next(stream("clean", **{**TINY, "seed": 4}, anatomies={"tube": 1.0}, frames=1, baseline_mm=2.0))
    assert shot.right is not None
    np.testing.assert_allclose(shot.right.pose[:3, 3] - shot.pose[:3, 3], 2.0 * shot.pose[:3, 0], atol=1e-12)
    depth, other = shot.depth.values, shot.right.depth.values
    columns = np.arange(48)[None] - shot.camera.fx * 2.0 / np.maximum(depth, 1e-3)
    rows = np.broadcast_to(np.arange(40)[:, None], columns.shape)
    there = cv2.remap(other, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    inside = shot.depth.valid & (columns > 0)
    # Folds hide the rest from one of the two.
    assert (np.abs(there / depth - 1) < 0.03)[inside].mean() > 0.8
    # The light stays where it is: what both lenses see is as bright in both.
    grey = cv2.cvtColor(shot.right.frame.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    seen = cv2.remap(grey, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    own = cv2.cvtColor(shot.frame.image, cv2.COLOR_RGB2GRAY)
    assert np.median(np.abs(seen - own)[inside]) < 4.0


def test_supersampling_keeps_ground_truth() -> None:
    plain = next(stream("clean", **TINY, anatomies={"tube": 1.0}, frames=1))
    fine = next(stream("clean", **TINY, anatomies={"tube": 1.0}, frames=1, supersample=2))
    np.testing.assert_array_equal(plain.depth.values, fine.depth.values)
    assert not np.array_equal(plain.frame.image, fine.frame.image)


def test_scenes_are_those_of_their_number() -> None:
    settings = settings_of("clean", {**TINY, "anatomies": {"tube": 1.0}, "split": "validation", "first_scene": 4})
    assert settings.scene(2) == SPLITS["validation"] + 6
    a, b = (open_scene(settings, settings.scene(n)).mesh.vertices for n in (0, 1))
    assert a.shape != b.shape or not np.array_equal(a, b)
