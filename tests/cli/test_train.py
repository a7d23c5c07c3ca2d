"""``endolux train`` and ``endolux config`` as a child process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from endolux.cli.root import run

from .cli_inputs import Done, command

SMALL = "model.config={widths: [8, 16, 16, 16], blocks: [1, 1, 1, 1], decoder: [16, 8, 8], fine: 4}"
FAST = (SMALL, "batch=2", "threads=1", "device=cpu", "log_every=1", "checkpoint_every=2")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards" / "shard-0"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    np.save(folder / "rgb.npy", generator.integers(30, 220, (6, 64, 64, 3)).astype(np.uint8))
    np.save(folder / "depth.npy", generator.uniform(10, 90, (6, 64, 64)).astype(np.float16))
    (folder / "meta.json").write_text(json.dumps({"width": 64, "height": 64, "complete": 6}))
    return tmp_path / "shards"


def test_train_and_resume(endolux, shards: Path) -> None:
    done = endolux("train", "repdepth", "--data", shards, "steps=3", "-o", "run", *FAST)
    assert done.code == 0, done.err
    assert done.out.strip().endswith("run/step-00000003")
    assert "step 3/3  lr" in done.err
    again = endolux("train", "repdepth", "-o", "run", "--resume", "log_every=7", "--json")
    assert again.code == 0, again.err
    assert again.document["step"] == 3
    changed = endolux("train", "repdepth", "-o", "run", "--resume", "batch=4", "optimiser.lr=1e-3")
    assert changed.code == 2
    changed.assert_three_lines("train.recipe-changed")
    assert "batch was 2 and is 4" in changed.err


@pytest.mark.slow
def test_export_of_a_run(endolux, shards: Path, tmp_path: Path) -> None:
    assert endolux("train", "repdepth", "--data", shards, "steps=1", "-o", "run", *FAST).code == 0
    exported = endolux("export", "run", "-o", "bundle", "--size", "64x64")
    assert exported.code == 0, exported.err
    assert (tmp_path / "bundle" / "card.json").exists()


def test_interrupted(shards: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("train", "repdepth", "--data", shards, "-o", tmp_path / "run", "steps=100000", *FAST),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not (tmp_path / "run" / "step-00000002").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "error[run.interrupted]: The training was stopped after step" in err
    assert "--resume" in err
    assert out == ""
    step = int(err.partition("after step ")[2].split()[0])
    assert (tmp_path / "run" / f"step-{step:08d}" / "state.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "error_id", "told"),
    [
        (("train", "lev", "-o", "run"), 2, "recipe.unknown", "'leve'"),
        (("train", "leve", "-o", "run", "optimizer.lr=1"), 2, "recipe.key", "'optimiser'"),
        (("train", "leve", "-o", "run"), 3, "train.no-data", "--data"),
        (("train", "leve", "-o", "run", "--data", "empty"), 3, "train.no-data", "empty"),
        (("train", "leve", "-o", "run", "--data", "scard:empty"), 2, "dataset.name", "'scared'"),
        (("train", "leve"), 2, "usage.arguments", "-o"),
        (("train",), 2, "usage.arguments", "--list"),
        (("train", "leve-distilled", "-o", "run", "--steps", "3"), 2, "usage.arguments", "--steps"),
        (("config", "show", "leve", "batch=0"), 2, "recipe.value", "batch is 0"),
        (("config", "validate", "absent.yaml"), 3, "input.missing", "absent.yaml"),
        (("config", "validate", "bad.yaml"), 2, "recipe.key", "'model'"),
    ],
)
def test_mistakes(monkeypatch, capsys, tmp_path: Path, arguments, code: int, error_id: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("name: a\nmodl: {name: leve}\nsteps: 3\n")
    before = signal.getsignal(signal.SIGTERM)
    try:
        number = run(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    done = Done(number, *capsys.readouterr())
    assert done.code == code, done.err
    done.assert_three_lines(error_id)
    assert told in done.err
    assert not (tmp_path / "run").exists()


def test_list_and_config(endolux, tmp_path: Path) -> None:
    done = endolux("train", "--list", "--json")
    assert {"leve", "repdepth", "leve-distilled"} <= {row["name"] for row in done.document}
    shown = endolux("config", "show", "leve", "batch=3")
    assert yaml.safe_load(shown.out)["batch"] == 3
    (tmp_path / "mine.yaml").write_text(shown.out)
    checked = endolux("config", "validate", "mine.yaml")
    assert checked.code == 0, checked.err
    assert "mine.yaml is valid" in checked.out


def test_recipes_are_read_without_torch() -> None:
    code = "import sys; from endolux.train import load_recipe; load_recipe('leve'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
