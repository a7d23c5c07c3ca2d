"""Every layout read back by the reader of its data set: the reader is the oracle."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from phantom_known import planes

pytest.importorskip("numba")

from endolux import datasets
from endolux.datasets.base import FrameKey, Sample, Severity
from endolux.datasets.c3vd import C3vdDataset, omnidirectional_as_fisheye
from endolux.datasets.l3d import L3dDataset
from endolux.datasets.servct import ServCT
from endolux.datasets.simcol3d import CAMERA as SIMCOL3D_CAMERA
from endolux.errors import UsageError
from endolux.evaluate.protocol_run import run_protocol
from endolux.geometry.cameras import project
from endolux.phantom import write
from endolux.phantom.layouts import get_layout, names
from endolux.phantom.layouts.base import engine_numbers
from endolux.phantom.layouts.l3d import polylines
from endolux.phantom.presets import PRESETS, StreamSettings
from endolux.phantom.streams import Shot, shots
from endolux.phantom.write import layout_settings, write_layout
from endolux.types import DepthKind, DepthMap, Frame

SMALL = {"frames": 4, "sequence_frames": 2, "width": 64, "height": 48, "seed": 5, "anatomies": {"colon": 1.0}}
OWN: dict[str, dict[str, object]] = {
    "endoslam-unity": {"anatomies": {"colon": 1.0}, "sequence_frames": 4},
    # A stereo laparoscope does not fit into a bowel: its second lens would lie in the wall.
    "servct": {"sequence_frames": 8, "anatomies": {"laparoscopy": 1.0}},
    # Depth in whole millimetres, and distances that are plausible in an abdomen.
    "hamlyn": {"anatomies": {"laparoscopy": 1.0}},
    "scared": {"anatomies": {"laparoscopy": 1.0}},
    "scared-raw": {"anatomies": {"laparoscopy": 1.0}},
}
RELATIVE = {"endoslam-unity": 1000.0}
"""What a stored value times depth makes, where depth has no unit."""
TOLERANCE_MM = {
    "folder": 0.0,
    "scared": 0.0,
    "scared-raw": 0.0,
    "c3vd": 100 / 65535,
    "simcol3d": 0.5 * 200 / 65280,
    "hamlyn": 0.5,
    "servct": 0.5 / 256,
    "colondepth": 0.5 * 200 / 255,
}
LARGEST_MM = {"c3vd": 100.0, "simcol3d": 200.0, "servct": 255.9, "colondepth": 200.0}
SCARED = {"scared", "scared-raw"}
LARGEST_CHANGE = {"hamlyn": 6, "scared-raw": 90}
"""Of a compressed picture, in codes."""
WITH_POSE = {"folder", "scared", "scared-raw", "c3vd", "simcol3d", "endoslam-unity"}
WITHOUT_CAMERA = {"c3vd", "colondepth", "l3d"}


def settings_for(name: str, **changes: object) -> StreamSettings:
    return layout_settings(get_layout(name), {**SMALL, **OWN.get(name, {}), **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, list[Shot]]]:
    """Folder and true shots of every layout."""
    found = {}
    for name in names():
        settings, layout = settings_for(name), get_layout(name)
        folder = tmp_path_factory.mktemp(name.replace("-", "")) / "set"
        assert write_layout(settings, folder, layout) == 4
        truth = [
            dataclasses.replace(shot, sequence=number)
            for number in range(settings.sequences)
            for shot in write.sequence(layout.narrowed(number, settings), number)
        ]
        found[name] = folder, truth
    return found


def samples_of(name: str, folder: Path, side: str = "left") -> list[Sample]:
    data = datasets.open_dataset(get_layout(name).reader, folder)
    stills = name in SCARED
    keys = [key for key in [*data.keys()] if key.side in ("", side) and not (stills and key.index == 0)]
    return [data.load(key) for key in keys]


def check_depth(name: str, depth: DepthMap | None, truth: DepthMap) -> None:
    assert depth is not None
    inside = truth.valid & (truth.values < LARGEST_MM.get(name, np.inf))
    near = {"hamlyn": 0.5, "colondepth": 1.4}.get(name, 0.0)
    inside &= truth.values > near
    if name in RELATIVE:
        inside &= truth.values > RELATIVE[name] / 255
        code = 1.0 / depth.values[inside]
        assert depth.kind is DepthKind.RELATIVE_DEPTH
        np.testing.assert_allclose(code, RELATIVE[name] / truth.values[inside], atol=0.5001)
    else:
        assert depth.kind is DepthKind.METRIC
        np.testing.assert_allclose(
            depth.values[inside], truth.values[inside], atol=TOLERANCE_MM[name] * 1.001, rtol=1e-6
        )
    np.testing.assert_array_equal(depth.valid & inside, inside)
    assert not depth.valid[~truth.valid].any()


@pytest.mark.parametrize("name", [name for name in names() if name != "l3d"])
def test_reader_finds_picture_depth_camera_and_pose(name: str, written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    folder, truth = written[name]
    samples = samples_of(name, folder)
    assert len(samples) == len(truth) == 4
    home = {shot.sequence: np.linalg.inv(shot.pose) for shot in truth if shot.position == 0}
    for sample, shot in zip(samples, truth, strict=True):
        difference = sample.frame.image.astype(int) - shot.frame.image
        assert np.abs(difference).max() <= LARGEST_CHANGE.get(name, 0)
        assert np.abs(difference).mean() < 3
        check_depth(name, sample.depth, shot.depth)
        if name in WITHOUT_CAMERA:
            assert sample.frame.camera is None
        elif name == "endoslam-unity":
            camera = sample.frame.camera
            assert camera is not None
            np.testing.assert_allclose(camera.matrix, shot.camera.matrix, rtol=1e-12)
        else:
            assert sample.frame.camera == shot.camera
        if name in WITH_POSE:
            # SCARED has the keyframe's camera for its world.
            pose = home[shot.sequence] @ shot.pose if name in SCARED else shot.pose
            np.testing.assert_allclose(sample.pose, pose, atol=1e-9)
        else:
            assert sample.pose is None


@pytest.mark.parametrize("name", names())
def test_check_and_detection_find_nothing_but_counts(name: str, written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    folder, _ = written[name]
    assert datasets.detect(folder) == get_layout(name).reader
    findings = datasets.open_dataset("auto", folder).check()
    odd = [f for f in findings if f.severity is not Severity.INFO and not f.code.startswith("count.")]
    assert odd == []


@dataclasses.dataclass
class Perfect:
    """Gives back the true depth."""

    depths: dict[str, DepthMap]
    name: str = "perfect"
    kind: DepthKind = DepthKind.METRIC
    provenance: Mapping[str, str | float | None] = dataclasses.field(default_factory=dict)

    def predict(self, name: str, frame: Frame) -> DepthMap:
        del frame
        return self.depths[name]


PROTOCOL_OF = {
    "folder": ("folder", 1e-6),
    "scared": ("scared-keyframes", 1e-6),
    "scared-raw": ("scared-keyframes", 1e-6),
    "c3vd": ("c3vd", 1e-3),
    "simcol3d": ("simcol3d-any", 1e-3),
    "endoslam-unity": ("endoslam-unity", 0.05),
    "hamlyn": ("hamlyn-edm", 0.05),
    "servct": ("servct-endoomni", 2e-3),
    "colondepth": ("colondepth", 0.05),
}


@pytest.mark.parametrize("name", sorted(PROTOCOL_OF))
def test_protocol_scores_the_truth_as_perfect(name: str, written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    folder, truth = written[name]
    protocol = datasets.get_protocol(PROTOCOL_OF[name][0])
    data = datasets.open_dataset(protocol.dataset, folder)
    depths: dict[str, DepthMap] = {}
    for sample, shot in zip(samples_of(name, folder), truth, strict=True):
        depths[str(sample.key)] = shot.depth
    for sample, shot in zip(samples_of(name, folder, "right"), truth, strict=name == "hamlyn"):
        if sample.key.side == "right" and shot.right is not None:
            depths[str(sample.key)] = shot.right.depth
    if name in SCARED:
        first = [shot for shot in truth if shot.position == 0]
        stills = [key for key in [*data.keys()] if key.index == 0]
        depths |= {str(key): shot.depth for key, shot in zip(stills, first, strict=True)}
    keys = protocol.select(data.keys(), None)
    kind = DepthKind.RELATIVE_DEPTH if name in RELATIVE else DepthKind.METRIC
    depths = {name: dataclasses.replace(depth, kind=kind) for name, depth in depths.items()}
    result = run_protocol(Perfect(depths, kind=kind), data, protocol, keys)
    assert not result.failures
    for frame in result.frames:
        assert frame.measured.metrics["abs_rel"] < PROTOCOL_OF[name][1]


def test_the_released_form_holds_what_the_extracted_one_holds(
    written: Mapping[str, tuple[Path, list[Shot]]], tmp_path: Path
) -> None:
    folder, truth = written["scared-raw"]
    kept = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    home = "dataset_1/keyframe_1"
    parts = ["data/frame_data.tar.gz", "data/rgb.mp4", "data/scene_points.tar.gz", "endoscope_calibration.yaml"]
    stills = ["Left_Image.png", "Right_Image.png", "left_depth_map.tiff", "right_depth_map.tiff"]
    assert [name for name in kept if name.startswith(home)] == sorted(f"{home}/{name}" for name in parts + stills)
    data = datasets.open_dataset("scared", folder)
    extracted = datasets.open_dataset("scared", written["scared"][0])
    assert data.keys() == extracted.keys()
    assert {sequence.layout for sequence in data.sequences.values()} == {"raw"}  # type: ignore[attr-defined]
    for key in data.keys():  # noqa: SIM118 -- a method, not a mapping
        one, other = data.load(key), extracted.load(key)
        assert one.depth is not None
        assert other.depth is not None
        assert one.depth.values.tobytes() == other.depth.values.tobytes()
        assert one.frame.camera == other.frame.camera
        np.testing.assert_array_equal(one.pose, other.pose)
        if key.index == 0:
            np.testing.assert_array_equal(one.frame.image, other.frame.image)
    again = tmp_path / "again"
    settings = settings_for("scared-raw")
    write_layout(settings, again, get_layout("scared-raw"))
    for name in kept:
        if not name.startswith("."):
            assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    assert len(truth) == 4


def test_the_released_form_needs_an_even_width() -> None:
    with pytest.raises(UsageError, match="65 wide") as caught:
        settings_for("scared-raw", width=65, height=48)
    assert caught.value.error_id == "phantom.layout-settings"


def test_c3vd_at_its_own_size_has_its_own_camera() -> None:
    camera = PRESETS["c3vd-like"].settings["scope"]["camera"]["fixed"]  # type: ignore[index]
    reader = omnidirectional_as_fisheye()
    ours = layout_settings(get_layout("c3vd"), {"frames": 1}).scope.camera
    assert ours is not None
    assert ours.fixed is not None
    made = ours.fixed.at(1350, 1080)
    assert camera["width"] == reader.width
    assert made.model is reader.model
    np.testing.assert_allclose(made.matrix, reader.matrix, rtol=1e-7)
    np.testing.assert_allclose(made.distortion, reader.distortion, rtol=1e-6)


def test_c3vd_beyond_its_range_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for("c3vd", frames=1)
    [shot] = planes(settings, 0)
    deep = dataclasses.replace(shot.depth, values=(2.0 * shot.depth.values).astype(np.float32))
    shot = dataclasses.replace(shot, truth=dataclasses.replace(shot.truth, depth=deep))
    monkeypatch.setattr(write, "sequence", lambda _settings, _number: iter([shot]))
    write_layout(settings, tmp_path / "set", get_layout("c3vd"))
    far = shot.depth.values >= 100.0
    sample = C3vdDataset(tmp_path / "set").load(FrameKey(sequence="cecum_t1_a", index=0))
    assert 0 < far.sum() < far.size
    assert sample.excluded == {"capped": int(far.sum())}
    assert sample.depth is not None
    np.testing.assert_array_equal(sample.depth.valid, ~far)


def test_simcol3d_camera_is_the_readers() -> None:
    ours = layout_settings(get_layout("simcol3d"), {"frames": 1}).scope.camera
    assert ours is not None
    assert ours.fixed is not None
    assert ours.fixed.at(475, 475) == SIMCOL3D_CAMERA


def test_stereo_pairs_agree(written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    folder, truth = written["servct"]
    data = ServCT(folder)
    for shot in truth:
        key = FrameKey(sequence="Experiment_1", index=shot.position + 1, side="left")
        assert data.baseline_mm(key) == pytest.approx(5.0)
        both = shot.depth.valid & (shot.depth.values > 20)
        by_disparity = data.depth_of_disparity(key)
        share = by_disparity[both] / shot.depth.values[both]
        # Half a code of disparity, at f b / d2.
        np.testing.assert_allclose(share, 1.0, atol=0.01)
        left = data.load(key)
        right = data.load(dataclasses.replace(key, side="right"))
        assert right.depth is not None
        assert left.depth is not None
        assert shot.right is not None
        visible = left.labels["occlusion"] == 0
        camera = shot.camera
        disparity = camera.fx * 5.0 / np.maximum(shot.depth.values, 1e-3)
        columns = np.arange(camera.width)[None] - disparity
        # Nearest samples miss by a pixel at edges of depth.
        kernel = np.ones((3, 3), np.uint8)
        flat = cv2.dilate(shot.depth.values, kernel) < 1.2 * cv2.erode(shot.depth.values, kernel)
        inside = visible & flat & shot.depth.valid & (columns > 0) & (columns < camera.width - 1)
        rows = np.broadcast_to(np.arange(camera.height)[:, None], columns.shape)
        there = cv2.remap(
            shot.right.depth.values, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_NEAREST
        )
        close = np.abs(there[inside] / shot.depth.values[inside] - 1) < 0.05
        assert inside.sum() > 200
        assert close.mean() > 0.93
        hidden = left.labels["occlusion"] == 2
        np.testing.assert_array_equal(hidden & (columns > 0), False)


def test_hamlyn_right_pictures_and_depth(written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    folder, truth = written["hamlyn"]
    for sample, shot in zip(samples_of("hamlyn", folder, "right"), truth, strict=True):
        assert shot.right is not None
        check_depth("hamlyn", sample.depth, shot.right.depth)
        assert np.abs(sample.frame.image.astype(int) - shot.right.frame.image).max() <= 6


def test_scared_points_project_to_their_pixels(written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    from endolux.datasets.scared_points import read_points

    folder, truth = written["scared"]
    path = folder / "dataset_1" / "keyframe_1" / "data" / "scene_points" / "scene_points000001.tiff"
    points = read_points(path.read_bytes(), "x")
    assert points.shape == (96, 64, 3)
    shot = truth[1]
    valid = shot.depth.valid
    pixels = project(points[:48][valid].astype(np.float64), shot.camera)
    rows, columns = np.nonzero(valid)
    np.testing.assert_allclose(pixels, np.stack([columns, rows], 1), atol=0.02)
    assert shot.right is not None
    np.testing.assert_array_equal(points[48:, :, 2], np.where(shot.right.depth.valid, shot.right.depth.values, 0))
    np.testing.assert_array_equal(points[:48][~valid], 0)


def test_endoslam_sequences_are_the_organs() -> None:
    changes = {"frames": 6, "width": 48, "height": 32, "seed": 2}
    settings = layout_settings(get_layout("endoslam-unity"), changes)
    assert (settings.sequences, settings.sequence_frames) == (3, 2)
    seen = [get_layout("endoslam-unity").narrowed(number, settings).anatomies for number in range(3)]
    assert seen == [{"stomach": 1.0}, {"small-intestine": 1.0}, {"colon": 1.0}]
    names_ = [get_layout("endoslam-unity").sequence(number, settings) for number in range(3)]
    assert names_ == ["stomach", "small intestine", "colon"]
    with pytest.raises(UsageError, match="anatomy 'tube'"):
        layout_settings(get_layout("endoslam-unity"), {**changes, "anatomies": {"tube": 1.0}})
    with pytest.raises(UsageError, match="3 sequences of 1 organ"):
        layout_settings(get_layout("endoslam-unity"), {**changes, "anatomies": {"colon": 1}, "sequence_frames": 2})


def drawn_lines(width: int, height: int, position: int) -> np.ndarray:
    canvas = np.zeros((height, width), np.uint8)
    thick = round(30 * height / 1080)
    ridge = np.array([[8, 0.7 * height], [0.4 * width, 0.5 * height], [0.9 * width, 0.6 * height]])
    ridge[:, 1] -= 5 * position
    cv2.polylines(canvas, [np.array([[0.5 * width, 5], [0.6 * width, 0.4 * height]], np.int32)], False, 3, thick)
    cv2.polylines(canvas, [ridge.astype(np.int32)], False, 1, thick)
    return canvas


def test_l3d_landmarks_come_back_as_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {**SMALL, "frames": 3, "views_per_scene": 3, "width": 320, "height": 180, "split": "test"}
    settings = layout_settings(get_layout("l3d"), changes)
    truth = [
        dataclasses.replace(shot, truth=dataclasses.replace(shot.truth, lines=drawn_lines(320, 180, shot.position)))
        for shot in shots(settings)
    ]
    truth[2] = dataclasses.replace(truth[2], truth=dataclasses.replace(truth[2].truth, lines=None))
    monkeypatch.setattr(write, "sequence", lambda _settings, _number: iter(truth))
    write_layout(settings, tmp_path / "set", get_layout("l3d"))
    data = datasets.open_dataset("l3d", tmp_path / "set")
    assert isinstance(data, L3dDataset)
    for sample, shot in zip(data.samples(), truth, strict=True):
        assert sample.key == FrameKey(sequence="Test/Patient_0001", index=shot.position)
        assert np.abs(sample.frame.image.astype(int) - shot.frame.image).max() <= 6
        found, drawn = sample.labels["landmarks"], shot.truth.lines
        if drawn is None:
            assert not found.any()
        else:
            assert set(np.unique(found)) == {0, 1, 3}
            same = np.count_nonzero((found == drawn) & (drawn > 0))
            assert same / np.count_nonzero((found > 0) | (drawn > 0)) > 0.85
        pseudo = data.pseudo_depth(sample.key)
        assert pseudo is not None
        assert pseudo.max() == 255
        nearest = np.where(shot.depth.valid, shot.depth.values, np.inf).argmin()
        assert pseudo.reshape(-1)[nearest] == 255


def test_polylines_of_known_shapes_are_their_middles() -> None:
    canvas = np.zeros((270, 480), np.uint8)
    truth = np.array([[60, 200], [150, 90], [300, 120], [420, 60]])
    cv2.polylines(canvas, [truth.astype(np.int32)], False, 3, 8)
    cv2.circle(canvas, (100, 60), 30, 2, 8)
    again = np.zeros_like(canvas)
    for landmark, points in polylines(canvas):
        cv2.polylines(again, [np.rint(points).astype(np.int32)], False, int(landmark), 8)
    same = np.count_nonzero((again == canvas) & (canvas > 0)) / np.count_nonzero((again > 0) | (canvas > 0))
    assert same > 0.9
    assert {landmark.value for landmark, _ in polylines(canvas)} == {2, 3}
    assert polylines(np.zeros((20, 20), np.uint8)) == []


def test_l3d_names_do_not_look_like_4k_frames() -> None:
    from endolux.datasets.l3d import FOUR_K_MARKS

    layout, settings = get_layout("l3d"), layout_settings(get_layout("l3d"), {"frames": 8 * 400})
    for number in range(400):
        name = f"{layout.sequence(number, settings)}_{7:05d}"
        assert not any(mark in name for mark in FOUR_K_MARKS)


def test_engine_numbers_invert_the_readers_convention() -> None:
    from endolux.datasets.simcol3d import engine_pose

    rng = np.random.default_rng(0)
    for _ in range(50):
        turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        pose = np.eye(4)
        pose[:3, :3] = turn * np.sign(np.linalg.det(turn))
        pose[:3, 3] = rng.normal(0, 50, 3)
        np.testing.assert_allclose(engine_pose(*engine_numbers(pose)), pose, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("scared", {"width": 48, "height": 64}, "48x64"),
        ("scared", {"baseline_mm": None}, "one lens"),
        ("scared", {"scope": {"camera": {"models": {"fisheye": 1}}}}, "these cameras"),
        ("servct", {"views_per_scene": 5}, "5 pairs"),
        ("c3vd", {"scope": {"camera": {"fixed": None}}}, "this camera"),
        ("simcol3d", {"scope": {"camera": {"fixed": None}}}, "this camera"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(name: str, changes: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        layout_settings(get_layout(name), {"frames": 4, **changes})
    assert caught.value.error_id == "phantom.layout-settings"


def test_constants_are_those_of_the_readers() -> None:
    from endolux.datasets import colondepth, scared_layouts, servct, simcol3d
    from endolux.phantom.layouts import colondepth as own_colondepth
    from endolux.phantom.layouts import servct as own_servct
    from endolux.phantom.layouts import simcol3d as own_simcol3d

    assert own_servct.CODES_PER_UNIT == servct.CODES_PER_UNIT
    assert own_simcol3d.FULL_SCALE == simcol3d.FULL_SCALE
    assert own_simcol3d.MM_AT_FULL_SCALE == simcol3d.MM_AT_FULL_SCALE
    assert own_colondepth.MM_AT_FULL_SCALE == colondepth.MM_AT_FULL_SCALE
    assert "extracted" in scared_layouts.LAYOUTS


def test_manifest_says_what_was_written(written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    import hashlib

    for name, (folder, _) in written.items():
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["layout"], manifest["frames"], manifest["seed"], manifest["split"]) == (name, 4, 5, "train")
        assert manifest["settings"]["width"] == 64
        assert sum(entry["frames"] for entry in manifest["sequences"]) == 4
        present = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and ".phantom" not in path.parts and path.name not in ("manifest.json", "settings.json")
        }
        assert set(manifest["files"]) == present
        for path, digest in manifest["files"].items():
            assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest


def test_flow_normals_and_labels_of_the_folder(written: Mapping[str, tuple[Path, list[Shot]]]) -> None:
    folder, truth = written["folder"]
    for shot in truth:
        name = f"{shot.frame.name}.png"
        normals = cv2.imread(str(folder / "normals" / name), cv2.IMREAD_UNCHANGED)[..., ::-1]
        np.testing.assert_allclose(normals / 32767.0 - 1.0, shot.truth.normals, atol=2e-5)
        np.testing.assert_array_equal(cv2.imread(str(folder / "labels" / name), -1), shot.truth.labels)
        np.testing.assert_array_equal(cv2.imread(str(folder / "valid" / name), -1) > 0, shot.depth.valid)
        # Stills have no next frame.
        assert not (folder / "flow").exists()
