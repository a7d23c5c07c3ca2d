"""A small grid, and a runner that writes results instead of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from endolux.reproduce.grid import METRICS, Grid
from endolux.reproduce.job import Data, Job, ScoredSet
from endolux.reproduce.results import RunFailure, RunResult, Score, write_failure, write_result
from endolux.reproduce.timing import Cost

DOCUMENT: dict = {
    "system": "toy",
    "title": "Toy",
    "source": "nowhere",
    "reference": "base",
    "domain": "home",
    "roles": {"home": {"title": "Home", "unit": "m"}, "away": {"title": "Away", "unit": "m"}},
    "rows": [
        {"name": "base", "recipe": "leve", "architecture": "leve"},
        {"name": "big", "title": "The big one", "recipe": "leve-5x5-5x5", "architecture": "leve-5x5-5x5"},
        {"name": "taught", "recipe": "leve-distilled", "architecture": "leve", "epsilon": 0.25},
        {"name": "huge", "recipe": "leve", "architecture": "leve", "scales": ["full"], "size": [64, 32]},
    ],
    "scales": {
        "desk": {
            "summary": "small",
            "minutes": 1,
            "seeds": [0, 1],
            "threads": 1,
            "conversion": "correct",
            "teacher": "repdepth-colon",
            "teacher_note": "the bundled network",
            "timing": {"width": 64, "height": 64, "rounds": 2},
            "overrides": ["epochs=null", "steps=4"],
        },
        "full": {
            "summary": "all",
            "seeds": [0],
            "conversion": "reproduce",
            "teacher": "somebody/else",
            "teacher_note": "as published",
            "timing": {"width": 64, "height": 64, "rounds": 2},
            "overrides": ["epochs=2"],
            "distillation_overrides": ["distillation.response.maximum=batch"],
            "readers": {
                "home": {"title": "Home", "reader": "nyu", "protocol": "nyu-eigen-leve", "train": "nyu-train"},
                "away": {"title": "Away", "reader": "kitti", "protocol": "kitti-eigen-leve"},
            },
        },
    },
    "tables": [
        {"title": "Table 1", "role": "home", "rows": ["base", "big", "taught"], "titles": {"base": "the base"}},
        {"title": "Table 2", "role": "away", "rows": ["taught", "base"]},
        {"title": "Table 3", "role": "home", "rows": ["huge", "base"], "scales": ["full"]},
    ],
    "published": {
        "home": {"base": [0.516, 0.142, 0.814, 0.958, 0.988], "big": [0.514, 0.140, 0.816, 0.959, 0.989]},
        "away": {"base": [12.051, 0.835, 0.209, 0.408, 0.600], "taught": [12.484, 0.790, 0.223, 0.431, 0.615]},
    },
    "published_timing": {"leve": [0.037, 27], "leve-5x5-5x5": [0.055, 17.5]},
    "claims": [
        {
            "id": "taught-away",
            "text": "Teaching helps away",
            "kind": "better",
            "row": "taught",
            "than": "base",
            "role": "away",
            "metric": "abs_rel",
        },
        {
            "id": "big-rel",
            "text": "Big is not better",
            "kind": "not-better",
            "row": "big",
            "than": "base",
            "role": "home",
            "metric": "abs_rel",
            "margin": 0.05,
        },
        {"id": "big-slow", "text": "Big is slower", "kind": "faster", "row": "base", "than": "big"},
    ],
}


def small_grid() -> Grid:
    return Grid.model_validate(DOCUMENT)


def data(tmp_path: Path, *, sha256: str = "d" * 64) -> Data:
    tests = tuple(
        ScoredSet(role=f"{role}{ending}", reader="folder", path=tmp_path / role, protocol="phantom")
        for role in ("home", "away")
        for ending in ("", ":scaled")
    )
    titles = {"home": "rendered home", "away": "rendered away"}
    return Data(
        sources=(str(tmp_path / "train"),), tests=tests, titles=titles, sha256=sha256, facts={"kind": "phantom"}
    )


def scores(**rel: float) -> dict[str, Score]:
    """Scores whose every metric is the given number for each role."""
    return {
        role: Score(
            protocol="phantom-leve/1",
            list_sha256="0" * 64,
            entries=8,
            failed=0,
            unit="mm",
            metrics=dict.fromkeys(METRICS, value),
        )
        for role, value in rel.items()
    }


def result(row: str, seed: int, *, key: str = "k", seconds: float = 3.0, **rel: float) -> RunResult:
    return RunResult(
        row=row,
        seed=seed,
        key=key,
        recipe_sha256="1" * 64,
        steps=4,
        images=32,
        train_s=seconds - 1,
        evaluate_s=1.0,
        seconds=seconds,
        scores=scores(**rel),
    )


def cost(*seconds: float, macs: int = 10) -> Cost:
    return Cost(parameters=5, macs=macs, legacy_s=seconds, single_s=seconds)


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 1.0


class FakeRuns:
    """Begins runs that take stated seconds and leave a result, a failure or nothing."""

    def __init__(
        self,
        clock: Clock,
        *,
        seconds: Mapping[str, float] | None = None,
        value: Callable[[Job], float] = lambda _job: 0.2,
        failing: tuple[str, ...] = (),
        dying: tuple[str, ...] = (),
    ) -> None:
        self.clock, self.seconds, self.value = clock, seconds or {}, value
        self.failing, self.dying = failing, dying
        self.begun: list[str] = []
        self.stopped: list[str] = []
        self.most = 0
        self.going = 0

    def __call__(self, job: Job) -> FakeRun:
        self.begun.append(job.name)
        self.going += 1
        self.most = max(self.most, self.going)
        return FakeRun(self, job)


class FakeRun:
    def __init__(self, runs: FakeRuns, job: Job) -> None:
        self.runs, self.job = runs, job
        self.end = runs.clock() + runs.seconds.get(job.row, 3.0)

    def poll(self) -> int | None:
        if self.runs.clock() < self.end:
            return None
        self.runs.going -= 1
        if self.job.name in self.runs.dying:
            (self.job.folder / "log.txt").write_text("Importing\nKilled by nobody\n")
            return -9
        if self.job.name in self.runs.failing:
            write_failure(self.job.folder, RunFailure.of(self.job, RuntimeError("no luck")))
            return 1
        value = self.runs.value(self.job)
        seconds = self.runs.seconds.get(self.job.row, 3.0)
        done = result(self.job.row, self.job.seed, key=self.job.key, seconds=seconds, home=value, away=2 * value)
        for role in ("home", "away"):
            # Without its scale, what was taught is the worse one.
            scaled = 0.5 - value / 2
            done.scores[f"{role}:scaled"] = scores(x=scaled)["x"]
        write_result(self.job.folder, done)
        return 0

    def stop(self) -> None:
        self.runs.stopped.append(self.job.name)


TAUGHT: dict = {
    "system": "school",
    "title": "School",
    "source": "nowhere",
    "reference": "labels",
    "domain": "home",
    "scoring": "shape",
    "metrics": ["abs_rel", "leak_slope"],
    "roles": {"home": {"title": "Home"}, "simcol3d": {"title": "SimCol3D", "real": True}},
    "rows": [
        {"name": "master", "recipe": "litenet-labels", "architecture": "litenet-l", "teacher": True, "data": "books"},
        {"name": "labels", "recipe": "litenet-labels", "architecture": "litenet-t"},
        {
            "name": "pupil",
            "recipe": "litenet",
            "architecture": "litenet-t",
            "taught": True,
            "overrides": ["distillation.semantic.weight=0"],
        },
        {"name": "friend", "recipe": "litenet", "architecture": "litenet-t", "taught": True},
    ],
    "scales": {
        "desk": {
            "summary": "small",
            "minutes": 1,
            "seeds": [0, 1],
            "threads": 1,
            "phantom": {
                "width": 64,
                "height": 64,
                "even_light": 0.0,
                "train": {"anatomies": ["colon"], "frames": 8, "views_per_scene": 4, "seed": 1},
                "more": {"books": {"anatomies": ["colon"], "frames": 8, "views_per_scene": 4, "seed": 2}},
                "sets": {"home": {"anatomies": ["tube"], "frames": 4, "views_per_scene": 2, "seed": 3}},
                "clips": {},
            },
            "timing": {"width": 64, "height": 64, "rounds": 2},
            "overrides": ["epochs=null", "steps=4"],
            "distillation_overrides": ["distillation.trinity.balance_step=null"],
            "row_overrides": {"master": ["steps=9"]},
            "teacher_note": "the master",
        }
    },
    "tables": [
        {"title": "Depth", "role": "home", "rows": ["labels", "pupil", "friend", "master"]},
        {"title": "Zero-shot", "role": "simcol3d", "rows": ["labels", "pupil"], "metrics": ["abs_rel"]},
    ],
    "claims": [
        {
            "id": "gap",
            "text": "The pupil closes 60 % of the distance",
            "kind": "closes",
            "row": "pupil",
            "than": "labels",
            "toward": "master",
            "role": "home",
            "metric": "abs_rel",
            "margin": 0.6,
        },
        {
            "id": "leak",
            "text": "The pupil leaks less",
            "kind": "better",
            "row": "pupil",
            "than": "labels",
            "role": "home",
            "metric": "leak_slope",
        },
    ],
}


def taught_grid() -> Grid:
    return Grid.model_validate(TAUGHT)


def taught_data(tmp_path: Path) -> Data:
    home = ScoredSet(
        role="home", reader="folder", path=tmp_path / "home", protocol="phantom-shape", shape=True, scene_frames=2
    )
    return Data(
        sources=(str(tmp_path / "train"),),
        tests=(home,),
        titles={"home": "rendered home"},
        sha256="d" * 64,
        facts={"kind": "phantom"},
        more_sources={"books": (str(tmp_path / "books"),)},
    )


def scened(
    row: str, seed: int, *, rel: list[float], leak: list[float], once: bool = False, key: str = "k"
) -> RunResult:
    """A result on ``home`` whose figures are the means of those of its scenes."""
    found = result(row, seed, key=key)
    found.once = once
    found.scores["home"] = Score(
        protocol="phantom-shape/1",
        list_sha256="0" * 64,
        entries=2 * len(rel),
        failed=0,
        unit="mm",
        metrics={"abs_rel": sum(rel) / len(rel), "leak_slope": sum(leak) / len(leak)},
        scenes={"abs_rel": list(rel), "leak_slope": list(leak)},
    )
    return found
