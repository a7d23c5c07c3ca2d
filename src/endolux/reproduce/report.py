"""A reproduction as text for people: its tables, the claims and how they were made."""

from __future__ import annotations

from collections.abc import Sequence

from endolux.reproduce import report_adaptation as adaptation
from endolux.reproduce import report_landmarks as landmarks
from endolux.reproduce import report_measured as own
from endolux.reproduce import report_tables as tables
from endolux.reproduce.figures import seeds_of
from endolux.reproduce.grid import Scale
from endolux.reproduce.job import SCALED
from endolux.reproduce.report_document import document
from endolux.reproduce.report_tables import LABELS
from endolux.reproduce.reproduction import Reproduction, missing_jobs

__all__ = ["LABELS", "Reproduction", "document", "markdown", "missing_jobs"]


def markdown(found: Reproduction) -> str:
    """The tables, the claims and how they were made, as Markdown that also reads in a terminal."""
    if not found.published:
        return _measured(found)
    grid, scale = found.grid, found.scale
    parts = [f"# {grid.title}: published and measured, scale `{found.scale_name}`", _preface(found)]
    for table in found.tables():
        role = grid.roles[table.role]
        parts += [
            f"## {table.title}",
            f"Published on {role.title} (RMSE in {role.unit}). Measured on {found.data.titles[table.role]} "
            f"(RMSE in {found.unit(table.role)}).",
            tables.figures(found, table),
        ]
        differences = tables.differences(found, table)
        if differences:
            reference = tables.title(found, table, table.reference or grid.reference)
            parts += [f"Difference from {reference}, paired by seed (published beside it):", differences]
        if found.scaled:
            parts += ["The same pictures after median scaling, which leaves the shape alone to be judged:"]
            parts += [tables.scaled(found, table)]
    parts += ["## Cost", _cost_preface(found), tables.costs(found), "## Claims", _CLAIMS_PREFACE, tables.claims(found)]
    if found.failures or found.missing:
        parts += ["## Not measured", _gaps(found)]
    parts += ["## How it was made", _conditions(found, scale), "## Rerun", _rerun(found)]
    return "\n\n".join(parts) + "\n"


def _measured(found: Reproduction) -> str:
    grid = found.grid
    parts = [f"# {grid.title}: measured, scale `{found.scale_name}`", _measured_preface(found)]
    for table in found.tables():
        metrics = found.metrics(table)
        parts += [f"## {table.title}", f"Measured on {found.place(table.role)}."]
        parts += [own.measured(found, table)]
        differences = own.measured_differences(found, table)
        if differences:
            reference = tables.title(found, table, table.reference or grid.reference)
            parts += [f"Difference from {reference}, paired by seed:", differences]
        legend = own.legend(metrics)
        parts += [f"{legend[0].upper()}{legend[1:]}."] if legend else []
    if grid.scoring in ("relative", "video"):
        parts += ["## Cost", adaptation.adaptation_costs_preface(found), adaptation.adaptation_costs(found)]
    elif grid.scoring == "landmarks":
        parts += ["## Cost", landmarks.training_costs_preface(found), landmarks.training_costs(found)]
    else:
        parts += ["## Cost", _measured_cost_preface(found), own.measured_costs(found)]
    parts += ["## Claims", _MEASURED_CLAIMS, own.measured_claims(found)]
    if found.failures or found.missing or found.left_out:
        parts += ["## Not measured", _gaps(found)]
    parts += ["## How it was made", _conditions(found, found.scale), "## Rerun", _rerun(found)]
    return "\n\n".join(parts) + "\n"


_MEASURED_CLAIMS = (
    "A claim is held where the whole 95 % interval of the gain speaks for it, not held where all of it speaks against "
    "it, and undecided otherwise. The gain is positive where the first row is the better one. Over seeds: would "
    "another training say the same; over scenes, each averaged over the seeds: would other test scenes."
)


def _measured_preface(found: Reproduction) -> str:
    return (
        f"Source: {found.grid.source}. Scale: {found.scale.summary}. Figures are means over {_seed_counts(found)} "
        "seed(s) with 95 % Student intervals in brackets; figures without brackets come from one run."
        + (f" {adaptation.CONVENTIONS}" if found.grid.scoring == "relative" else "")
    )


def _measured_cost_preface(found: Reproduction) -> str:
    timing = found.scale.timing
    return (
        f"One picture of {timing.width}x{timing.height}, float32, without autograd, in torch on "
        f"{found.provenance.get('timing_threads')} threads of this machine's CPU; medians of {timing.rounds} rounds. "
        "What trains with a network (projectors, side outputs, teachers) is no part of it."
    )


_CLAIMS_PREFACE = (
    "A claim is held where the whole 95 % interval of the gain speaks for it, not held where all of it speaks against "
    "it, and undecided otherwise. The gain is positive where the first row is the better one."
)


def _preface(found: Reproduction) -> str:
    seeds = _seed_counts(found)
    return (
        f"Source of the published figures: {found.grid.source}. Scale: {found.scale.summary}. Measured figures are "
        f"means over {seeds} seed(s) with 95 % Student intervals in brackets; the published ones come from single runs "
        "without intervals. The two stand on different data: compare differences between rows, not values."
    )


def _seed_counts(found: Reproduction) -> str:
    once = {row for (row, _), run in found.runs.items() if run.once}
    counts = sorted({len(seeds_of(found.runs, row)) for row in found.rows if row not in once})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"


def _cost_preface(found: Reproduction) -> str:
    timing = found.scale.timing
    return (
        f"At {timing.height}x{timing.width}, float32, on {found.provenance.get('timing_threads')} threads of this "
        "machine's CPU. Seconds and FPS as published: a batch of two, autograd on, FPS counts batches (D-13; the "
        f"published ones on a GTX 1650 Ti). The last column is the correct form: one picture, no autograd. Medians of "
        f"{timing.rounds} rounds."
    )


def _gaps(found: Reproduction) -> str:
    lines = [f"- {failure.row}-seed{failure.seed} failed: {failure.what}" for failure in found.failures]
    lines += [f"- {name}: outside the time budget" for name in found.missing]
    lines += [f"- {line}" for line in found.left_out]
    return "\n".join(lines)


def _conditions(found: Reproduction, scale: Scale) -> str:
    runs = [found.runs[key] for key in sorted(found.runs)]
    note = scale.teacher_note if found.teacher == scale.teacher else found.teacher
    lines = [f"- Teacher of the distilled rows: {note}."] if any(row.learns for row in found.grid.rows) else []
    if runs and not found.published:
        lines += _lengths(found)
    elif runs:
        steps, images = sorted({run.steps for run in runs}), sorted({run.images for run in runs})
        seconds = [run.seconds for run in runs]
        mean = sum(seconds) / len(seconds)
        lines.append(
            f"- {len(runs)} runs of {_span(steps)} steps ({_span(images)} pictures), {mean:.0f} s on average "
            f"({min(seconds):.0f} to {max(seconds):.0f} s). Runs of a seed share order and augmentation of the samples."
        )
        entries = {role: score.entries for role, score in runs[0].scores.items() if not role.endswith(SCALED)}
        shown = ", ".join(f"{found.data.titles.get(role, role)}: {count}" for role, count in entries.items())
        lines.append(f"- Entries a figure is the mean of (mirrored copies count): {shown}.")
        lines.append("- No alignment where nothing else is said, as published; means over entries, also for RMSE.")
    lines += landmarks.contents(found)
    lines += [f"- {note}" for note in scale.notes]
    if found.published and found.data.facts.get("kind") == "phantom":
        lines.append(
            "- Every test scene has a seed of its own that no training scene has. Networks start from random weights: "
            "no ImageNet, so encoders are compared without what pre-training would give either of them."
        )
    if found.published:
        lines += [f"- Recipe changes: `{change}`" for change in (*scale.overrides, *found.changes)]
    else:
        lines += _recipes(found)
    lines.append(f"- Data: sha256 `{found.data.sha256[:16]}`.")
    lines += [f"- {name}: {value}" for name, value in found.provenance.items() if not isinstance(value, dict | list)]
    versions = found.provenance.get("versions")
    if isinstance(versions, dict):
        lines.append("- " + ", ".join(f"{name} {value}" for name, value in versions.items() if value))
    return "\n".join(lines)


def _recipes(found: Reproduction) -> list[str]:
    """What every row's recipe is, a line each."""
    scale = found.scale
    shared = {"all rows": scale.overrides, "rows with a teacher": scale.distillation_overrides, "--set": found.changes}
    lines = [f"- Recipe changes, {name}: {_codes(changes)}." for name, changes in shared.items() if changes]
    for row in found.grid.rows_of(found.scale_name):
        if row.name in found.rows:
            model = found.teacher if row.teacher and found.teacher else row.model
            if model:
                lines.append(f"- {row.name}: `{model}`, scored as it is.")
                continue
            changes = (*row.overrides, *scale.row_overrides.get(row.name, ()))
            begun = f"from the weights of {row.start}, " if row.start else ""
            lines.append(f"- {row.name}: {begun}recipe `{row.recipe}`{' with ' if changes else ''}{_codes(changes)}.")
    return lines


def _codes(changes: Sequence[str]) -> str:
    return ", ".join(f"`{change}`" for change in changes)


def _lengths(found: Reproduction) -> list[str]:
    """How long every kind of run was, and what it was scored on."""
    lines = []
    single = [found.runs[key] for key in sorted(found.runs) if found.runs[key].once]
    for run in single:
        title = found.grid.row(run.row).title or run.row
        trained = f"one run of {run.steps:,} steps ({run.images:,} pictures)" if run.steps else "scored as it is"
        lines.append(f"- {title[0].upper()}{title[1:]}: {trained}, {run.seconds:.0f} s.")
    runs = [found.runs[key] for key in sorted(found.runs) if not found.runs[key].once]
    if runs:
        steps, images = sorted({run.steps for run in runs}), sorted({run.images for run in runs})
        seconds = [run.seconds for run in runs]
        lines.append(
            f"- {'The others: ' if single else ''}{len(runs)} runs of {_span(steps)} steps ({_span(images)} pictures), "
            f"{sum(seconds) / len(seconds):.0f} s on average ({min(seconds):.0f} to {max(seconds):.0f} s)."
        )
        also = f"; there is one run of {', '.join(run.row for run in single)} for all seeds" if single else ""
        lines.append(f"- Runs of a seed share order and augmentation of the samples{also}.")
    counts = {role: score.entries for run in found.runs.values() for role, score in run.scores.items()}
    entries = "; ".join(f"{found.place(role)}: {count}" for role, count in counts.items())
    lines.append(f"- Frames or clips a figure is the mean of: {entries}.")
    return lines


def _rerun(found: Reproduction) -> str:
    rows = (
        ""
        if set(found.rows) == {row.name for row in found.grid.rows_of(found.scale_name)}
        else (f" --rows {','.join(found.rows)}")
    )
    given = f" --teacher {found.teacher}" if found.grid.teacher is not None and found.teacher else ""
    real = " --real-data FOLDER" if any(found.grid.roles[role].real for role in found.data.titles) else ""
    changes = "".join(f" --set '{change}'" for change in found.changes)
    data = "" if found.data.facts.get("kind") == "phantom" else " --data PATH"
    seeds = ",".join(map(str, found.seeds))
    return (
        "    pip install 'endolux[train,phantom]'\n"
        f"    endolux reproduce {found.grid.system} --scale {found.scale_name}{data} --seeds {seeds}{rows}{given}{real}"
        f"{changes} -o FOLDER\n\n"
        "Stopped or out of time, the same command goes on where it was: finished runs are kept. `results.json` in the "
        "folder holds every figure of every seed, the hashes of recipes and data, and the versions."
    )


def _span(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
