"""``endolux demo``: depth of the clip inside the package."""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from endolux.cli.predict import run_and_render
from endolux.errors import InputError


def register(app: App) -> None:
    """Add the verb."""
    app.command(demo, name="demo")


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("endolux-demo"),
    model: str | None = None,
    commercial: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Predict the depth of the clip that comes with the package.

    Args:
        output: folder for the result; where it exists, a number is added to its name.
        model: name of a bundled model or a bundle's folder (default: the bundled network).
        commercial: refuse a model whose licence does not allow commercial use.
        as_json: print the report as JSON.
        quiet: no progress.
    """
    from endolux.runtime.run_predict import PredictOptions

    options = PredictOptions(model=model, commercial=commercial, command=("endolux", *sys.argv[1:]))
    with importlib.resources.as_file(importlib.resources.files("endolux") / "data" / "demo.mp4") as clip:
        if not clip.is_file():
            raise InputError(
                "The demonstration clip is not in this installation",
                why="The package lacks data/demo.mp4.",
                fix="Install Endolux again, or run 'endolux predict' on a video of your own.",
                error_id="input.missing",
            )
        return run_and_render(clip, free_folder(output), options=options, as_json=as_json, quiet=quiet)


def free_folder(folder: Path) -> Path:
    """The folder itself, or the first of folder-2, folder-3, ... that does not exist."""
    candidate, number = folder, 1
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
