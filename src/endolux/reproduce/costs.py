"""What the networks of a grid cost: by architecture, or by row where rows differ in how one network is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from endolux.reproduce.figures import cost_of
from endolux.reproduce.grid import Grid, Row, Scale
from endolux.reproduce.job import Job
from endolux.reproduce.timing import Cost, measured_once

Say = Callable[[str], None]
TimeNetworks = Callable[[Path, Sequence[str]], dict[str, Cost]]


def measure_costs(
    grid: Grid, rows: Sequence[Row], scale: Scale, output: Path, *, say: Say, time_networks: TimeNetworks | None
) -> dict[str, Cost]:
    """Costs by architecture or by the names of rows, kept in the output folder.

    Args:
        grid: what the rows belong to.
        rows: those that were asked for.
        scale: settings of all of them.
        output: folder of the reproduction.
        say: told what happens.
        time_networks: from folder and names to costs; another one for tests.
    """
    timing, trained = scale.timing, [row for row in rows if row.architecture]
    take = _by_row(grid, trained, scale, say)
    if take is not None:
        # What others start from is not compared with them.
        trained = [row for row in trained if not row.prior]
    names = list(dict.fromkeys(row.architecture if take is None else row.name for row in trained))
    if time_networks is not None:
        return time_networks(output, names)
    return measured_once(
        output, names, width=timing.width, height=timing.height, rounds=timing.rounds, on_progress=say, take=take
    )


def _by_row(grid: Grid, rows: Sequence[Row], scale: Scale, say: Say) -> Callable[[], dict[str, Cost]] | None:
    """How rows of one architecture are measured that differ in how it is trained; None where they do not."""
    rows = [row for row in rows if not row.prior]
    if grid.scoring == "landmarks":
        from endolux.reproduce.landmark_costs import measure_training

        return lambda: measure_training(rows, scale, on_progress=say)
    if grid.scoring in ("relative", "video"):
        from endolux.reproduce.adaptation_costs import measure_adaptation

        return lambda: measure_adaptation(rows, scale, on_progress=say)
    return None


def relative_costs(rows: Sequence[Row], jobs: Sequence[Job], costs: Mapping[str, Cost]) -> dict[str, float]:
    """Relative costs of the rows; none where one of them is not known, as seconds do not follow from half of them."""
    known = {row.name: cost_of(costs, row) for row in rows if row.recipe}
    shared = not any(row.once for row in rows)
    found = {
        row.name: float(cost.macs) * _pictures(row, jobs, shared=shared)
        for row in rows
        if (cost := known.get(row.name)) is not None
    }
    return found if len(found) == len(known) else {}


def _pictures(row: Row, jobs: Sequence[Job], *, shared: bool) -> int:
    """Pictures that a run of a row sees, as a weight; 1 where all rows see as many."""
    job = None if shared else next((job for job in jobs if job.row == row.name), None)
    if job is None:
        return 1
    from endolux.train.recipe import load_recipe

    recipe = load_recipe(job.recipe, job.overrides)
    return (recipe.steps or recipe.epochs or 1) * recipe.batch
