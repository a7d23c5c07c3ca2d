"""What adapting costs in every row, in Markdown."""

from __future__ import annotations

from endolux.reproduce.adaptation_costs import TRAINED
from endolux.reproduce.report_tables import DASH, markdown_table
from endolux.reproduce.reproduction import Reproduction
from endolux.reproduce.timing import middle

CONVENTIONS = (
    "REL and δ1 are taken after median scaling; a network of disparity is inverted first, as if its shift were zero "
    "(P1)."
)


def adaptation_costs(found: Reproduction) -> str:
    """Sizes and times of every row."""
    rows = [
        [
            found.grid.row(name).title or name,
            f"{cost.parameters:,}",
            f"{cost.counts.get(TRAINED, 0):,}",
            f"{cost.macs / 1e9:.3f}",
            f"{middle(cost.legacy_s) * 1e3:.0f}" if cost.legacy_s else DASH,
            f"{middle(cost.single_s) * 1e3:.1f}",
        ]
        for name, cost in found.costs.items()
    ]
    return markdown_table(["Method", "Parameters", "trained", "GMAC", "step (ms)", "one picture (ms)"], rows)


def adaptation_costs_preface(found: Reproduction) -> str:
    """How they were measured."""
    timing = found.scale.timing
    return (
        f"A step: a batch of {timing.width}x{timing.height} forth and back and the optimiser's update; one picture: "
        f"without autograd. Both float32, on {found.provenance.get('timing_threads')} threads of this machine's CPU, "
        f"medians of {timing.rounds} rounds, rows in turn. Branches are counted beside the layers that they adapt; an "
        "exported network has none."
    )
