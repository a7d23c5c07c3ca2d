"""Point clouds on disk."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from endolux.errors import DeviceError, UsageError
from endolux.io.ply import write_ply


def read_back(path: Path) -> tuple[list[str], np.ndarray]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    types = {"float": "<f4", "uchar": "u1"}
    fields = [(line.split()[2], types[line.split()[1]]) for line in lines if line.startswith("property")]
    return lines, np.frombuffer(body, np.dtype(fields))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)),
    coloured=st.booleans(),
)
def test_round_trip(tmp_path: Path, points: np.ndarray, coloured: bool) -> None:
    colours = (np.arange(points.size) % 256).astype(np.uint8).reshape(points.shape) if coloured else None
    write_ply(tmp_path / "a.ply", points, colours, comments=["unit mm", "two\nlines ü"])
    lines, rows = read_back(tmp_path / "a.ply")
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "comment unit mm"]
    assert f"element vertex {len(points)}" in lines
    assert len(rows) == len(points)
    for column, axis in enumerate("xyz"):
        assert np.array_equal(rows[axis], points[:, column])
    if colours is not None:
        for column, channel in enumerate(("red", "green", "blue")):
            assert np.array_equal(rows[channel], colours[:, column])
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_large_clouds_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endolux.io.ply._CHUNK", 7)
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    write_ply(tmp_path / "a.ply", points)
    _, rows = read_back(tmp_path / "a.ply")
    assert np.array_equal(rows["y"], points[:, 1])


@pytest.mark.parametrize(
    ("points", "colours"),
    [
        (np.zeros((3, 2), np.float32), None),
        (np.zeros(3, np.float32), None),
        (np.full((3, 3), np.nan, np.float32), None),
        (np.zeros((3, 3), np.float32), np.zeros((2, 3), np.uint8)),
        (np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32)),
    ],
)
def test_impossible_clouds(tmp_path: Path, points: np.ndarray, colours: np.ndarray | None) -> None:
    with pytest.raises(UsageError) as caught:
        write_ply(tmp_path / "a.ply", points, colours)
    assert caught.value.error_id == "ply.points"
    assert not list(tmp_path.iterdir())


def test_disk_full_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.ply").write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DeviceError) as caught:
        write_ply(tmp_path / "a.ply", np.zeros((3, 3), np.float32))
    assert caught.value.error_id == "device.disk-full"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.ply", "old")]
