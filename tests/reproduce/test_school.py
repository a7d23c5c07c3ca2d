"""A reproduction without published figures: tables, claims, what was left out, and a real one at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import TAUGHT, Clock, FakeRun, FakeRuns, cost, scened, taught_data
from test_measures import write_simcol

from endolux.errors import InputError, UsageError
from endolux.reproduce import command
from endolux.reproduce.command import Options, reproduce
from endolux.reproduce.grid import Grid
from endolux.reproduce.job import Job
from endolux.reproduce.report import document, markdown
from endolux.reproduce.results import write_result

COSTS = {"litenet-l": cost(0.3, 0.31, 0.29, macs=8), "litenet-t": cost(0.1, 0.11, 0.1, macs=1)}
REL = {"labels": 0.3, "pupil": 0.15, "friend": 0.2, "master": 0.1}


class SceneRun(FakeRun):
    """Leaves figures by scene, as real runs do."""

    def poll(self) -> int | None:
        code = super().poll()
        if code == 0:
            rel = REL[self.job.row] + 0.001 * self.job.seed
            found = scened(
                self.job.row,
                self.job.seed,
                rel=[rel, rel + 0.1],
                leak=[-rel, -rel],
                once=self.job.once,
                key=self.job.key,
            )
            write_result(self.job.folder, found)
        return code


class SceneRuns(FakeRuns):
    def __call__(self, job: Job) -> SceneRun:
        self.begun.append(job.name)
        return SceneRun(self, job)


@pytest.fixture
def school(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`reproduce` on the school with fake runs on data that were rendered before."""
    monkeypatch.setattr(command, "load_grid", lambda _name: Grid.model_validate(TAUGHT))
    given: dict[str, object] = {}
    monkeypatch.setattr(command, "phantom_data", lambda *_a, **named: given.update(named) or taught_data(tmp_path))
    real = command.run_jobs

    def call(*, runs: FakeRuns | None = None, **options):
        runs = runs or SceneRuns(Clock())
        monkeypatch.setattr(
            command,
            "run_jobs",
            lambda jobs, **named: real(jobs, **{**named, "clock": runs.clock, "sleep": runs.clock.sleep}),
        )
        return reproduce(
            "school",
            tmp_path / "out",
            options=Options(**options),
            start=runs,
            time_networks=lambda _folder, _names: COSTS,
        )

    call.given = given
    return call


def test_measured_tables_claims_and_what_was_left_out(school, tmp_path: Path):
    found = school()
    text = (tmp_path / "out/tables.md").read_text()
    assert text == markdown(found)
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written == json.loads(json.dumps(document(found), allow_nan=False))
    (table,) = written["tables"]
    assert [row["row"] for row in table["rows"]] == ["labels", "pupil", "friend", "master"]
    pupil, master = table["rows"][1], table["rows"][3]
    assert pupil["measured"]["abs_rel"]["mean"] == pytest.approx(0.2005)
    assert pupil["difference"]["abs_rel"]["mean"] == pytest.approx(-0.15)
    assert pupil["scene_difference"]["abs_rel"]["seeds"] == 2
    assert (master["seeds"], master["measured"]["abs_rel"]["low"]) == ([0], None)
    assert master["difference"]["abs_rel"]["seeds"] == 2
    claims = {claim["id"]: claim for claim in written["claims"]}
    assert {name: claim["verdict"] for name, claim in claims.items()} == {"gap": "held", "leak": "held"}
    assert claims["gap"]["scenes"]["verdict"] == "held"
    assert written["left_out"] == ["zero-shot tables of simcol3d: no --real-data was given"]
    assert "publ." not in text
    assert "Zero-shot" not in text.replace("zero-shot tables of", "")
    assert "- zero-shot tables of simcol3d: no --real-data was given" in text
    assert "| 0.150 " not in text.split("## Cost")[1]
    assert "the master" in text
    assert "| litenet-t | 5 " in text
    assert str(tmp_path) not in text + json.dumps(written)
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
            assert len({len(line) for line in block.splitlines()}) == 1


def test_longer_trainings_are_expected_to_take_longer(school):
    # The teacher has nine steps of a network of eight times the size; after a student, it is known not to fit.
    school(rows=("labels",), seeds=(0,))
    found = school(runs=SceneRuns(Clock()), seeds=(0,), minutes=60 / 60)
    assert set(found.missing) == {"master-seed0", "pupil-seed0", "friend-seed0"}


def test_another_teacher_is_scored_in_the_place_of_the_row(school):
    runs = SceneRuns(Clock())
    found = school(teacher="repdepth-colon", seeds=(0, 1), runs=runs)
    assert {row for row, _ in found.runs} == {"master", "labels", "pupil", "friend"}
    assert runs.begun.count("master-seed0") == 1
    assert "master-seed1" not in runs.begun
    assert {judged.claim.id: judged.verdict.value for judged in found.verdicts()} == {"gap": "held", "leak": "held"}
    (table,) = document(found)["tables"]
    assert [row["row"] for row in table["rows"]] == ["labels", "pupil", "friend", "master"]
    text = markdown(found)
    assert "- master: `repdepth-colon`, scored as it is." in text
    assert "its claims" not in text
    assert "--teacher repdepth-colon" in text.split("## Rerun")[1]


def test_another_teacher_is_not_timed_as_the_row_it_stands_for(school, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(
        command, "measure_costs", lambda _grid, rows, *_a, **_k: asked.extend(r.architecture for r in rows) or COSTS
    )
    school(teacher="repdepth-colon", seeds=(0,))
    assert "litenet-l" not in asked
    school(rows=("master",), seeds=(0,), teacher="repdepth-colon")


def test_real_data_is_looked_at_first_and_part_of_the_identity(school, tmp_path: Path):
    with pytest.raises(InputError) as problem:
        school(real_data=tmp_path / "nowhere")
    assert problem.value.error_id == "reproduce.real-data"
    assert not (tmp_path / "out").exists()
    root = write_simcol(tmp_path / "real")
    school(real_data=root, seeds=(0,))
    assert school.given["real"] == root
    assert school.given["scoring"] == "shape"
    with pytest.raises(UsageError) as other:
        school(seeds=(0,))
    assert other.value.error_id == "output.other-run"


def test_systems_without_real_tables_refuse_real_data(tmp_path: Path):
    with pytest.raises(UsageError) as problem:
        reproduce("leve", tmp_path / "out", options=Options(scale="smoke", real_data=tmp_path))
    assert problem.value.error_id == "reproduce.real-data"
