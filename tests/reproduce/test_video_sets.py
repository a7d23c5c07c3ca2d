"""Clips that are trained on and scored: how they are rendered, known, learnt from and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

from endolux.datasets import open_dataset
from endolux.errors import InputError, UsageError
from endolux.metrics.checks import Float64
from endolux.models import create
from endolux.reproduce.adaptation_costs import TRAINED, measure_adaptation
from endolux.reproduce.clips import clip_settings, render_moving
from endolux.reproduce.command import Options, reproduce
from endolux.reproduce.grid import Clips, Phantom, load_grid
from endolux.reproduce.job import VIDEO_PROTOCOL, Data, Job, ScoredSet
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.trajectories import SimpleCamera, true_motions
from endolux.reproduce.untrained import scored_as_it_is
from endolux.reproduce.video_measures import measure_video
from endolux.reproduce.worker import recipe_sha256, run
from endolux.train.recipe import load_recipe
from endolux.types import DepthKind, DepthMap, Frame, ImageArray

PINHOLE = {"scope": {"camera": {"models": {"pinhole": 1}}}}
FRAMES = 5


def clips(**changes: object) -> Clips:
    given = {
        "anatomies": ["laparoscopy"],
        "clips": 1,
        "frames_per_clip": FRAMES,
        "seed": 5,
        "motion": "sweep",
        **changes,
    }
    return Clips.model_validate(given)


def phantom(**moving: Clips) -> Phantom:
    train = {"anatomies": ["colon"], "frames": 1, "views_per_scene": 1, "seed": 0}
    return Phantom.model_validate(
        {"width": 64, "height": 64, "even_light": 0.0, "train": train, "sets": {}, "moving": moving}
    )


def poses(count: int) -> Float64:
    found = np.tile(np.eye(4), (count, 1, 1))
    found[:, 0, 3] = [0, 2, 3, 3, 1, 0, 2, 5, 4, 4][:count]
    found[:, 1, 3] = np.arange(count) ** 2 / 4
    return found


def write_clips(folder: Path, count: int = 2) -> Path:
    """A folder as the phantom writes it; the red channel holds the depth in mm."""
    for name in ("images", "depth", "poses"):
        (folder / name).mkdir(parents=True)
    for index in range(count * FRAMES):
        depth = np.tile(np.linspace(20 + index, 80, 24).astype(np.uint8), (16, 1))
        image = np.zeros((16, 24, 3), np.uint8)
        image[..., 2] = depth
        cv2.imwrite(str(folder / "images" / f"{index:06d}.png"), image)
        np.save(folder / "depth" / f"{index:06d}.npy", depth.astype(np.float32))
        record = {"camera_to_world_mm": poses(10)[index].tolist(), "sequence": f"{index // FRAMES}", "index": index}
        (folder / "poses" / f"{index:06d}.json").write_text(json.dumps(record))
    (folder / "manifest.json").write_text("{}")
    return folder


class Known:
    """Predicts the depth in the red channel up to a factor, and motions that it has been told."""

    name, kind = "known", DepthKind.RELATIVE_DEPTH
    provenance: ClassVar[dict[str, str | float | None]] = {"type": "known"}

    def __init__(self, told: Float64) -> None:
        self.told = told
        self.asked = 0

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002
        values = frame.image[..., 0].astype(np.float32) * np.float32(0.1)
        return DepthMap(values=values, kind=self.kind, valid=np.ones(values.shape, np.bool_))

    def motions(self, images: list[ImageArray]) -> Float64:
        start = self.asked * FRAMES
        self.asked += 1
        found = true_motions(self.told[start : start + len(images)])
        found[:, :3, 3] *= 0.01
        return found


class TestMeasures:
    def test_depth_and_path_up_to_one_factor(self, tmp_path: Path) -> None:
        dataset = open_dataset("folder", write_clips(tmp_path / "set"))
        found = measure_video(Known(poses(10)), dataset, tuple(dataset.keys()), frames_per_clip=FRAMES)
        assert found.entries == 10
        assert found.means["abs_rel"] == pytest.approx(0.0, abs=1e-6)
        assert found.means["delta1"] == 1.0
        assert found.means["ate"] == pytest.approx(0.0, abs=1e-6)
        assert found.means["ate_snippet"] == pytest.approx(0.0, abs=1e-6)
        assert len(found.scenes["ate"]) == len(found.scenes["abs_rel"]) == 2

    def test_a_wrong_path_leaves_the_depth_as_it_is(self, tmp_path: Path) -> None:
        dataset = open_dataset("folder", write_clips(tmp_path / "set"))
        keys = tuple(dataset.keys())
        found = measure_video(Known(poses(10)[::-1].copy()), dataset, keys, frames_per_clip=FRAMES)
        assert found.means["abs_rel"] == pytest.approx(0.0, abs=1e-6)
        assert found.means["ate_snippet"] > 0.5

    def test_a_simple_camera_has_no_depth(self, tmp_path: Path) -> None:
        test = ScoredSet(
            role="home",
            reader="folder",
            path=write_clips(tmp_path / "set"),
            protocol=VIDEO_PROTOCOL,
            scene_frames=FRAMES,
        )
        (tmp_path / "run").mkdir()
        job = Job(
            row="constant",
            seed=0,
            architecture="",
            recipe="",
            overrides=(),
            tests=(test,),
            conversion="correct",
            threads=1,
            folder=tmp_path / "run",
            key="k",
            model="motion:constant-velocity",
        )
        score = run(job, lambda job: scored_as_it_is(job.model)).scores["home"]
        assert score.entries == 10
        assert set(score.metrics) == {"ate", "ate_snippet", "rotation_error"}
        expected = np.mean([SimpleCamera(job.model).errors(poses(10)[s : s + FRAMES])["ate"] for s in (0, FRAMES)])
        assert score.metrics["ate"] == pytest.approx(expected)

    def test_frames_without_poses_are_refused(self, tmp_path: Path) -> None:
        folder = write_clips(tmp_path / "set")
        (folder / "poses/000003.json").unlink()
        dataset = open_dataset("folder", folder)
        with pytest.raises(InputError) as caught:
            measure_video(Known(poses(10)), dataset, tuple(dataset.keys()), frames_per_clip=FRAMES)
        assert caught.value.error_id == "evaluate.no-reference"


class TestSets:
    def test_what_is_not_used_is_not_said(self) -> None:
        # Reproductions that were begun before clips could be moved otherwise go on.
        document = load_grid("litenet").scale("desk").phantom.identity()
        assert "moving" not in document
        assert not {"fps", "preset", "settings"} & set(document["clips"]["clips"])
        assert set(phantom(moving=clips(fps=4.0)).identity()["moving"]["moving"]) >= {"fps", "motion"}

    def test_presets_and_settings_reach_the_phantom(self) -> None:
        plain = clip_settings(phantom(), clips(motion="hover"))
        assert (plain.preset, plain.fps, plain.held, plain.smoke) == ("custom", 25.0, 0.0, 0.0)
        found = clip_settings(phantom(), clips(preset="scared-like", settings=PINHOLE, fps=4.0))
        assert (found.preset, found.fps, found.baseline_mm, found.motion.value) == ("scared-like", 4.0, None, "sweep")
        assert {model.value: weight for model, weight in found.scope.camera.models.items()} == {"pinhole": 1.0}
        assert found.even_light == 0.0

    def test_equal_parameters(self) -> None:
        scale = load_grid("dares").scale("desk")
        shape = load_recipe("dares", [*scale.overrides, "steps=1"]).model.config
        counts = {kind: create("dares", **shape, adapt={"kind": kind}).adapted for kind in ("vector-lora", "lora")}
        assert counts["vector-lora"] == counts["lora"]
        assert counts["lora"].adapter == 30_720

    def test_what_a_step_trains(self) -> None:
        grid = load_grid("dares")
        rows = [row for row in grid.rows_of("smoke") if row.name in ("vector-lora", "decoder")]
        # As many threads as a busy machine has cores wait for each other.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            costs = measure_adaptation(rows, grid.scale("smoke"))
        finally:
            torch.set_num_threads(threads)
        trained = {name: cost.counts[TRAINED] for name, cost in costs.items()}
        assert trained["vector-lora"] == trained["decoder"] + 30_720
        assert trained["decoder"] < costs["decoder"].parameters
        assert all(len(cost.legacy_s) == 2 for cost in costs.values())

    @pytest.mark.parametrize("scale", ["smoke", "desk"])
    def test_adaptations_start_from_one_depth_and_one_motion(self, scale: str, tmp_path: Path) -> None:
        grid = load_grid("dares")
        more = {"moving": ("moving",)}
        data = Data(sources=("train",), tests=(), titles={}, sha256="d", facts={}, more_sources=more)
        jobs = plan_jobs(grid.rows_of(scale), grid.scale(scale), seeds=(0, 1), data=data, output=tmp_path, teacher="")
        by_name = {job.name: job for job in jobs}
        assert by_name["motion-seed0"].needs == ("unadapted-seed0",)
        recipes = {name: load_recipe(job.recipe, job.overrides) for name, job in by_name.items() if job.recipe}
        adapted = [name for name in recipes if name not in ("unadapted-seed0", "motion-seed0")]
        assert len(adapted) == 12
        for name in adapted:
            assert set(by_name[name].needs) == {"motion-seed0", "unadapted-seed0"}
            assert recipes[name].model.initial == tmp_path / "runs/unadapted-seed0/run"
            assert recipes[name].video.initial == tmp_path / "runs/motion-seed0/run"
        assert recipes["unadapted-seed0"].task == "supervised"
        assert recipes["motion-seed0"].video.motion_first == 1.0

    def test_where_it_starts_from_does_not_move_the_hash(self, tmp_path: Path) -> None:
        recipes = [load_recipe("dares", [f"video.initial={tmp_path / name}"]) for name in ("a", "b")]
        assert recipe_sha256(recipes[0]) == recipe_sha256(recipes[1])


def test_clips_are_rendered_once_and_learnt_from(tmp_path: Path) -> None:
    pytest.importorskip("embreex", reason="needs the extra 'phantom'")
    pytest.importorskip("peft", reason="needs the extra 'train'")
    from endolux.reproduce.training import train
    from endolux.reproduce.video_training import Traveller

    world = phantom(home=clips(preset="scared-like", settings=PINHOLE, fps=4.0))
    made = render_moving(world, tmp_path, workers=1)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert render_moving(world, tmp_path, workers=1) == made
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    (shard,) = (tmp_path / "home").glob("shard-*")
    camera = np.load(shard / "pose.npy")
    assert camera.shape == (FRAMES, 4, 4)
    assert np.linalg.norm(np.diff(camera[:, :3, 3], axis=0), axis=1).min() > 0.1

    smoke = load_grid("dares").scale("smoke")
    job = Job(
        row="vector-lora",
        seed=0,
        architecture="dares",
        recipe="dares",
        overrides=(
            *smoke.overrides,
            *smoke.row_overrides["vector-lora"],
            "data.size=[64, 64]",
            f"data.sources={json.dumps(list(made.sources['home']))}",
        ),
        tests=(),
        conversion="correct",
        threads=1,
        folder=tmp_path / "run",
        key="k",
    )
    trained = train(job)
    assert isinstance(trained.predictor, Traveller)
    assert trained.steps == 1
    pictures = list(np.load(shard / "rgb.npy"))
    motions = trained.predictor.motions(pictures)
    assert motions.shape == (FRAMES - 1, 4, 4)
    assert np.allclose(motions[:, :3, :3] @ np.swapaxes(motions[:, :3, :3], 1, 2), np.eye(3), atol=1e-6)
    depth = trained.predictor.predict("0", Frame(image=pictures[0], index=0, name="0"))
    assert depth.size == (64, 64)


def test_full_scale_asks_for_its_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        reproduce("dares", tmp_path / "out", options=Options(scale="full"))
    assert caught.value.error_id == "reproduce.data"
    assert "None" not in str(caught.value)
    assert "hamlyn=PATH" in caught.value.fix
    rows = {row.name: row for row in load_grid("dares").rows_of("full")}
    # The released network is scored as it is, and all others start from it.
    assert rows["unadapted"].model == "depth-anything/Depth-Anything-V2-Small-hf"
    assert {row.start for name, row in rows.items() if name != "unadapted"} == {"unadapted"}
    assert "as-coded" in rows
