"""``endolux doctor``: what this installation has, what it lacks, and how fast the network runs here."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import EXIT_CHECK, EXIT_OK


def register(app: App) -> None:
    """Add the verb."""
    app.command(doctor, name="doctor")


def doctor(
    *,
    model: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Check this installation; exit code 6 where something is broken.

    Args:
        model: also check this model (a name or a folder).
        as_json: print JSON.
    """
    from endolux.runtime.diagnosis import diagnose

    report = diagnose(model=model)
    if as_json:
        render.answer_json(report.document())
        return EXIT_OK if report.ok else EXIT_CHECK
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        render.answer(f"{check.state.value:7}  {check.name.ljust(width)}  {check.finding}")
        if check.fix:
            render.answer(f"{'':7}  {'':{width}}  fix: {check.fix}")
    render.answer("everything that predict needs is here" if report.ok else "something is broken: see the lines above")
    return EXIT_OK if report.ok else EXIT_CHECK
