"""What training costs in every row of landmarks, and how the report shows it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from endolux.adapt.shapes import state_scalars
from endolux.reproduce.figures import Verdict, cost_of, judge
from endolux.reproduce.grid import Grid, load_grid
from endolux.reproduce.job import LANDMARK_PROTOCOL, Data, ScoredSet
from endolux.reproduce.landmark_costs import measure_training
from endolux.reproduce.landmark_names import ADAPTED, MATRICES, REFRESH, STATE, STEP, TRAINED, WIDE
from endolux.reproduce.report import document, markdown
from endolux.reproduce.reproduction import Reproduction
from endolux.reproduce.results import RunResult, Score
from endolux.reproduce.timing import Cost

pytest.importorskip("transformers", reason="needs the extra 'train'")


@pytest.fixture(scope="module")
def grid() -> Grid:
    return load_grid("srft-galore")


def rows(grid: Grid, scale: str, *names: str):
    return [row for row in grid.rows_of(scale) if row.name in names]


def test_what_is_trained_and_kept_is_counted(grid: Grid) -> None:
    costs = measure_training(rows(grid, "smoke", "frozen", "lora", "srft", "full", "frozen-plain"), grid.scale("smoke"))
    counts = {name: cost.counts for name, cost in costs.items()}
    # Widths 16, 32, 64, 128 of blocks 1, 1, 2, 1; the first of a stage widens.
    shapes = [(48, 16), (16, 16), (96, 16), (32, 32), (192, 32), (64, 64), (192, 64), (64, 64), (384, 64), (128, 128)]
    assert counts["srft"][MATRICES] == len(shapes)
    assert counts["srft"][ADAPTED] == sum(a * b for a, b in shapes)
    assert counts["lora"][MATRICES] == 2 * len(shapes)
    assert counts["lora"][ADAPTED] == sum(10 * (a + b) for a, b in shapes)
    assert counts["frozen"][MATRICES] == counts["frozen-plain"][ADAPTED] == 0
    heads = counts["frozen"][TRAINED]
    assert counts["srft"][TRAINED] == heads + counts["srft"][ADAPTED]
    assert counts["frozen-plain"][TRAINED] < heads
    assert counts["full"][STATE] == 8 * counts["full"][TRAINED]
    assert counts["frozen"][STATE] == 8 * heads
    assert counts["srft"][STATE] == 4 * sum(state_scalars(shape, 4) for shape in shapes) + 8 * heads
    for name, cost in costs.items():
        assert len(cost.legacy_s) == len(cost.single_s) == len(cost.times(STEP)) == 2
        assert bool(cost.times(REFRESH)) is bool(cost.times(WIDE)) is (name == "srft")
        assert all(whole >= step for whole, step in zip(cost.legacy_s, cost.times(STEP), strict=True))
    assert costs["srft"].legacy_s[0] == pytest.approx(
        costs["srft"].times(STEP)[0] + costs["srft"].times(REFRESH)[0] / 50
    )


def test_the_published_size_is_counted_without_weights(grid: Grid) -> None:
    scale = grid.scale("full").model_copy(update={"timing": grid.scale("full").timing.model_copy(update={"rounds": 2})})
    found = measure_training(rows(grid, "full", "full"), scale)["full"]
    # 212.70 million; decoder, fusion and the depth map's projection with its norm.
    assert round(found.counts[ADAPTED] / 1e6, 2) == 212.70
    assert found.counts[TRAINED] - found.counts[ADAPTED] == 4_145_668 + 328_960 + 98_816
    assert (found.legacy_s, found.single_s, found.extra) == ((), (), {})


def test_adapted_numbers_of_the_published_size(grid: Grid) -> None:
    from endolux.reproduce.landmark_costs import _subject

    counts = _subject(rows(grid, "full", "srft")[0], grid.scale("full")).counts
    assert (counts[MATRICES], counts[ADAPTED]) == (96, 68_553_216)


def cost(step: float, basis: float | None = None) -> Cost:
    times = tuple(step * factor for factor in (1.0, 1.01, 0.99))
    extra = (
        {} if basis is None else {REFRESH: tuple(basis * factor for factor in (1.0, 1.01, 0.99)), WIDE: (basis,) * 3}
    )
    counts = {TRAINED: 20, ADAPTED: 10, MATRICES: 2, STATE: 2_500_000}
    return Cost(parameters=30, macs=5, legacy_s=times, single_s=times, extra=extra, counts=counts)


def run(row: str, seed: int, dsc: float, *, once: bool = False) -> RunResult:
    scenes = [dsc - 0.01, dsc + 0.01]
    score = Score(
        protocol="landmarks/1",
        list_sha256="0" * 64,
        entries=6,
        failed=1,
        unit="px",
        metrics={"pooled_dsc": dsc, "pooled_iou": dsc / (2 - dsc), "assd": 3.0, "miss_rate": 0.1},
        scenes={"pooled_dsc": [*scenes]},
        counts={"ridge": 5, "silhouette": 4, "ligament": 0, "none": 1},
    )
    return RunResult(
        row=row,
        seed=seed,
        key="k",
        recipe_sha256="r",
        steps=2,
        images=4,
        train_s=1.0,
        evaluate_s=1.0,
        seconds=2.0,
        scores={} if once else {"scenes": score},
        once=once,
    )


def reproduction(grid: Grid, folder: Path) -> Reproduction:
    level = {"frozen": 0.3, "lora": 0.35, "galore-svd": 0.401, "srft": 0.4, "full": 0.5}
    runs = {(name, seed): run(name, seed, dsc + 0.001 * seed) for name, dsc in level.items() for seed in (0, 1, 2)}
    runs["prior-image", 0] = run("prior-image", 0, 0.0, once=True)
    costs = {"frozen": cost(0.1), "galore-svd": cost(0.2, 0.05), "srft": cost(0.19, 0.005)}
    test = ScoredSet(role="scenes", reader="l3d", path=folder, protocol=LANDMARK_PROTOCOL)
    return Reproduction(
        grid=grid,
        scale_name="desk",
        rows=tuple(row.name for row in grid.rows_of("desk")),
        changes=(),
        seeds=(0, 1, 2),
        data=Data(
            sources=("train",),
            tests=(test,),
            titles={"scenes": "the liver"},
            sha256="d" * 64,
            facts={"kind": "phantom"},
        ),
        teacher="",
        runs=runs,
        costs=costs,
        failures=(),
        missing=(),
        provenance={"timing_threads": 1},
    )


def test_claims_are_decided_by_figures_and_by_what_was_timed(grid: Grid, tmp_path: Path) -> None:
    found = reproduction(grid, tmp_path)
    verdicts = {judged.claim.id: judged for judged in found.verdicts()}
    assert verdicts["srft-lora"].verdict is Verdict.HELD
    assert verdicts["svd-srft"].verdict is Verdict.HELD
    assert verdicts["full-srft"].verdict is Verdict.NOT_HELD
    assert verdicts["depth-srft"].verdict is Verdict.MISSING
    assert math.exp(verdicts["basis"].gain.mean) == pytest.approx(10.0)
    assert math.exp(verdicts["step"].gain.mean) == pytest.approx(0.2 / 0.19)
    assert verdicts["basis-wide"].verdict is Verdict.HELD
    # Rows of one architecture have costs of their own.
    assert cost_of(found.costs, grid.row("srft")) is found.costs["srft"]
    claim = next(claim for claim in grid.claims if claim.id == "basis")
    assert judge(claim, grid, {}, {"srft": cost(1.0), "galore-svd": cost(1.0)}).verdict is Verdict.MISSING


def test_report_shows_costs_and_what_the_pictures_hold(grid: Grid, tmp_path: Path) -> None:
    found = reproduction(grid, tmp_path)
    text = markdown(found)
    shown = next(line for line in text.splitlines() if line.startswith("| SRFT-GaLore ") and "10 in 2" in line)
    assert [cell.strip() for cell in shown.split("|")[2:9]] == ["20", "10 in 2", "2.50", "190.0", "5.0", "5.0", "190.0"]
    assert "ridge in 5, silhouette in 4, ligament in 0; 1 without any" in text
    assert "1 could not be read" in text
    assert "**not held**" in text
    assert "Teacher" not in text
    listed = document(found)
    assert listed["costs"]["srft"]["counts"][STATE] == 2_500_000  # type: ignore[call-overload, index]
    assert len(listed["costs"]["srft"]["extra_s"][REFRESH]) == 3  # type: ignore[call-overload, index]


def test_steps_are_timed_in_turn(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    import endolux.reproduce.landmark_costs as module

    order: list[str] = []
    original = module._step

    def noted(subject, tensors):
        order.append(subject.recipe.model.config["encoders"])
        original(subject, tensors)

    monkeypatch.setattr(module, "_step", noted)
    threads = torch.get_num_threads()
    measure_training(rows(grid, "smoke", "frozen", "full"), grid.scale("smoke"))
    assert order == ["frozen", "full"] * 3
    assert torch.get_num_threads() == threads
