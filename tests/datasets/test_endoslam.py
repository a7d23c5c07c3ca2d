"""UnityCam of EndoSLAM: coarse depth of unknown sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import codes, key, lit, ramp, save

from endolux.datasets import get_protocol, open_dataset, protocols
from endolux.datasets.endoslam import EndoslamUnityDataset, Polarity, polarity_test
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.types import DepthKind

DEPTH = ramp(near=10, far=60)
STEPS = np.rint(DEPTH).astype(np.uint8)
INVERSE = np.rint(600 / DEPTH).astype(np.uint8)


def rgba(plane: np.ndarray) -> np.ndarray:
    return np.dstack([plane, plane, plane, np.full_like(plane, 255)])


def write(organ: Path, stored: np.ndarray, numbers=range(3), *, depths: str = "Pixelwise Depths") -> Path:
    for number in numbers:
        save(organ / f"Frames/image_{number:04d}.png", lit(DEPTH))
        save(organ / depths / f"aov_image_{number:04d}.png", rgba(stored))
    return organ


def test_polarity_is_measured_and_undone(tmp_path: Path):
    write(tmp_path / "UnityCam/Stomach", INVERSE)
    write(tmp_path / "UnityCam/Small Intestine", STEPS)
    dataset = open_dataset("auto", tmp_path)
    assert dataset.name == "endoslam-unity"
    assert isinstance(dataset, EndoslamUnityDataset)
    assert dataset.polarity("stomach").polarity is Polarity.INVERSE
    assert dataset.polarity("small intestine").polarity is Polarity.DEPTH
    for organ in ("stomach", "small intestine"):
        depth = dataset.load(key(organ, 0)).depth
        assert depth is not None
        assert depth.kind is DepthKind.RELATIVE_DEPTH
        scaled = depth.values * np.median(DEPTH) / np.median(depth.values)
        assert np.abs(scaled / DEPTH - 1).max() < 0.1
    findings = dataset.check()
    assert sum("inverse" in f.message for f in findings if f.code == "depth.polarity") == 1


def test_unclear_polarity_stops(tmp_path: Path):
    noise = np.random.default_rng(0).integers(1, 60, DEPTH.shape).astype(np.uint8)
    write(tmp_path / "Colon", noise, [0])
    dataset = EndoslamUnityDataset(tmp_path)
    dataset._tests["colon"] = polarity_test([0.05, -0.02])
    with pytest.raises(InputError) as caught:
        dataset.load(key("colon", 0))
    assert caught.value.error_id == "endoslam.polarity"
    assert any(f.code == "depth.polarity" and f.severity == "error" for f in dataset.check())
    given = EndoslamUnityDataset(tmp_path, polarity=Polarity.DEPTH).load(key("colon", 0)).depth
    assert given is not None
    np.testing.assert_array_equal(given.values, noise)


@pytest.mark.parametrize(
    ("correlations", "verdict"),
    [
        ([0.4, 0.2], "inverse"),
        ([-0.4, -0.2], "depth"),
        ([0.09], "unclear"),
        ([], "unclear"),
        ([np.nan, 0.5], "inverse"),
    ],
)
def test_polarity_verdicts(correlations: list[float], verdict: str):
    assert polarity_test(correlations).polarity.value == verdict


def test_numbers_sort_by_value_and_zero_is_invalid(tmp_path: Path):
    stored = STEPS.copy()
    stored[0] = 0
    write(tmp_path / "Stomach", stored, [9999, 10000, 2], depths="Pixelwise_Depths")
    dataset = EndoslamUnityDataset(tmp_path)
    assert [k.index for k in dataset.keys()] == [2, 9999, 10000]  # noqa: SIM118
    depth = dataset.load(key("stomach", 10000)).depth
    assert depth is not None
    assert not depth.valid[0].any()
    assert depth.valid[1:].all()


def test_coarse_values_can_be_left_out(tmp_path: Path):
    stored = STEPS.copy()
    stored[0, :4] = [0, 1, 4, 5]
    write(tmp_path / "Stomach", stored)
    sample = open_dataset("endoslam-unity-fine", tmp_path).load(key("stomach", 0))
    assert sample.depth is not None
    assert sample.depth.valid[0, :4].tolist() == [False, False, False, True]
    assert sample.excluded == {"coarse": 2}


def test_camera_and_poses(tmp_path: Path):
    write(tmp_path / "UnityCam/Stomach", STEPS, range(2))
    calibration = tmp_path / "UnityCam/Calibration/cam.txt"
    calibration.parent.mkdir()
    calibration.write_text("156.0418 0 178.5604\n0 155.7529 181.8043\n0 0 1")
    poses = tmp_path / "UnityCam/Stomach/Poses/stomach_position_rotation.csv"
    poses.parent.mkdir()
    poses.write_text("tX,tY,tZ,rX,rY,rZ,rW,time\n1,2,3,0,0,0,1,0.0\n4,5,")
    dataset = EndoslamUnityDataset(tmp_path)
    first = dataset.load(key("stomach", 0))
    assert first.frame.camera is not None
    assert first.frame.camera.fx == pytest.approx(156.0418 * 16 / 320)
    assert first.pose is not None
    assert first.pose[:3, 3].tolist() == [1, -2, 3]
    assert dataset.load(key("stomach", 1)).pose is None
    assert len(dataset.files(key("stomach", 0))) == 4


def test_sixteen_bits_are_refused(tmp_path: Path):
    organ = write(tmp_path / "Stomach", STEPS, [0])
    save(organ / "Pixelwise Depths/aov_image_0000.png", DEPTH.astype(np.uint16))
    dataset = EndoslamUnityDataset(tmp_path, polarity=Polarity.DEPTH)
    with pytest.raises(InputError) as caught:
        dataset.load(key("stomach", 0))
    assert caught.value.error_id == "dataset.depth-bits"
    assert "count.published" in codes(EndoslamUnityDataset(write(tmp_path / "b/Colon", STEPS)).check())


def test_protocols_carry_the_constant_row():
    named = {name: p for name, p in protocols().items() if name.startswith("endoslam-unity")}
    assert len(named) == 6
    assert all(p.baselines == ("constant",) for p in named.values())
    assert get_protocol("endoslam-unity-p0").reproduce == ("disparity-as-depth",)
    assert get_protocol("endoslam-unity-p1").reproduce == ("inverse-disparity-as-depth",)
    assert get_protocol("endoslam-unity-p2").alignment is Alignment.SCALE_SHIFT_DISPARITY
