"""Runs within a budget: order, slots, failures, what is kept and what an interruption leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakes import Clock, FakeRuns, data

from endolux.errors import UsageError
from endolux.reproduce.grid import Grid
from endolux.reproduce.job import Job
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.results import FAILURE_FILE, RESULT_FILE, read_failure, read_result
from endolux.reproduce.schedule import Outcome, Process, run_jobs


@pytest.fixture
def jobs(grid: Grid, tmp_path: Path) -> tuple[Job, ...]:
    return plan_jobs(
        grid.rows_of("desk"),
        grid.scale("desk"),
        seeds=(0, 1),
        data=data(tmp_path),
        output=tmp_path / "out",
        teacher="repdepth-colon",
    )


def schedule(jobs: tuple[Job, ...], runs: FakeRuns, **named) -> Outcome:
    return run_jobs(jobs, start=runs, clock=runs.clock, sleep=runs.clock.sleep, **named)


def names(jobs: tuple[Job, ...]) -> list[str]:
    return [job.name for job in jobs]


@pytest.mark.parametrize("slots", [1, 2, 9])
def test_every_run_is_made_once_in_order(jobs: tuple[Job, ...], slots: int):
    runs = FakeRuns(Clock())
    outcome = schedule(jobs, runs, slots=slots)
    assert runs.begun == names(jobs)
    assert sorted(names(outcome.done)) == sorted(names(jobs))
    assert runs.most == min(slots, len(jobs))
    assert all(read_result(job) for job in jobs)
    assert not outcome.failed
    assert not outcome.left


def test_finished_runs_are_kept(jobs: tuple[Job, ...]):
    schedule(jobs[:2], FakeRuns(Clock()))
    before = (jobs[0].folder / RESULT_FILE).read_bytes()
    runs = FakeRuns(Clock(), value=lambda _job: 0.9)
    outcome = schedule(jobs, runs)
    assert runs.begun == names(jobs[2:])
    assert names(outcome.kept) == names(jobs[:2])
    assert (jobs[0].folder / RESULT_FILE).read_bytes() == before


def test_a_damaged_result_is_made_anew(jobs: tuple[Job, ...]):
    schedule(jobs, FakeRuns(Clock()))
    (jobs[3].folder / RESULT_FILE).write_text("{")
    runs = FakeRuns(Clock())
    schedule(jobs, runs)
    assert runs.begun == [jobs[3].name]


def test_the_budget_leaves_runs_out_and_says_which(jobs: tuple[Job, ...]):
    said: list[str] = []
    runs = FakeRuns(Clock(), seconds={"base": 10, "big": 20, "taught": 15})
    outcome = schedule(jobs, runs, seconds=60, on_change=said.append)
    # 45 s for the first seed, then base fits (55 s), big and taught do not.
    assert names(outcome.done) == names(jobs[:4])
    assert names(outcome.left) == names(jobs[4:])
    assert outcome.seconds <= 60
    assert sum("left out" in line for line in said) == 2
    more = schedule(jobs, FakeRuns(Clock()), seconds=600)
    assert names(more.done) == names(jobs[4:])


def test_what_is_expected_of_a_new_row_follows_from_its_weight(jobs: tuple[Job, ...]):
    runs = FakeRuns(Clock(), seconds={"base": 10, "big": 20, "taught": 15})
    outcome = schedule(jobs[:3], runs, seconds=28, weights={"base": 1.0, "big": 2.0, "taught": 1.1})
    # After base (10 s) big is expected to take 20 s, taught 11 s.
    assert names(outcome.done) == ["base-seed0", "taught-seed0"]
    assert names(outcome.left) == ["big-seed0"]


def test_times_of_kept_runs_count_as_known(jobs: tuple[Job, ...]):
    schedule(jobs[:1], FakeRuns(Clock(), seconds={"base": 50}))
    outcome = schedule(jobs, FakeRuns(Clock()), seconds=40)
    assert not outcome.done
    assert len(outcome.left) == 5


def test_a_failure_loses_nothing_else(jobs: tuple[Job, ...]):
    runs = FakeRuns(Clock(), failing=("big-seed0",), dying=("taught-seed1",))
    outcome = schedule(jobs, runs, slots=2)
    assert sorted(names(outcome.failed)) == ["big-seed0", "taught-seed1"]
    assert len(outcome.done) == 4
    first, second = (read_failure(job) for job in sorted(outcome.failed, key=lambda job: job.name))
    assert first is not None
    assert second is not None
    assert "no luck" in first.what
    assert "signal 9" in second.what
    assert "Killed by nobody" in second.what
    again = FakeRuns(Clock())
    outcome = schedule(jobs, again)
    assert sorted(again.begun) == ["big-seed0", "taught-seed1"]
    assert not (jobs[1].folder / FAILURE_FILE).exists()
    assert not outcome.failed


def test_an_interruption_stops_what_runs_and_keeps_what_is_done(jobs: tuple[Job, ...]):
    class Impatient(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now > 7:
                raise KeyboardInterrupt

    runs = FakeRuns(Impatient())
    with pytest.raises(KeyboardInterrupt):
        schedule(jobs, runs, slots=2)
    assert runs.stopped == names(jobs[4:6])
    assert [read_result(job) is not None for job in jobs] == [True] * 4 + [False] * 2


def test_a_foreign_run_is_refused_before_anything_begins(jobs: tuple[Job, ...], grid: Grid, tmp_path: Path):
    schedule(jobs[-1:], FakeRuns(Clock()))
    changed = plan_jobs(
        grid.rows_of("desk"),
        grid.scale("desk"),
        seeds=(0, 1),
        data=data(tmp_path, sha256="f" * 64),
        output=tmp_path / "out",
        teacher="repdepth-colon",
    )
    runs = FakeRuns(Clock())
    with pytest.raises(UsageError) as problem:
        schedule(changed, runs)
    assert problem.value.error_id == "output.other-run"
    assert not runs.begun


def test_a_process_reports_its_failure(jobs: tuple[Job, ...], monkeypatch: pytest.MonkeyPatch):
    # The recipe needs data that do not exist: the worker tells it in three lines and leaves them behind.
    assert Path(sys.executable).exists()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outcome = run_jobs(jobs[:1], start=Process)
    assert names(outcome.failed) == ["base-seed0"]
    failure = read_failure(jobs[0])
    assert failure is not None
    assert failure.error_id == "train.no-data"
    assert "error[train.no-data]" in (jobs[0].folder / "log.txt").read_text()
