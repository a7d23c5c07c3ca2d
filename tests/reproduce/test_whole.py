"""Real runs at the smallest size: rendered data and a miniature NYU in its true layout, trained, scored, tabled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.errors import MissingExtraError
from endolux.reproduce.command import Options, reproduce
from endolux.reproduce.data import phantom_data
from endolux.reproduce.grid import load_grid
from endolux.reproduce.job import Job, ScoredSet
from endolux.reproduce.results import RunResult
from endolux.reproduce.timing import Cost, count_macs, measure, measured_once
from endolux.reproduce.worker import Trained, main, phantom_protocol, run
from endolux.types import DepthKind, DepthMap, Frame

pytest.importorskip("torch", reason="needs the extra 'train'")


def no_timing(_folder: Path, names) -> dict[str, Cost]:
    return {name: Cost(parameters=1, macs=1, legacy_s=(0.1, 0.1), single_s=(0.1, 0.1)) for name in names}


class Guess:
    """Predicts the true depth times a factor that depends on the frame's mirroring not at all."""

    name = "guess"
    kind = DepthKind.METRIC

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.provenance: dict[str, str | float | None] = {"type": "guess"}

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002
        # The picture's red channel holds the depth.
        values = frame.image[..., 0].astype(np.float32) * np.float32(self.factor)
        return DepthMap(values=values, kind=self.kind, valid=np.ones(values.shape, np.bool_))


class Counting(Guess):
    calls = 0

    def predict(self, name: str, frame: Frame) -> DepthMap:
        self.calls += 1
        return super().predict(name, frame)


def write_pairs(folder: Path, count: int = 3) -> Path:
    """A folder as the phantom writes it, with the depth in mm readable from the red channel."""
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        depth = np.tile(np.linspace(20 + index, 80, 24).astype(np.uint8), (16, 1))
        image = np.zeros((16, 24, 3), np.uint8)
        image[..., 2] = depth
        cv2.imwrite(str(folder / "images" / f"{index:06d}.png"), image)
        cv2.imwrite(str(folder / "depth" / f"{index:06d}.png"), depth.astype(np.uint16) * 100)
    (folder / "manifest.json").write_text(json.dumps({"codes_per_mm": 100}))
    return folder


def write_nyu(root: Path) -> Path:
    """DenseDepth's layout: two training pairs of 640x480 and two test pairs."""
    metres = np.tile(np.linspace(0.8, 9.0, 640), (480, 1))
    grey = np.repeat((255 / metres / 1.5)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for index in range(2):
        for part, stem, suffix, depth in (
            ("train", f"kitchen_out/{index + 1}", "jpg", np.rint(metres / 10 * 255).astype(np.uint8)),
            ("test", f"{index:05d}", "png", np.rint(metres * 1000).astype(np.uint16)),
        ):
            image = f"data/nyu2_{part}/{stem}{'' if part == 'train' else '_colors'}.{suffix}"
            truth = f"data/nyu2_{part}/{stem}{'' if part == 'train' else '_depth'}.png"
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / image), grey)
            cv2.imwrite(str(root / truth), depth)
            lists[part].append(f"{image},{truth}")
    for part, lines in lists.items():
        (root / f"data/nyu2_{part}.csv").write_text("\n".join(lines) + "\n")
    return root


def job(tmp_path: Path, **changes) -> Job:
    fields = {
        "row": "base",
        "seed": 0,
        "architecture": "leve",
        "recipe": "leve",
        "overrides": (),
        "tests": (),
        "conversion": "correct",
        "threads": 1,
        "folder": tmp_path / "run",
        "key": "k",
    }
    (tmp_path / "run").mkdir()
    return Job(**{**fields, **changes})


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_scores_follow_leves_convention(tmp_path: Path, factor: float):
    home = ScoredSet(role="home", reader="folder", path=write_pairs(tmp_path / "home"), protocol="phantom")
    found = run(
        job(tmp_path, tests=(home,)),
        lambda _job: Trained(predictor=Guess(factor), recipe_sha256="r", steps=3, images=24),
    )
    score = found.scores["home"]
    assert (score.entries, score.unit, score.failed) == (6, "mm", 0)
    assert score.protocol == "phantom-leve/1"
    # No alignment: a wrong factor shows in full.
    assert score.metrics["abs_rel"] == pytest.approx(factor - 1, abs=1e-6)
    assert score.metrics["delta1"] == (1.0 if factor == 1 else 0.0)
    # The mean of each frame's RMSE, not the root of the mean square.
    rows = [np.linspace(20 + index, 80, 24).astype(np.uint8).astype(float) for index in range(3)]
    assert score.metrics["rmse"] == pytest.approx(
        (factor - 1) * np.mean([np.sqrt(np.mean(r**2)) for r in rows]), abs=1e-4
    )
    stored = RunResult.model_validate_json((tmp_path / "run" / "result.json").read_bytes())
    assert stored == found


def test_scaled_figures_judge_the_shape_alone(tmp_path: Path):
    home = write_pairs(tmp_path / "home")
    sets = tuple(
        ScoredSet(role=role, reader="folder", path=home, protocol=protocol)
        for role, protocol in (("home", "phantom"), ("home:scaled", "phantom-scaled"))
    )
    guess = Counting(1.5)
    trained = Trained(predictor=guess, recipe_sha256="r", steps=3, images=24)
    scores = run(job(tmp_path, tests=sets), lambda _job: trained).scores
    assert scores["home"].metrics["abs_rel"] == pytest.approx(0.5, abs=1e-6)
    assert scores["home:scaled"].metrics["abs_rel"] == pytest.approx(0.0, abs=1e-6)
    assert scores["home:scaled"].protocol == "phantom-leve/1+alignment=median"
    # Three frames and their mirrors, each predicted once for both ways of scoring.
    assert guess.calls == 6


def test_the_protocol_of_phantom_data_is_not_registered():
    from endolux.datasets import protocols

    assert phantom_protocol().name not in protocols()


def test_macs_and_parameters_are_the_specifications():
    from endolux.models import create

    # Specification 1.7 at 240x320.
    for name, parameters, macs in (("leve", 5_804_257, 2_472_386_560), ("leve-3x3-dw", 5_713_873, 1_489_039_360)):
        network = create(name)
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert count_macs(network, width=320, height=240) == macs
        assert network.training


def test_times_are_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    costs = measured_once(tmp_path, ["leve-3x3"], width=64, height=64, rounds=2)
    assert all(seconds > 0 for seconds in (*costs["leve-3x3"].legacy_s, *costs["leve-3x3"].single_s))
    monkeypatch.setattr("endolux.reproduce.timing.measure", lambda *_a, **_k: pytest.fail("measured again"))
    assert measured_once(tmp_path, ["leve-3x3"], width=64, height=64, rounds=2) == costs
    monkeypatch.setattr("endolux.reproduce.timing.measure", measure)
    assert len(measured_once(tmp_path, ["leve-3x3"], width=64, height=64, rounds=3)["leve-3x3"].legacy_s) == 3


def test_rendered_data_are_disjoint_hashed_and_kept(tmp_path: Path):
    pytest.importorskip("embreex", reason="needs the extra 'phantom'")
    scale = load_grid("leve").scale("smoke")
    first = phantom_data(scale, tmp_path / "data", workers=1, say=lambda _line: None)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.is_file()}
    second = phantom_data(scale, tmp_path / "data", workers=1, say=lambda _line: None)
    assert first == second
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    train = [
        hashlib.sha256(image).digest()
        for shard in (tmp_path / "data/train").glob("shard-*")
        for image in np.load(shard / "rgb.npy")
    ]
    tests = [
        hashlib.sha256(cv2.imread(str(path))[..., ::-1].copy()).digest()
        for role in ("nyu", "kitti", "endoslam")
        for path in (tmp_path / "data" / role / "images").glob("*.png")
    ]
    assert len(train) == 16
    assert len(tests) == 12
    assert len({*train, *tests}) == 28


def test_rendering_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "embreex", None)
    with pytest.raises(MissingExtraError) as problem:
        phantom_data(load_grid("leve").scale("smoke"), tmp_path / "data", workers=1, say=lambda _line: None)
    assert problem.value.fix == "pip install 'endolux[phantom]'"


def test_full_scale_on_a_miniature_nyu(tmp_path: Path, tiny_bundle: Path):
    options = Options(
        scale="full",
        data=(str(write_nyu(tmp_path / "nyu")),),
        rows=("3x3+3x3", "ts-25"),
        teacher=str(tiny_bundle),
        changes=("epochs=null", "steps=1", "batch=2", "data.size=[128, 96]", "device=cpu"),
        jobs=2,
    )
    said: list[str] = []
    found = reproduce("leve", tmp_path / "out", options=options, say=said.append, time_networks=no_timing)
    assert not found.failures, found.failures
    assert sorted(found.runs) == [("3x3+3x3", 0), ("ts-25", 0)]
    main_run = found.runs["3x3+3x3", 0]
    assert (main_run.steps, main_run.images) == (1, 2)
    score = main_run.scores["nyu"]
    assert (score.protocol, score.unit, score.entries) == ("nyu-eigen-leve/1", "m", 4)
    assert any("2 training images, the published run had 50688" in line for line in said)
    recipe = (tmp_path / "out/runs/3x3+3x3-seed0/run/recipe.yaml").read_text()
    assert "nyu-train:" in recipe
    assert "batchnorm: reproduce" in recipe
    assert "max_depth_mm: 10000.0" in recipe
    taught = (tmp_path / "out/runs/ts-25-seed0/run/recipe.yaml").read_text()
    assert "maximum: batch" in taught
    assert "epsilon: 0.25" in taught
    assert main_run.recipe_sha256 != found.runs["ts-25", 0].recipe_sha256
    before = (tmp_path / "out/runs/ts-25-seed0/result.json").read_bytes()
    again = reproduce("leve", tmp_path / "out", options=options, time_networks=no_timing)
    assert again.runs == found.runs
    assert (tmp_path / "out/runs/ts-25-seed0/result.json").read_bytes() == before


def test_the_worker_refuses_a_wrong_call(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
