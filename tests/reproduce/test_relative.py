"""Surgical Depth Anything: three conventions for disparity, its grid, and its published sets in miniature."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_whole import no_timing

from endolux.errors import UsageError
from endolux.reproduce.data import open_published, parse_paths
from endolux.reproduce.grid import load_grid
from endolux.reproduce.job import Job
from endolux.reproduce.metric_names import METRICS
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.relative import relative_measures
from endolux.reproduce.worker import Trained, run
from endolux.train.recipe import load_recipe
from endolux.types import DepthKind, DepthMap, Frame

GRID = load_grid("surgical-depth-anything")
NOISE = np.random.default_rng(5)


def tubes(count: int = 12, side: int = 48) -> list[np.ndarray]:
    """Depth of views into straight tubes, in mm, along axes that miss the middle of the picture."""
    rng = np.random.default_rng(5)
    v, u = np.mgrid[:side, :side] / (side - 1) * 1.6 - 0.8
    found = []
    for _ in range(count):
        radius, across, up = rng.uniform(8, 25), *rng.uniform(-4, 4, 2)
        # |(u z - across, v z - up)| = radius, solved for z; no wall is farther than 150 mm.
        a, b = u**2 + v**2, u * across + v * up
        z = (b + np.sqrt(b**2 - a * (across**2 + up**2 - radius**2))) / np.maximum(a, 1e-9)
        found.append(np.minimum(z, 150.0))
    return found


def as_map(values: np.ndarray, kind: DepthKind) -> DepthMap:
    return DepthMap(values=values.astype(np.float32), kind=kind, valid=np.ones(values.shape, np.bool_))


def mean_of(predict, kind: DepthKind) -> dict[str, float]:
    rows = [relative_measures(as_map(predict(z), kind), as_map(z, DepthKind.METRIC)) for z in tubes()]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def test_what_a_perfect_disparity_is_worth_depends_on_how_it_is_read():
    noise = lambda z: z * np.exp(NOISE.normal(0, 0.05, z.shape))  # noqa: E731
    disparity = mean_of(lambda z: 1 / noise(z), DepthKind.RELATIVE_DISPARITY)
    depth = mean_of(noise, DepthKind.RELATIVE_DEPTH)
    constant = mean_of(np.ones_like, DepthKind.RELATIVE_DEPTH)
    shifted = mean_of(lambda z: 1 / z + 0.3 / z.min(), DepthKind.RELATIVE_DISPARITY)
    assert disparity["abs_rel"] < 0.06
    assert disparity["abs_rel_p0"] > 1.5 * constant["abs_rel"]
    assert disparity["delta1_p0"] < constant["delta1"]
    assert disparity["abs_rel_p2"] < 0.06
    assert shifted["abs_rel"] > 0.1
    assert shifted["abs_rel_p2"] < 1e-3
    assert depth["abs_rel"] == depth["abs_rel_p0"]
    assert depth["abs_rel"] == pytest.approx(disparity["abs_rel"], abs=0.01)
    assert set(depth) <= set(METRICS)


def test_depth_and_its_inverse_are_fitted_alike():
    # An inverse depth with a shift, once as disparity and once as the depth that it would be.
    shifted = lambda z: 1 / z + 0.3 / z.min()  # noqa: E731
    disparity = mean_of(shifted, DepthKind.RELATIVE_DISPARITY)
    depth = mean_of(lambda z: 1 / shifted(z), DepthKind.RELATIVE_DEPTH)
    assert disparity["abs_rel"] == pytest.approx(depth["abs_rel"], rel=1e-5)
    assert disparity["abs_rel_p2"] == pytest.approx(depth["abs_rel_p2"], abs=1e-5)
    assert depth["abs_rel_p2"] < 1e-3
    assert depth["abs_rel_p0"] == depth["abs_rel"] != disparity["abs_rel_p0"]


def test_nothing_at_all_counts_as_a_failure():
    found = mean_of(np.zeros_like, DepthKind.RELATIVE_DISPARITY)
    assert (found["abs_rel"], found["delta1"]) == (1.0, 0.0)


def test_sets_share_no_scene_and_no_shape():
    for name in ("desk", "smoke"):
        scale = GRID.scale(name)
        phantom = scale.phantom
        assert phantom is not None
        seeds = [frames.seed for frames in (*phantom.training_sets.values(), *phantom.sets.values())]
        assert len(set(seeds)) == len(seeds)
        assert {frames.split for frames in phantom.training_sets.values()} == {"train"}
        assert {frames.split for frames in phantom.sets.values()} == {"test"}
        adapted, before = set(phantom.train.anatomies), set(phantom.more["others"].anatomies)
        assert not adapted & before
        assert set(phantom.sets["target"].anatomies) == adapted
        assert set(phantom.sets["home"].anatomies) == before
        assert not set(phantom.sets["other"].anatomies) & (adapted | before)
        assert phantom.width % 14 == phantom.height % 14 == 0
        for claim in GRID.claims:
            assert claim.kind == "faster" or (claim.role in scale.roles) is (not claim.scales or name in claim.scales)


@pytest.mark.parametrize("scale", ["desk", "smoke", "full"])
def test_rows_differ_in_what_they_say(scale: str):
    size = GRID.scale(scale)
    recipes = {
        row.name: load_recipe(row.recipe, [*size.overrides, *row.overrides, *size.row_overrides.get(row.name, ())])
        for row in GRID.rows_of(scale)
        if row.recipe
    }
    kinds = {name: recipe.model.adapt.kind for name, recipe in recipes.items() if recipe.model.adapt is not None}
    assert kinds == {
        **dict.fromkeys(({"unadapted", "scratch"} if scale != "full" else set()) | {"full", "full-inverse"}, "full"),
        **{name: name for name in ("last-blocks", "lora", "head-only")},
    }
    for name, recipe in recipes.items():
        assert recipe.loss.kind == "l1"
        assert recipe.model.config["output"] == recipe.loss.target  # type: ignore[union-attr]
        assert recipe.loss.target == {"unadapted": "disparity", "full-inverse": "inverse"}.get(name, "depth")  # type: ignore[union-attr]
        assert recipe.optimiser.name == "adamw"
    shapes = [
        {k: v for k, v in recipe.model.config.items() if k not in ("output", "min_depth_mm")}
        for recipe in recipes.values()
    ]
    assert all(shape == shapes[0] for shape in shapes)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def miniatures(root: Path) -> dict[str, Path]:
    """ColonDepth with three pictures, one of them held out, and an UnityCam with two of every organ."""
    depth = np.tile(np.linspace(20, 180, 56), (42, 1))
    light = np.repeat((255 * 20 / depth)[..., None], 3, axis=2).astype(np.uint8)
    for name in ("T1_L1_1", "T2_L3_1", "T3_L3_1"):
        write(root / f"colondepth/{name}_resized_FrameBuffer_0000.png", light)
        write(root / f"colondepth/{name}_resized_Depth_0000.png", (depth / 200 * 255).astype(np.uint8))
    for organ in ("Stomach", "Small Intestine", "Colon"):
        for number in range(2):
            base = root / "UnityCam" / organ
            write(base / f"Frames/image_{number:04d}.png", light)
            code = np.rint(depth / 4).astype(np.uint8)
            alpha = np.full_like(code, 255)
            write(base / f"Pixelwise Depths/aov_image_{number:04d}.png", np.dstack([code, code, code, alpha]))
    return {"colondepth": root / "colondepth", "endoslam": root / "UnityCam"}


def published(tmp_path: Path):
    sets, scale = miniatures(tmp_path), GRID.scale("full")
    paths = parse_paths([str(sets["colondepth"]), f"endoslam={sets['endoslam']}"], GRID, scale)
    return paths, open_published(GRID, scale, paths, say=lambda _line: None)


def jobs_of(tmp_path: Path, **named) -> dict[str, Job]:
    _, data = published(tmp_path)
    jobs = plan_jobs(
        GRID.rows_of("full"),
        GRID.scale("full"),
        seeds=(0,),
        data=data,
        output=tmp_path / "out",
        teacher="",
        **named,
    )
    return {job.row: job for job in jobs}


def test_full_scale_is_the_published_setting(tmp_path: Path):
    jobs = jobs_of(tmp_path)
    assert (jobs["constant"].model, jobs["unadapted"].model) == (
        "baseline:constant",
        "LiheYoung/depth-anything-small-hf",
    )
    assert not any(job.needs for job in jobs.values())
    for row in ("full", "last-blocks", "lora", "head-only", "full-inverse"):
        recipe = load_recipe(jobs[row].recipe, jobs[row].overrides)
        assert (recipe.optimiser.lr, recipe.batch, recipe.epochs, recipe.steps) == (3e-5, 16, 20, None)
        assert recipe.data.size == (392, 252)
        assert recipe.model.initial == Path("LiheYoung/depth-anything-small-hf")
        (source,) = recipe.data.sources
        assert source == f"colondepth-train:{tmp_path / 'colondepth'}"
    assert "scratch" not in jobs


def test_other_weights_take_the_place_of_the_released_ones(tmp_path: Path):
    usual = jobs_of(tmp_path)
    jobs = jobs_of(tmp_path, pretrained={"model.initial": "/weights/da"})
    assert jobs["unadapted"].model == "/weights/da"
    assert load_recipe(jobs["full"].recipe, jobs["full"].overrides).model.initial == Path("/weights/da")
    assert {row for row, job in jobs.items() if job.key != usual[row].key} == set(jobs) - {"constant"}


class Bright:
    """Reads depth up to a factor off the light, which falls off with it here."""

    name, kind = "bright", DepthKind.RELATIVE_DEPTH

    def __init__(self) -> None:
        self.provenance: dict[str, str | float | None] = {}
        self.seen: list[str] = []

    def predict(self, name: str, frame: Frame) -> DepthMap:
        self.seen.append(name)
        return as_map(1 / np.maximum(frame.image[..., 0].astype(np.float64), 1), self.kind)


def test_every_organ_is_scored_for_itself_and_the_held_out_part_alone(tmp_path: Path):
    paths, data = published(tmp_path)
    assert set(paths) == {"colondepth", "stomach", "small-intestine", "colon"}
    assert [test.sequence for test in data.tests] == ["T3_L3", "stomach", "small intestine", "colon"]
    job = jobs_of(tmp_path)["constant"]
    job.folder.mkdir(parents=True)
    bright = Bright()
    result = run(job, lambda _job: Trained(predictor=bright, recipe_sha256="r", steps=1, images=1))
    assert {role: score.entries for role, score in result.scores.items()} == {
        "colondepth": 1,
        "stomach": 2,
        "small-intestine": 2,
        "colon": 2,
    }
    assert not any(score.failed for score in result.scores.values())
    assert all(score.metrics["abs_rel"] < 0.15 for score in result.scores.values())  # type: ignore[operator]
    assert sum("T3_L3" in name for name in bright.seen) == 1
    assert not any("T1_L1" in name for name in bright.seen)


def test_training_pictures_are_those_that_are_not_held_out(tmp_path: Path):
    from endolux.datasets import open_dataset

    root = miniatures(tmp_path)["colondepth"]
    whole = {key.sequence for key in open_dataset("colondepth", root).keys()}  # noqa: SIM118
    assert {key.sequence for key in open_dataset("colondepth-train", root).keys()} == whole - {"T3_L3/1"}  # noqa: SIM118


def test_parts_of_one_set_are_named_once(tmp_path: Path):
    sets, scale = miniatures(tmp_path), GRID.scale("full")
    with pytest.raises(UsageError) as problem:
        parse_paths([f"stomach={sets['endoslam']}"], GRID, scale)
    assert "endoslam" in problem.value.why
    with pytest.raises(UsageError) as missing:
        open_published(GRID, scale, {}, say=lambda _line: None)
    assert missing.value.fix.count("endoslam=PATH") == 1
    with pytest.raises(UsageError, match="Two folders"):
        parse_paths([f"endoslam={tmp_path}", f"endoslam={tmp_path}"], GRID, scale)


def test_networks_of_disparity_are_scored_as_such():
    pytest.importorskip("transformers")
    from endolux.models import create
    from endolux.reproduce.training import NetworkPredictor

    tiny = {"hidden_size": 32, "blocks": 4, "heads": 2, "fusion": 16, "head_width": 8, "grid": 4}
    tiny |= {"neck": [8, 12, 16, 24], "taps": [1, 2, 3, 4]}
    for output, kind in (("disparity", DepthKind.RELATIVE_DISPARITY), ("depth", DepthKind.METRIC)):
        network = create("depth-anything-v1-s", output=output, **tiny)
        predictor = NetworkPredictor(network, name="n", size=(56, 42))
        frame = Frame(image=np.zeros((42, 56, 3), np.uint8), index=0, name="a")
        assert predictor.kind is predictor.predict("a", frame).kind is kind


def test_costs_are_of_rows_and_count_what_is_trained(tmp_path: Path):
    pytest.importorskip("transformers")
    from endolux.reproduce.adaptation_costs import TRAINED
    from endolux.reproduce.costs import measure_costs

    rows = GRID.rows_of("smoke")
    costs = measure_costs(GRID, rows, GRID.scale("smoke"), tmp_path, say=lambda _line: None, time_networks=None)
    assert set(costs) == {"full", "last-blocks", "lora", "head-only", "full-inverse", "scratch"}
    trained = {name: cost.counts[TRAINED] for name, cost in costs.items()}
    assert trained["full"] == costs["full"].parameters == trained["scratch"]
    assert trained["head-only"] < trained["lora"] < trained["full"]
    assert trained["head-only"] < trained["last-blocks"] < trained["full"]
    assert all(len(cost.legacy_s) == len(cost.single_s) == 3 for cost in costs.values())
    kept = measure_costs(GRID, rows, GRID.scale("smoke"), tmp_path, say=lambda _line: None, time_networks=None)
    assert kept == costs
    asked = measure_costs(GRID, rows, GRID.scale("smoke"), tmp_path, say=lambda _line: None, time_networks=no_timing)
    assert set(asked) == set(costs)
