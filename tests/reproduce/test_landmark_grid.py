"""The grid of SRFT-GaLore: its rows, their starts, its runs, its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from endolux.errors import UsageError
from endolux.models import architectures, parts
from endolux.reproduce.grid import Grid, Row, choose_rows, load_grid
from endolux.reproduce.job import LANDMARK_PROTOCOL, Data, Job, ScoredSet
from endolux.reproduce.plan import plan_jobs, row_overrides
from endolux.reproduce.weights import parse_weights
from endolux.train.recipe import load_recipe

IMAGE, DEPTH = "segmentation.image_encoder", "segmentation.depth_encoder"


@pytest.fixture(scope="module")
def grid() -> Grid:
    return load_grid("srft-galore")


def jobs_of(grid: Grid, scale: str, folder: Path, *, data: str = "d" * 64, **changes: object) -> dict[str, Job]:
    roles = (("depth", "folder", "phantom-shape"), ("scenes", "l3d", LANDMARK_PROTOCOL))
    found = Data(
        sources=(str(folder / "train"),),
        tests=tuple(ScoredSet(role=r, reader=n, path=folder / r, protocol=p) for r, n, p in roles),
        titles={"depth": "depth", "scenes": "scenes"},
        sha256=data,
        facts={},
        more_sources={"liver": ("l3d:liver",)},
    )
    planned = plan_jobs(
        grid.rows_of(scale),
        grid.scale(scale),
        seeds=(0, 1),
        data=found,
        output=folder,
        teacher="",
        **changes,  # type: ignore[arg-type]
    )
    return {job.name: job for job in planned}


def test_rows_have_recipes_and_the_optimisers_that_their_names_say(grid: Grid) -> None:
    for scale in grid.scales:
        for row in grid.rows_of(scale):
            recipe = load_recipe(row.recipe, row_overrides(row, grid.scale(scale), 0, None))
            assert row.architecture in (*architectures(), *parts())
            assert recipe.model.name == row.architecture
            assert recipe.steps is None if scale == "full" else recipe.epochs is None
            if row.prior or row.name == "d2gpland":
                continue
            encoders = recipe.model.config["encoders"]
            assert encoders == {"frozen": "frozen", "lora": "lora", "full": "full"}.get(
                row.name.split("-")[0], "galore"
            )
            assert (recipe.optimiser.name == "galore") is (encoders == "galore")
            assert recipe.model.config.get("depth", True) is not row.name.endswith("plain")
            if encoders == "galore":
                kind = {"galore-svd": "svd", "gaussian": "gaussian"}.get(row.name, "srft")
                assert (recipe.optimiser.projection, recipe.optimiser.power) == (kind, 0)
    # Everything but the encoder's training is the same, decay and rate included.
    for scale in ("desk", "full"):
        recipes = [
            load_recipe(row.recipe, row_overrides(row, grid.scale(scale), 0, None))
            for row in grid.rows_of(scale)
            if not row.prior and row.name != "d2gpland"
        ]
        assert len({(r.optimiser.lr, r.optimiser.weight_decay, r.optimiser.eps, r.batch, r.loss) for r in recipes}) == 1


def test_sets_share_no_scene(grid: Grid) -> None:
    for name in ("desk", "smoke"):
        phantom = grid.scale(name).phantom
        assert phantom is not None
        stills = [phantom.train, *phantom.sets.values()]
        assert len({frames.seed for frames in stills}) == len(stills)
        # Scenes of different splits are different ones whatever their seeds.
        assert {liver.split for liver in phantom.liver.values()} == {"train"}
        assert {liver.split for liver in phantom.liver_sets.values()} == {"test"}
        assert phantom.width % 32 == phantom.height % 32 == 0
        assert {"liver", "liver_sets"} <= set(phantom.identity())
    leve = load_grid("leve").scale("desk").phantom
    assert leve is not None
    assert not {"liver", "liver_sets"} & set(leve.identity())


def test_runs_start_from_both_priors_and_are_scored_on_what_they_answer(grid: Grid, tmp_path: Path) -> None:
    jobs = jobs_of(grid, "desk", tmp_path)
    assert sum(job.once for job in jobs.values()) == 2
    srft, plain, prior = jobs["srft-seed1"], jobs["srft-plain-seed0"], jobs["prior-image-seed0"]
    assert set(srft.needs) == {"prior-image-seed0", "prior-depth-seed0"}
    assert plain.needs == ("prior-image-seed0",)
    recipe = load_recipe(srft.recipe, srft.overrides)
    assert recipe.segmentation is not None
    assert recipe.segmentation.image_encoder == (tmp_path / "runs/prior-image-seed0/run").as_posix()
    assert recipe.data.sources == ("l3d:liver",)
    bare = load_recipe(plain.recipe, plain.overrides).segmentation
    assert bare is not None
    assert bare.depth_encoder is None
    assert [test.role for test in srft.tests] == ["scenes"]
    assert [test.role for test in prior.tests] == ["depth"]
    # Another prior is another run of everything that starts from it.
    other = jobs_of(grid, "desk", tmp_path, changes=("optimiser.lr=2e-3",))
    assert other["srft-seed1"].key != srft.key


def test_a_row_brings_its_priors(grid: Grid) -> None:
    assert [row.name for row in choose_rows(grid, "desk", ["srft-plain"])] == ["prior-image", "srft-plain"]
    assert [row.name for row in choose_rows(grid, "full", ["srft"])] == ["srft"]


def test_full_scale_takes_weights_from_folders(grid: Grid, tmp_path: Path) -> None:
    weights = parse_weights([f"{IMAGE}={tmp_path}", f"{DEPTH}=owner/small"], grid.rows_of("full"))
    assert weights == {IMAGE: str(tmp_path.resolve()), DEPTH: "owner/small"}
    jobs = jobs_of(grid, "full", tmp_path, pretrained=weights)
    both = load_recipe("srft-galore", jobs["srft-seed0"].overrides).segmentation
    bare = load_recipe("srft-galore", jobs["srft-plain-seed0"].overrides).segmentation
    assert both is not None
    assert bare is not None
    assert (both.image_encoder, both.depth_encoder) == (weights[IMAGE], weights[DEPTH])
    assert (bare.image_encoder, bare.depth_encoder) == (weights[IMAGE], None)
    without = jobs_of(grid, "full", tmp_path)["srft-seed0"]
    hub = load_recipe("srft-galore", without.overrides).segmentation
    assert hub is not None
    assert hub.image_encoder == "facebook/sam2.1-hiera-large"
    assert without.key != jobs["srft-seed0"].key


@pytest.mark.parametrize(
    ("scale", "texts", "fix"),
    [
        ("full", ["segmentation.image_encode=a/b"], "Did you mean 'segmentation.image_encoder=MODEL'?"),
        ("full", ["segmentation.image_encoder"], "Did you mean 'segmentation.image_encoder=MODEL'?"),
        ("full", [f"{IMAGE}=a/b", f"{IMAGE}=a/c"], "Give one of them."),
        ("desk", [f"{IMAGE}=a/b"], "Leave it out, or choose another scale."),
    ],
)
def test_weights_that_nobody_uses_are_refused(grid: Grid, scale: str, texts: list[str], fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_weights(texts, grid.rows_of(scale))
    assert (caught.value.error_id, caught.value.fix) == ("reproduce.weights", fix)


def test_a_start_that_is_no_prior_is_refused(grid: Grid) -> None:
    document = grid.model_dump(mode="json")
    for row in document["rows"]:
        if row["name"] == "prior-depth":
            row["prior"] = False
    with pytest.raises(ValueError, match="starts from 'prior-depth', which is no prior above it"):
        Grid.model_validate(document)
    with pytest.raises(ValueError, match="starts nothing"):
        Row(name="a", model="b", starts={"c": "d"})
