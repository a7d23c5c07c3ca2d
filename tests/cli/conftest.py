"""The command line as a child process, and small inputs for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# For the formula that fills published networks with weights.
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from .cli_inputs import Done, command, picture, write_clip, write_png


@pytest.fixture
def endolux(tmp_path: Path):
    def call(*arguments: str | Path, timeout: float = 120, env: dict | None = None, **named) -> Done:
        done = subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "ENDOLUX_DEBUG": "", **(env or {})},
            **named,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def predict(endolux, tiny_bundle: Path):
    """`endolux predict SOURCE -o OUT` with the tiny bundle."""

    def call(source: str | Path, out: str | Path = "out", *more: str | Path, **named) -> Done:
        return endolux("predict", "-o", out, "--model", tiny_bundle, "--threads", "1", *more, "--", source, **named)

    return call


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_png(tmp_path / "frame.png", picture())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "frames"
    path.mkdir()
    for index in range(12):
        write_png(path / f"{index}.png", picture(index))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=30)
