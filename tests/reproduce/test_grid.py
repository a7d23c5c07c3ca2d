"""The grid of Leve against the specification's tables, and what a wrong grid says."""

from __future__ import annotations

import copy

import pytest
from fakes import DOCUMENT
from pydantic import ValidationError

from endolux.errors import UsageError
from endolux.reproduce.grid import HIGHER_IS_BETTER, METRICS, Grid, choose_rows, load_grid, systems

# Specification section 4: REL and seconds of tables 9.1 to 9.4 and 9.6 to 9.8.
REL = {
    ("nyu", "mobilenetv3"): 0.206,
    ("nyu", "3x3+3x3"): 0.142,
    ("nyu", "3x3"): 0.143,
    ("nyu", "3x3+1x1"): 0.143,
    ("nyu", "5x5+5x5"): 0.140,
    ("nyu", "3x3-dw-separable"): 0.148,
    ("nyu", "alternative"): 0.143,
    ("nyu", "none"): 0.146,
    ("nyu", "ts-10"): 0.144,
    ("nyu", "ts-25"): 0.144,
    ("nyu", "ts-50"): 0.145,
    ("kitti", "ts-10"): 0.777,
    ("kitti", "ts-25"): 0.790,
    ("kitti", "ts-50"): 0.787,
    ("kitti", "3x3+3x3"): 0.835,
    ("endoslam", "ts-10"): 35.971,
    ("endoslam", "ts-25"): 38.001,
    ("endoslam", "ts-50"): 34.404,
    ("endoslam", "3x3+3x3"): 45.658,
}


def test_published_figures_are_the_thesis():
    grid = load_grid("leve")
    for (role, row), rel in REL.items():
        assert grid.published[role][row][METRICS.index("abs_rel")] == rel
    for figures in grid.published.values():
        for values in figures.values():
            assert values[2] < values[3] < values[4] < 1
    assert grid.published["nyu"]["5x5+5x5"] == (0.514, 0.140, 0.816, 0.959, 0.989)
    assert grid.published_timing["leve-5x5-5x5"] == (0.055, 17.5)
    for seconds, rate in grid.published_timing.values():
        assert seconds * rate == pytest.approx(1, rel=0.05)


def test_desk_has_every_row_of_the_thesis_tables():
    grid = load_grid("leve")
    desk = {row.name for row in grid.rows_of("desk")}
    assert desk == {row for _, row in REL}
    assert {row.epsilon for row in grid.rows_of("desk")} == {None, 0.10, 0.25, 0.50}
    assert {row.name for row in grid.rows_of("full")} == desk | {"main-480x640", "guidedepth"}
    shown = {row for table in grid.tables if not table.scales for row in table.rows}
    assert shown == desk


def test_published_figures_agree_with_every_claim():
    grid = load_grid("leve")
    for claim in grid.claims:
        if claim.kind == "faster":
            first, second = (grid.published_timing[grid.row(name).architecture] for name in (claim.row, claim.than))
            assert first[0] < second[0], claim.id
            continue
        index = METRICS.index(claim.metric)
        ours, other = (grid.published[claim.role][name][index] for name in (claim.row, claim.than))
        gain = ours - other if claim.metric in HIGHER_IS_BETTER else other - ours
        if claim.kind == "better":
            assert gain > 0, claim.id
        elif claim.kind == "not-better":
            assert gain < claim.margin * other, claim.id
        else:
            assert 0 < -gain < claim.margin * other, claim.id


def test_recipes_and_architectures_of_the_rows_exist():
    from endolux.models import architectures
    from endolux.train.recipe import load_recipe

    grid = load_grid("leve")
    for row in grid.rows:
        assert row.architecture in architectures()
        recipe = load_recipe(row.recipe, grid.scale("full").overrides)
        assert recipe.model.name == row.architecture
        assert recipe.batch == 8
        assert recipe.epochs == 20
        desk = load_recipe(row.recipe, grid.scale("desk").overrides)
        assert desk.steps is not None
        assert desk.epochs is None


def test_test_sets_of_the_phantom_scales_have_seeds_of_their_own():
    for name in ("desk", "smoke"):
        phantom = load_grid("leve").scale(name).phantom
        assert phantom is not None
        seeds = [phantom.train.seed, *(frames.seed for frames in phantom.sets.values())]
        assert len(set(seeds)) == len(seeds)
        assert set(phantom.train.anatomies) == set(phantom.sets["nyu"].anatomies)
        for role in ("kitti", "endoslam"):
            assert not set(phantom.train.anatomies) & set(phantom.sets[role].anatomies)
        assert phantom.width % 16 == phantom.height % 16 == 0


def test_nearest_names():
    assert "leve" in systems()
    with pytest.raises(UsageError) as problem:
        load_grid("levee")
    assert problem.value.error_id == "reproduce.system"
    assert "'leve'" in problem.value.fix
    with pytest.raises(UsageError) as problem:
        load_grid("leve").scale("dsk")
    assert (problem.value.error_id, problem.value.fix) == ("reproduce.scale", "Did you mean 'desk'?")
    with pytest.raises(UsageError) as problem:
        choose_rows(load_grid("leve"), "desk", ["ts25"])
    assert (problem.value.error_id, problem.value.fix) == ("reproduce.row", "Did you mean 'ts-25'?")


def test_rows_are_chosen_in_the_order_of_the_grid():
    grid = load_grid("leve")
    assert [row.name for row in choose_rows(grid, "desk", ["ts-25", "3x3+3x3"])] == ["3x3+3x3", "ts-25"]
    assert choose_rows(grid, "desk", []) == grid.rows_of("desk")


CLAIM = {"id": "c", "text": "", "kind": "better", "row": "base", "than": "big", "role": "home", "metric": "rmse"}


@pytest.mark.parametrize(
    "change",
    [
        {"reference": "nobody"},
        {"domain": "nowhere"},
        {"extra": 1},
        {"published": {"home": {"ghost": [1, 1, 1, 1, 1]}}},
        {"tables": [{"title": "t", "role": "home", "rows": ["ghost"]}]},
        {"claims": [{**CLAIM, "metric": "x"}]},
        {"claims": [{**CLAIM, "than": "ghost"}]},
        {"claims": [{**CLAIM, "margin": 0.1}]},
        {"claims": [{**CLAIM, "kind": "not-better"}]},
    ],
)
def test_a_grid_that_contradicts_itself_is_refused(change: dict):
    with pytest.raises(ValidationError):
        Grid.model_validate({**copy.deepcopy(DOCUMENT), **change})
