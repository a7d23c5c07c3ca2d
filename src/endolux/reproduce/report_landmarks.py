"""What training costs in every row of landmarks, and what their test sets hold, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from endolux.reproduce.job import LANDMARK_PROTOCOL
from endolux.reproduce.landmark_names import ADAPTED, MATRICES, REFRESH, STATE, TRAINED, WIDE
from endolux.reproduce.report_tables import DASH, markdown_table
from endolux.reproduce.reproduction import Reproduction
from endolux.reproduce.timing import middle


def training_costs(found: Reproduction) -> str:
    """Sizes and times of every row."""
    header = [
        "Method",
        "trained",
        "of the image encoder",
        "optimiser's state (MB)",
        "step (ms)",
        "new bases, all matrices (ms)",
        "new basis, 1728x576 (ms)",
        "one picture (ms)",
    ]
    rows = []
    for name, cost in found.costs.items():
        matrices = cost.counts.get(MATRICES, 0)
        adapted = f"{cost.counts.get(ADAPTED, 0):,} in {matrices}" if matrices else "0"
        rows.append(
            [
                found.grid.row(name).title or name,
                f"{cost.counts.get(TRAINED, 0):,}",
                adapted,
                f"{cost.counts.get(STATE, 0) / 1e6:.2f}",
                _milliseconds(cost.legacy_s),
                _milliseconds(cost.extra.get(REFRESH, ())),
                _milliseconds(cost.extra.get(WIDE, ())),
                _milliseconds(cost.single_s),
            ]
        )
    return markdown_table(header, rows)


def training_costs_preface(found: Reproduction) -> str:
    """How they were measured."""
    timing = found.scale.timing
    head = (
        "Trained parameters (those of the image encoder: numbers in so many matrices) and the bytes of the optimiser's "
        "moments and bases are counted. "
    )
    if not timing.steps:
        return head + f"New bases are medians of {timing.rounds} rounds on {_threads(found)} of this machine's CPU."
    return (
        head + f"A step: a batch of {timing.width}x{timing.height}, float32, with its share of a new basis; medians of "
        f"{timing.rounds} rounds on {_threads(found)} of this machine's CPU, rows in turn. The matrix of 1728x576 is "
        "one of Hiera-L's, at rank 128."
    )


def contents(found: Reproduction) -> list[str]:
    """How many test pictures show what, a line a set."""
    lines = []
    for test in found.data.tests:
        if test.protocol != LANDMARK_PROTOCOL:
            continue
        score = next((run.scores[test.role] for run in found.runs.values() if test.role in run.scores), None)
        if score is None:
            continue
        shown = ", ".join(f"{name} in {score.counts[name]}" for name in score.counts if name != "none")
        lines.append(
            f"- {found.place(test.role)}: {score.entries} pictures; {shown}; {score.counts.get('none', 0)} without any "
            "(they count for false alarms and the published DSC alone)"
            + (f"; {score.failed} could not be read." if score.failed else ".")
        )
    return lines


def _threads(found: Reproduction) -> str:
    count = found.provenance.get("timing_threads")
    return f"{count} thread{'' if count == 1 else 's'}"


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{middle(seconds) * 1e3:.1f}" if seconds else DASH
