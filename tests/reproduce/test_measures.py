"""What is measured of a predictor: closed forms on made-up frames, clips and a miniature SimCol3D."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.datasets import open_dataset
from endolux.errors import InputError
from endolux.reproduce.job import Job, ScoredSet
from endolux.reproduce.measures import (
    SHAPE,
    depth_measures,
    measure_clips,
    measure_frames,
    measure_real,
    shape_measures,
)
from endolux.reproduce.metric_names import METRICS, comparable, gain_sign
from endolux.reproduce.real_frames import FOLDERS, SETS, present, read_rgb, set_sha256
from endolux.reproduce.worker import Trained, run
from endolux.types import DepthKind, DepthMap, Frame

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 128, 160


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A slope with a step, in mm."""
    truth = np.tile(np.linspace(30.0, 45.0, width), (height, 1))
    truth[:, width // 2 :] += 25.0
    return truth


def guess(values: np.ndarray) -> DepthMap:
    return DepthMap(values=values.astype(np.float32), kind=DepthKind.RELATIVE_DEPTH, valid=np.ones(values.shape, bool))


def texture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.repeat(RNG.integers(60, 160, (height, width, 1), np.uint8), 3, axis=2)


def test_a_prediction_up_to_a_factor_is_perfect():
    truth, image = scene(), texture()
    everywhere = truth > 0
    depth = depth_measures(guess(3 * truth), truth, everywhere)
    shape = shape_measures(guess(3 * truth), truth, everywhere, image)
    assert depth["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert depth["delta1"] == 1.0
    assert shape["boundary_f1"] == 1.0
    assert shape["edge_error"] == pytest.approx(0, abs=1e-6)
    assert shape["leak_residual"] == pytest.approx(0, abs=1e-6)
    assert all(shape[f"rho_{band}"] < 1e-6 for band in range(6))
    assert set(shape) == set(SHAPE)
    assert {*depth, *shape} <= set(METRICS)


def test_copied_texture_is_found_by_the_leak_and_by_the_fine_bands():
    truth, image = scene(), texture()
    luma = image[..., 0] / 255.0
    shape = shape_measures(guess(truth * np.exp(-0.2 * luma)), truth, truth > 0, image)
    clean = shape_measures(guess(truth), truth, truth > 0, image)
    assert shape["leak_residual"] == pytest.approx(0.2, rel=0.02)
    # The index of the specification is that of the prediction: the truth's own comes on top.
    assert shape["leak_slope"] - clean["leak_slope"] == pytest.approx(shape["leak_residual"], abs=1e-6)
    assert shape["leak_correlation"] > 0.9
    assert shape["rho_5"] > 100 * shape["rho_0"]
    assert clean["leak_residual"] == pytest.approx(0, abs=1e-6)


def test_blur_costs_edges_and_bands_of_its_size():
    truth = scene()
    blurred = cv2.GaussianBlur(truth, (0, 0), 3)
    shape = shape_measures(guess(blurred), truth, truth > 0, texture())
    assert shape["boundary_f1"] < 0.2
    assert shape["edge_error"] > 0.05
    assert shape["rho_0"] < shape["rho_3"]
    assert 0.8 < shape["rho_4"] < 1.1


def test_bands_that_do_not_fit_have_no_figure():
    truth = scene(64, 64)
    shape = shape_measures(guess(2 * truth), truth, truth > 0, texture(64, 64))
    assert math.isnan(shape["rho_0"])
    assert all(shape[f"rho_{band}"] < 1e-6 for band in range(1, 6))


def test_an_image_of_another_size_has_no_leak():
    truth = scene()
    shape = shape_measures(guess(truth), truth, truth > 0, texture(64, 64))
    assert math.isnan(shape["leak_slope"])
    assert shape["boundary_f1"] == 1.0


class Factor:
    """Predicts the truth, which the red channel holds, times a factor that depends on the name."""

    name, kind = "factor", DepthKind.RELATIVE_DEPTH

    def __init__(self, factors: list[float] | None = None) -> None:
        self.factors = factors
        self.provenance: dict[str, str | float | None] = {"type": "factor"}

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002
        values = frame.image[..., 0].astype(np.float32)
        if self.factors is not None:
            values = values * np.float32(self.factors[frame.index])
        return guess(values)


def write_frames(folder: Path, depths: list[np.ndarray], *, poses: list[np.ndarray] | None = None) -> Path:
    """The phantom's folder, with the depth readable from the red channel."""
    for name in ("images", "depth", *(["poses"] if poses else [])):
        (folder / name).mkdir(parents=True)
    for index, depth in enumerate(depths):
        image = np.zeros((*depth.shape, 3), np.uint8)
        image[..., 2] = depth
        cv2.imwrite(str(folder / f"images/{index:06d}.png"), image)
        np.save(folder / f"depth/{index:06d}.npy", depth.astype(np.float32))
        if poses:
            height, width = depth.shape
            camera = {"width": width, "height": height, "fx": 40.0, "fy": 40.0, "cx": width / 2, "cy": height / 2}
            record = {"camera_to_world_mm": poses[index].tolist(), "camera": {**camera, "model": "pinhole"}}
            (folder / f"poses/{index:06d}.json").write_text(json.dumps(record))
    return folder


def test_frames_are_averaged_over_their_scenes(tmp_path: Path):
    depth = np.tile(np.linspace(20, 80, 32).astype(np.uint8), (24, 1))
    dataset = open_dataset("folder", write_frames(tmp_path / "home", [depth] * 5))
    tilted = guess(depth * np.linspace(1, 1.5, 24)[:, None])

    class Odd(Factor):
        def predict(self, name: str, frame: Frame) -> DepthMap:
            return tilted if frame.index >= 3 else super().predict(name, frame)

    found = measure_frames(Odd(), dataset, list(dataset.keys()), scene=lambda _key, place: place // 2)
    one = found.means["abs_rel"] * 5 / 2
    assert found.entries == 5
    assert found.scenes["abs_rel"] == pytest.approx((0.0, one / 2, one), abs=1e-6)
    assert one > 0.01


def test_frames_that_cannot_be_read_are_counted(tmp_path: Path):
    depth = np.full((24, 32), 40, np.uint8)
    folder = write_frames(tmp_path / "home", [depth] * 2)
    (folder / "images/000001.png").write_bytes(b"no picture")
    dataset = open_dataset("folder", folder)
    found = measure_frames(Factor(), dataset, list(dataset.keys()), scene=lambda _key, place: place)
    assert (found.entries, found.failed) == (1, 1)


def test_a_clip_that_is_right_neither_flickers_nor_drifts(tmp_path: Path):
    walls, poses = [], []
    for distance in (50, 49, 48, 60, 60, 60):
        walls.append(np.full((24, 32), distance, np.uint8))
        pose = np.eye(4)
        pose[2, 3] = 60.0 - distance
        poses.append(pose)
    dataset = open_dataset("folder", write_frames(tmp_path / "clips", walls, poses=poses))
    still = measure_clips(Factor(), dataset, frames_per_clip=3)
    assert still.entries == 2
    assert still.means["flicker"] == pytest.approx(0, abs=1e-6)
    assert still.means["temporal_error"] == pytest.approx(0, abs=1e-5)
    # A factor of the whole clip is no flicker, one a frame is: second difference of (0, s, 0) over sqrt(6).
    clip = [2.0, 2.0, 2.0, 1.0, 1.1, 1.0]
    shaken = measure_clips(Factor(clip), dataset, frames_per_clip=3)
    assert shaken.scenes["flicker"][0] == pytest.approx(0, abs=1e-6)
    assert shaken.scenes["flicker"][1] == pytest.approx(2 * math.log(1.1) / math.sqrt(6), rel=1e-4)
    assert shaken.scenes["temporal_error"][1] == pytest.approx((0.1 + 0.1 / 1.1) / 2, rel=0.01)


def test_clips_need_poses(tmp_path: Path):
    dataset = open_dataset("folder", write_frames(tmp_path / "clips", [np.full((24, 32), 40, np.uint8)] * 3))
    with pytest.raises(InputError) as problem:
        measure_clips(Factor(), dataset, frames_per_clip=3)
    assert problem.value.error_id == "evaluate.no-reference"


def write_simcol(root: Path) -> Path:
    """SimCol3D's two files a frame, 16 bits as published, with the depth in the red channel's high byte."""
    folder = root / FOLDERS["simcol3d"]
    folder.mkdir(parents=True)
    depth_mm = np.tile(np.linspace(20, 180, 32).astype(np.uint8), (24, 1))
    for index in range(2):
        colour = np.zeros((24, 32, 4), np.uint16)
        colour[..., 2] = depth_mm.astype(np.uint16) << 8
        cv2.imwrite(str(folder / f"FrameBuffer_{index:04d}.png"), colour)
        codes = np.rint(depth_mm / 200.0 * 65535).astype(np.uint16)
        cv2.imwrite(str(folder / f"Depth_{index:04d}.png"), codes)
    return root


def test_real_frames_are_read_as_published(tmp_path: Path):
    root = write_simcol(tmp_path)
    assert present(root) == ("simcol3d",)
    found = measure_real(Factor(), "simcol3d", root)
    assert found.entries == 2
    assert found.means["abs_rel"] == pytest.approx(0, abs=1e-4)
    assert len(found.scenes["abs_rel"]) == 2
    before = set_sha256("simcol3d", root)
    cv2.imwrite(str(root / FOLDERS["simcol3d"] / "Depth_0001.png"), np.full((24, 32), 9, np.uint16))
    assert set_sha256("simcol3d", root) != before


def test_damaged_and_missing_real_frames_are_named(tmp_path: Path):
    root = write_simcol(tmp_path)
    (root / FOLDERS["simcol3d"] / "FrameBuffer_0001.png").unlink()
    with pytest.raises(InputError) as problem:
        measure_real(Factor(), "simcol3d", root)
    assert problem.value.error_id == "input.missing"
    (root / FOLDERS["simcol3d"] / "FrameBuffer_0001.png").write_text("no picture")
    with pytest.raises(InputError) as problem:
        read_rgb(root / FOLDERS["simcol3d"] / "FrameBuffer_0001.png")
    assert problem.value.error_id == "image.unreadable"
    (root / FOLDERS["endoslam"]).mkdir()
    with pytest.raises(InputError) as problem:
        measure_real(Factor(), "endoslam", root)
    assert problem.value.error_id == "reproduce.real-data"
    with pytest.raises(InputError) as problem:
        present(tmp_path / "nowhere")
    assert problem.value.error_id == "reproduce.real-data"


def test_every_set_has_a_folder_and_every_metric_a_direction():
    assert set(SETS) == set(FOLDERS)
    for name, metric in METRICS.items():
        assert metric.label
        assert gain_sign(name) == (1.0 if metric.higher else -1.0)
        assert not (metric.higher and metric.signed)
    assert (comparable("leak_slope", -2.0), comparable("abs_rel", -2.0)) == (2.0, -2.0)


def test_the_shape_of_a_data_set_is_measured_under_its_own_protocol(tmp_path: Path):
    depth = np.tile(np.linspace(20, 80, 64).astype(np.uint8), (64, 1))
    home = write_frames(tmp_path / "home", [depth] * 2)
    sets = tuple(
        ScoredSet(role=role, reader="folder", path=home, protocol="folder", shape=shape)
        for role, shape in (("plain", False), ("shaped", True))
    )
    (tmp_path / "run").mkdir()
    job = Job(
        row="r",
        seed=0,
        architecture="litenet-t",
        recipe="litenet",
        overrides=(),
        tests=sets,
        conversion="correct",
        threads=1,
        folder=tmp_path / "run",
        key="k",
        once=True,
    )
    found = run(job, lambda _job: Trained(predictor=Factor(), recipe_sha256="r", steps=1, images=1))
    plain, shaped = found.scores["plain"], found.scores["shaped"]
    assert found.once
    assert plain.protocol == shaped.protocol == "folder/1"
    assert set(plain.metrics) < set(shaped.metrics)
    assert shaped.metrics["rho_5"] == pytest.approx(0, abs=1e-6)
    assert shaped.metrics["abs_rel"] == plain.metrics["abs_rel"]
    assert shaped.metrics["rho_0"] is None
    assert not plain.scenes
