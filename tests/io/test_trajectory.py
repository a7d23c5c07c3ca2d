"""TUM trajectories: what is written is read again, and rotations are those of quaternions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from endolux.errors import EndoluxError, InputError, UsageError
from endolux.io.trajectory import quaternions, read_tum, rotations, write_tum


def poses_of(vectors: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(vectors), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(vectors).as_matrix()
    poses[:, :3, 3] = shifts
    return poses


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_quaternions_are_those_of_scipy(vector: list[float]) -> None:
    turn = Rotation.from_rotvec(vector)
    found = quaternions(turn.as_matrix()[None])[0]
    wanted = turn.as_quat(canonical=False)
    assert min(np.abs(found - wanted).max(), np.abs(found + wanted).max()) < 1e-12
    assert found[3] >= 0
    np.testing.assert_allclose(rotations(3.0 * found[None])[0], turn.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns(axis: int) -> None:
    half = Rotation.from_rotvec(np.pi * np.eye(3)[axis]).as_matrix()
    np.testing.assert_allclose(np.abs(quaternions(half[None])[0]), np.eye(4)[axis], atol=1e-15)


def test_round_trip(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    poses = poses_of(generator.normal(size=(50, 3)) * 2, generator.normal(size=(50, 3)) * [1e-4, 1, 1e4])
    times = 1_700_000_000 + np.arange(50) / 30
    write_tum(tmp_path / "t.txt", list(times), poses, comments=["unit mm", "two\nlines"])
    found_times, found = read_tum(tmp_path / "t.txt")
    np.testing.assert_allclose(found_times, times, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[:, :3, 3], poses[:, :3, 3], rtol=1e-9)
    np.testing.assert_allclose(found[:, :3, :3], poses[:, :3, :3], atol=1e-9)
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert lines[:3] == ["# unit mm", "# two lines", "# timestamp tx ty tz qx qy qz qw"]
    assert all(len(line.split()) == 8 for line in lines[3:])
    assert list(tmp_path.iterdir()) == [tmp_path / "t.txt"]
    before = (tmp_path / "t.txt").read_bytes()
    write_tum(tmp_path / "t.txt", list(times), poses, comments=["unit mm", "two\nlines"])
    assert (tmp_path / "t.txt").read_bytes() == before


def test_no_poses(tmp_path: Path) -> None:
    write_tum(tmp_path / "t.txt", [], np.empty((0, 4, 4)))
    times, poses = read_tum(tmp_path / "t.txt")
    assert times.shape == (0,)
    assert poses.shape == (0, 4, 4)


def test_files_of_others_are_read(tmp_path: Path) -> None:
    text = "\ufeff# a comment\n\n1.5,1,2,3,0,0,0.7071068,0.7071068\r\n2.5\t1 2 3  0 0 0 -1\n"
    (tmp_path / "t.txt").write_text(text.lstrip("\ufeff"), encoding="utf-8")
    times, poses = read_tum(tmp_path / "t.txt")
    assert times.tolist() == [1.5, 2.5]
    np.testing.assert_allclose(poses[0, :3, 0], [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(poses[1, :3, :3], np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    "line",
    ["1 2 3", "1 2 3 4 0 0 0 1 9", "0 0 0 0 0 0 0 2", "0 a 0 0 0 0 0 1", "nan 0 0 0 0 0 0 1", "0 0 0 0 0 0 0 0"],
)
def test_bad_lines_are_numbered(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.txt").write_text(f"0 0 0 0 0 0 0 1\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_tum(tmp_path / "t.txt")
    assert caught.value.error_id == "trajectory.format"
    assert "line 2" in caught.value.what


def test_what_is_no_text_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("t.txt", "none.txt", "."):
        with pytest.raises(EndoluxError) as caught:
            read_tum(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("case", ["times", "shape", "nan", "time nan", "scaled", "mirrored"])
def test_impossible_poses_are_not_written(tmp_path: Path, case: str) -> None:
    poses, times = np.tile(np.eye(4), (3, 1, 1)), [0.0, 1.0, 2.0]
    if case == "times":
        times = times[:2]
    elif case == "shape":
        poses = poses[:, :3]
    elif case == "nan":
        poses[1, 0, 3] = np.nan
    elif case == "time nan":
        times[2] = np.nan
    elif case == "scaled":
        poses[1, :3, :3] *= 2
    else:
        poses[1, 0, 0] = -1
    with pytest.raises(UsageError) as caught:
        write_tum(tmp_path / "t.txt", times, poses)
    assert caught.value.error_id == "trajectory.poses"
    assert not list(tmp_path.iterdir())
