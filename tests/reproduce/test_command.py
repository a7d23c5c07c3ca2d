"""The whole with runs that take no time: folders, tables, what a second call adds, and bad options."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fakes import DOCUMENT, Clock, FakeRuns, cost, data

from endolux.errors import InputError, MissingExtraError, UsageError
from endolux.reproduce import command
from endolux.reproduce.command import Options, reproduce
from endolux.reproduce.data import parse_paths
from endolux.reproduce.grid import Grid, load_grid
from endolux.reproduce.job import Job
from endolux.reproduce.report import document, markdown

COSTS = {"leve": cost(0.3, 0.31, 0.29), "leve-5x5-5x5": cost(0.6, 0.63, 0.55)}
PHANTOM = {
    "width": 64,
    "height": 64,
    "even_light": 0.0,
    "train": {"anatomies": ["colon"], "frames": 8, "views_per_scene": 4, "seed": 1},
    "sets": {
        "home": {"anatomies": ["colon"], "frames": 4, "views_per_scene": 4, "seed": 2},
        "away": {"anatomies": ["tube"], "frames": 4, "views_per_scene": 4, "seed": 3},
    },
}


def value(job: Job) -> float:
    """Figures where teaching helps a lot and size hardly, with a little of the seed in them."""
    return {"base": 0.2, "big": 0.199, "taught": 0.1}[job.row] + 0.01 * job.seed


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`reproduce` on the small grid with fake runs on data that were rendered before."""
    scales = {**DOCUMENT["scales"], "desk": {**DOCUMENT["scales"]["desk"], "phantom": PHANTOM}}
    grid = Grid.model_validate({**DOCUMENT, "scales": scales})
    monkeypatch.setattr(command, "load_grid", lambda _name: grid)
    monkeypatch.setattr(command, "phantom_data", lambda *_a, **_k: data(tmp_path))

    def call(output: str | Path = tmp_path / "out", *, runs: FakeRuns | None = None, **options):
        runs = runs or FakeRuns(Clock(), value=value)
        clock = runs.clock
        monkeypatch.setattr(
            command,
            "run_jobs",
            lambda jobs, **named: real(jobs, **{**named, "clock": clock, "sleep": clock.sleep}),
        )
        return reproduce(
            "toy", Path(output), options=Options(**options), start=runs, time_networks=lambda _folder, _names: COSTS
        )

    real = command.run_jobs
    return call


def test_tables_claims_and_files(toy, tmp_path: Path):
    found = toy()
    text = (tmp_path / "out" / "tables.md").read_text()
    assert text == markdown(found)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written == json.loads(json.dumps(document(found)))
    assert len(written["runs"]) == 6
    verdicts = {claim["id"]: claim["verdict"] for claim in written["claims"]}
    assert verdicts == {"taught-away": "held", "big-rel": "held", "big-slow": "held"}
    scaled = {claim["id"]: claim["scaled"] and claim["scaled"]["verdict"] for claim in written["claims"]}
    assert scaled == {"taught-away": "not held", "big-rel": "held", "big-slow": None}
    assert text.count("after median scaling") == 2
    table = written["tables"][0]
    assert table["rows"][2]["scaled"]["abs_rel"]["mean"] == pytest.approx(0.4475)
    assert table["rows"][2]["scaled_difference"]["abs_rel"]["mean"] == pytest.approx(0.05)
    base = table["rows"][0]
    assert (base["row"], base["published"]["abs_rel"], base["difference"]) == ("base", 0.142, None)
    assert base["measured"]["abs_rel"]["mean"] == pytest.approx(0.205)
    assert table["rows"][2]["published"] is None
    assert table["rows"][2]["difference"]["abs_rel"]["mean"] == pytest.approx(-0.1)
    assert "Table 3" not in text
    assert "| the base " in text
    assert "RMSE publ. (m)" in text
    assert "RMSE meas. (mm)" in text
    assert "the bundled network" in text
    assert str(tmp_path) not in text + json.dumps({**written, "runs": []})


def test_every_markdown_table_is_well_formed(toy):
    widths = set()
    for block in markdown(toy(seeds=(0,))).split("\n\n"):
        lines = block.splitlines()
        if not lines[0].startswith("|"):
            continue
        assert set(lines[1]) <= {"|", "-", " "}
        assert len({line.count("|") for line in lines}) == 1
        widths |= {len({len(line) for line in lines})}
    assert widths == {1}


def test_one_seed_shows_no_interval_and_decides_nothing(toy):
    found = toy(seeds=(3,))
    kinds = {judged.claim.id: judged.verdict.value for judged in found.verdicts()}
    assert kinds == {"taught-away": "undecided", "big-rel": "undecided", "big-slow": "held"}
    assert "0.230" in markdown(found)
    assert "nan" not in markdown(found).lower().replace("nano", "")


def test_a_second_call_adds_seeds_and_repeats_nothing(toy):
    toy(seeds=(0,))
    more = FakeRuns(Clock(), value=value)
    found = toy(runs=more, seeds=(0, 1, 2))
    assert more.begun == [f"{row}-seed{seed}" for seed in (1, 2) for row in ("base", "big", "taught")]
    assert len(found.runs) == 9


def test_failures_and_missing_runs_are_told(toy):
    runs = FakeRuns(Clock(), value=value, failing=("big-seed1",), seconds=dict.fromkeys(("base", "big", "taught"), 15))
    found = toy(runs=runs, seeds=(0, 1), minutes=0.001)
    # Nothing was known of the first runs, so one was begun; the budget was over after it.
    assert found.missing
    text = markdown(found)
    for name in found.missing:
        assert f"- {name}: outside the time budget" in text
    found = toy(runs=FakeRuns(Clock(), value=value, failing=("big-seed1",)), seeds=(0, 1))
    assert [(failure.row, failure.seed) for failure in found.failures] == [("big", 1)]
    assert "big-seed1 failed: RuntimeError: no luck" in markdown(found)
    assert len(found.runs) == 5


def test_rows_can_be_chosen(toy):
    found = toy(rows=("taught", "base"))
    assert {row for row, _ in found.runs} == {"base", "taught"}
    assert [judged.claim.id for judged in found.verdicts()] == ["taught-away"]
    assert "--rows base,taught" in markdown(found)


def test_changes_are_part_of_the_identity(toy):
    toy(changes=("optimiser.lr=1e-2",))
    with pytest.raises(UsageError) as problem:
        toy()
    assert problem.value.error_id == "output.other-run"


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,)])
def test_impossible_seeds(toy, seeds: tuple[int, ...]):
    with pytest.raises(UsageError) as problem:
        toy(seeds=seeds)
    assert problem.value.error_id == "reproduce.seeds"


def test_missing_imagenet_file(toy, tmp_path: Path):
    with pytest.raises(InputError) as problem:
        toy(imagenet=tmp_path / "no.pth")
    assert problem.value.error_id == "input.missing"
    assert not (tmp_path / "out").exists()


def test_missing_extra(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "accelerate" else object())
    with pytest.raises(MissingExtraError) as problem:
        toy()
    assert problem.value.fix == "pip install 'endolux[train]'"
    assert not (tmp_path / "out").exists()


def test_full_needs_the_training_set(toy, tmp_path: Path):
    with pytest.raises(UsageError) as problem:
        toy(scale="full")
    assert problem.value.error_id == "reproduce.data"
    assert "--data" in problem.value.fix
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError):
        toy(scale="full", data=(str(tmp_path / "nowhere"),))


def test_data_options(tmp_path: Path):
    grid = load_grid("leve")
    full, desk = grid.scale("full"), grid.scale("desk")
    assert parse_paths(["/nyu", "kitti=/k"], grid, full) == {"nyu": Path("/nyu"), "kitti": Path("/k")}
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert parse_paths([str(odd)], grid, full) == {"nyu": odd}
    for texts, scale in ((["/nyu"], desk), (["kiti=/k"], full), (["/a", "nyu=/b"], full)):
        with pytest.raises(UsageError) as problem:
            parse_paths(texts, grid, scale)
        assert problem.value.error_id == "reproduce.data"
    with pytest.raises(UsageError) as problem:
        parse_paths(["kiti=/k"], grid, full)
    assert problem.value.fix == "Did you mean 'kitti=/k'?"


def test_numbers_of_the_document_are_json(toy):
    text = json.dumps(document(toy(seeds=(0,))), allow_nan=False)
    assert json.loads(text)["tables"][0]["rows"][1]["difference"]["rmse"]["low"] is None
    assert not math.isnan(json.loads(text)["costs"]["leve"]["legacy_s"][0])
