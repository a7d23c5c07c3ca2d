"""SimCol3D and ColonDepth, which share file names and differ in bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import codes, cut, key, lit, ramp, save

from endolux.datasets import detect, get_protocol, open_dataset
from endolux.datasets.colondepth import ColonDepthDataset
from endolux.datasets.simcol3d import TEST, SimCol3dDataset, engine_pose
from endolux.errors import InputError

DEPTH = ramp(near=20, far=120)


def write(folder: Path, frames: int = 2, *, sixteen_bit_colour: bool = False) -> Path:
    colour = lit(DEPTH)
    if sixteen_bit_colour:
        wide = colour.astype(np.uint16) * 256
        colour = np.dstack([wide, np.full(DEPTH.shape, 65280, np.uint16)])
    for number in range(frames):
        save(folder / f"FrameBuffer_{number:04d}.png", colour)
        save(folder / f"Depth_{number:04d}.png", (np.rint(DEPTH / 200 * 255) * 256).astype(np.uint16))
    return folder


@pytest.mark.parametrize("wide", [False, True])
def test_depth_and_colour(tmp_path: Path, wide: bool):
    write(tmp_path / "SyntheticColon_I/Frames_S1", sixteen_bit_colour=wide)
    dataset = open_dataset("auto", tmp_path)
    assert dataset.name == "simcol3d"
    assert list(dataset.keys()) == [key("S1", 0), key("S1", 1)]
    sample = dataset.load(key("S1", 1))
    assert sample.depth is not None
    # Half an 8-bit step of 200 mm.
    assert np.abs(sample.depth.values - DEPTH).max() <= 0.5 * 200 / 255 + 1e-4
    np.testing.assert_array_equal(sample.frame.image, lit(DEPTH))
    assert sample.frame.camera is not None
    assert sample.frame.camera.width == 16


def test_zero_is_left_out_and_full_scale_is_checked(tmp_path: Path):
    folder = write(tmp_path / "Frames_O1", 1)
    wrong = np.full(DEPTH.shape, 65535, np.uint16)
    wrong[0] = 0
    save(folder / "Depth_0000.png", wrong)
    dataset = SimCol3dDataset(tmp_path)
    sample = dataset.load(key("O1", 0))
    assert sample.depth is not None
    assert not sample.depth.valid[0].any()
    assert sample.excluded == {"zero": 16}
    assert {"depth.full-scale", "depth.constant", "count.published"} <= codes(dataset.check())


def test_poses_change_hands_and_units(tmp_path: Path):
    write(tmp_path / "SyntheticColon_I/Frames_S1", 2)
    (tmp_path / "SyntheticColon_I/SavedPosition_S1.txt").write_text("0 0 0\n1 2 3\n")
    half = np.sqrt(0.5)
    # A quarter turn about the engine's z; seen with y down it turns the other way.
    (tmp_path / "SyntheticColon_I/SavedRotationQuaternion_S1.txt").write_text(f"0 0 0 1\n0 0 {half} {half}\n")
    pose = SimCol3dDataset(tmp_path).load(key("S1", 1)).pose
    assert pose is not None
    np.testing.assert_allclose(pose[:3, 3], [10, -20, 30])
    np.testing.assert_allclose(pose[:3, :3], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-12)


def test_engine_pose_is_a_rotation():
    pose = engine_pose(np.zeros(3), np.array([0.3, -0.2, 0.5, 0.8]))
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    np.testing.assert_array_equal(engine_pose(np.zeros(3), np.zeros(4)), np.eye(4))


def test_protocol_takes_the_nine_sequences(tmp_path: Path):
    for name in [*TEST, "S1"]:
        write(tmp_path / f"SyntheticColon_X/Frames_{name}", 1)
    protocol = get_protocol("simcol3d")
    chosen = protocol.select(SimCol3dDataset(tmp_path).keys(), None)
    assert [k.sequence for k in chosen] == list(TEST)
    assert (protocol.expected_frames, protocol.unit, protocol.maximum) == (9009, "cm", 20.0)


@pytest.mark.parametrize("flat", [True, False])
def test_colondepth(tmp_path: Path, flat: bool):
    coded = np.rint(DEPTH / 200 * 255).astype(np.uint8)
    coded[0], coded[1] = 0, 1
    names = ("C_T3_L3_2_resized_{}_0007.png", "{}_0007.png")
    folder = tmp_path if flat else tmp_path / "T3_L3"
    name = names[0] if flat else names[1]
    save(folder / name.format("FrameBuffer"), lit(DEPTH))
    save(folder / name.format("Depth"), np.dstack([coded] * 3))
    dataset = open_dataset("auto", tmp_path)
    assert dataset.name == "colondepth"
    sample = dataset.load(dataset.keys()[0])
    assert sample.key == key("T3_L3/2" if flat else "T3_L3", 7)
    assert sample.depth is not None
    np.testing.assert_allclose(sample.depth.values[2:], coded[2:] / 255 * 200, rtol=1e-6)
    assert not sample.depth.valid[:2].any()
    assert sample.excluded == {"near": 16}
    assert get_protocol("colondepth-t3l3").select(dataset.keys(), None) == [sample.key]


def test_255_is_20_cm(tmp_path: Path):
    save(tmp_path / "T1_L1_1_resized_FrameBuffer_0000.png", lit(DEPTH))
    save(tmp_path / "T1_L1_1_resized_Depth_0000.png", np.full(DEPTH.shape, 255, np.uint8))
    depth = ColonDepthDataset(tmp_path).load(key("T1_L1/1", 0)).depth
    assert depth is not None
    assert depth.at(0, 0) == 200.0


def test_bits_tell_the_two_apart(tmp_path: Path):
    write(tmp_path / "T1_L1", 1)
    assert detect(tmp_path) == "simcol3d"
    with pytest.raises(InputError) as caught:
        ColonDepthDataset(tmp_path).load(key("T1_L1", 0))
    assert caught.value.error_id == "dataset.depth-bits"
    assert "simcol3d" in caught.value.fix
    eight = tmp_path / "eight"
    save(eight / "T1_L1/FrameBuffer_0000.png", lit(DEPTH))
    save(eight / "T1_L1/Depth_0000.png", DEPTH.astype(np.uint8))
    with pytest.raises(InputError) as caught:
        SimCol3dDataset(eight).load(key("T1_L1", 0))
    assert caught.value.error_id == "dataset.depth-bits"


def test_damage(tmp_path: Path):
    folder = write(tmp_path / "Frames_S1", 2)
    cut(folder / "Depth_0000.png")
    (folder / "Depth_0001.png").unlink()
    dataset = SimCol3dDataset(tmp_path)
    with pytest.raises(InputError) as caught:
        dataset.load(key("S1", 0))
    assert caught.value.error_id == "input.truncated"
    assert {"input.truncated", "depth.missing"} <= codes(dataset.check())
    save(folder / "Depth_0000.png", np.zeros((3, 4), np.uint16))
    with pytest.raises(InputError) as caught:
        dataset.load(key("S1", 0))
    assert caught.value.error_id == "dataset.size"
    for reader in (SimCol3dDataset, ColonDepthDataset):
        with pytest.raises(InputError) as caught:
            reader(folder / "FrameBuffer_0000.png")
        assert caught.value.error_id == "input.not-a-folder"
