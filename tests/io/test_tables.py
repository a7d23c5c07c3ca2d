"""Whole-or-absent files, JSON and frames.csv."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from endolux.errors import DeviceError, InputError, UsageError
from endolux.io.tables import (
    COLUMNS,
    STATUS_EMPTY,
    FrameRow,
    FramesCsv,
    atomic_path,
    depth_statistics,
    make_output_folder,
    read_frames_csv,
    write_json_atomic,
)
from endolux.types import DepthKind, DepthMap


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def depth(values: np.ndarray, valid: np.ndarray | None = None) -> DepthMap:
    values = np.asarray(values, np.float32)
    return DepthMap(values=values, kind=DepthKind.METRIC, valid=np.ones(values.shape, bool) if valid is None else valid)


def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_disk_full_is_a_device_error_with_exit_code_8(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError) as caught:
        write_json_atomic(tmp_path / "meta.json", {"a": 1})
    assert (caught.value.error_id, caught.value.exit_code) == ("device.disk-full", 8)
    assert names(tmp_path) == []


def test_json_refuses_nan_and_objects(tmp_path):
    for content in ({"a": math.nan}, {"a": object()}):
        with pytest.raises(UsageError) as caught:
            write_json_atomic(tmp_path / "run.json", content)
        assert caught.value.error_id == "output.json"
    assert names(tmp_path) == []


def test_json_keeps_unicode_and_undecodable_names(tmp_path):
    name = os.fsdecode(b"bl\xff.png") + " ähre"
    write_json_atomic(tmp_path / "run.json", {"name": name})
    assert json.loads((tmp_path / "run.json").read_text("utf-8", "surrogateescape"))["name"] == name


def test_output_path_that_is_a_file_or_inside_one(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError) as caught:
            make_output_folder(path)
        assert (caught.value.error_id, caught.value.exit_code) == ("output.is-file", 2)


def test_unwritable_folder(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError) as caught:
        make_output_folder(tmp_path / "new")
    assert caught.value.error_id == "output.not-writable"


def test_statistics_use_valid_pixels_only():
    values = np.array([[1, 2, 3], [4, 1000, np.nan]], np.float32)
    valid = np.array([[1, 1, 1], [1, 0, 0]], bool)
    got = depth_statistics(depth(values, valid))
    assert (got.minimum, got.median, got.maximum) == (1.0, 2.5, 4.0)
    assert got.valid_fraction == pytest.approx(4 / 6)


def test_statistics_of_nothing_are_nan_never_zero():
    got = depth_statistics(depth(np.ones((3, 3)), np.zeros((3, 3), bool)))
    assert math.isnan(got.minimum)
    assert math.isnan(got.median)
    assert math.isnan(got.maximum)
    assert got.valid_fraction == 0.0


def test_median_of_a_large_map_with_a_single_valid_pixel():
    valid = np.zeros((700, 900), bool)
    valid[333, 777] = True
    assert depth_statistics(depth(np.full((700, 900), 7.0), valid)).median == 7.0


def test_median_of_a_large_map_is_close_to_the_exact_one():
    values = np.random.default_rng(0).gamma(3, 20, (720, 1280)).astype(np.float32)
    assert depth_statistics(depth(values)).median == pytest.approx(np.median(values), rel=0.01)


def rows(count: int) -> list[FrameRow]:
    names = ["plain", "with, comma", 'quote "q"', "ünï", "-dash", os.fsdecode(b"raw\xff"), "new\nline"]
    return [
        FrameRow.of_depth(i, names[i % len(names)], depth([[i + 1.0]]), pts_s=i / 25, file=f"depth/{i:06d}.png")
        for i in range(count)
    ]


def test_csv_round_trip_with_awkward_names_and_failures(tmp_path):
    path = tmp_path / "frames.csv"
    wanted = [
        *rows(7),
        FrameRow(index=7, name="bad.jpg", status="input.truncated"),
        FrameRow.of_depth(8, "black", depth([[1.0]], np.zeros((1, 1), bool))),
    ]
    with FramesCsv(path) as table:
        for row in wanted:
            table.write(row)
    assert path.read_text("utf-8", "surrogateescape").splitlines()[0] == ",".join(COLUMNS)
    got = list(read_frames_csv(path))
    assert [(r.index, r.name, r.status, r.file, r.pts_s) for r in got] == [
        (r.index, r.name, r.status, r.file, r.pts_s) for r in wanted
    ]
    assert got[7].failed
    assert not got[8].failed
    assert got[8].status == STATUS_EMPTY
    assert math.isnan(got[8].statistics.minimum)


def test_rows_are_on_the_disk_at_once(tmp_path):
    table = FramesCsv(tmp_path / "frames.csv")
    table.write(rows(1)[0])
    assert len(list(read_frames_csv(tmp_path / "frames.csv"))) == 1
    table.close()


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_row_is_dropped_on_resume(tmp_path, cut):
    path = tmp_path / "frames.csv"
    with FramesCsv(path) as table:
        for row in rows(7):
            table.write(row)
    path.write_bytes(path.read_bytes()[:-cut])
    with FramesCsv(path, resume=True) as table:
        assert table.next_index == 6
        for row in rows(9):
            table.write(row)
    assert [row.index for row in read_frames_csv(path)] == list(range(9))


def test_resume_drops_rows_whose_depth_is_lost(tmp_path):
    path = tmp_path / "frames.csv"
    with FramesCsv(path) as table:
        for row in rows(7):
            table.write(row)
    with FramesCsv(path, resume=True, start=4) as table:
        assert table.next_index == 4
    assert [row.index for row in read_frames_csv(path)] == [0, 1, 2, 3]


def test_existing_table_is_never_overwritten(tmp_path):
    path = tmp_path / "frames.csv"
    path.write_text("my,own,table\n1,2,3\n")
    for resume, error_id in ((False, "output.exists"), (True, "output.frames-csv")):
        with pytest.raises(UsageError) as caught:
            FramesCsv(path, resume=resume)
        assert caught.value.error_id == error_id
    assert path.read_text() == "my,own,table\n1,2,3\n"
    with pytest.raises(InputError):
        list(read_frames_csv(path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_appending(tmp_path):
    table = FramesCsv(tmp_path / "frames.csv")
    table._file.close()
    table._file = Path("/dev/full").open("w")  # noqa: SIM115
    table._writer = __import__("csv").writer(table._file)
    with pytest.raises(DeviceError):
        table.write(rows(1)[0])
    with pytest.raises(DeviceError):
        table.close()
