"""kill -9 at any moment, in the middle of writes too: the resumed run has the bytes of an undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import differing, go, log
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endolux.train.checkpoints import checkpoints

HERE = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_resumed(data: Path, tmp_path: Path) -> None:
    from kill_child import CHANGES

    done = subprocess.run(
        [sys.executable, str(HERE / "kill_child.py"), str(data), str(tmp_path / "killed"), "5"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    killed, code = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert killed >= 4, done.stderr
    whole = go(data, tmp_path / "whole", *CHANGES)
    last = checkpoints(tmp_path / "killed")[-1]
    assert differing(whole, last) == []
    for name in ("network", "average", "state"):
        assert (whole / f"{name}.safetensors").read_bytes() == (last / f"{name}.safetensors").read_bytes()
    assert not [path.name for path in (tmp_path / "killed").iterdir() if path.name.startswith(".step")]

    free = {"time", "images_per_s"}
    lines, expected = (
        [{k: v for k, v in line.items() if k not in free} for line in log(tmp_path / n)] for n in ("killed", "whole")
    )
    assert lines == expected
    assert _scalars(tmp_path / "killed") == _scalars(tmp_path / "whole")
    assert len(_scalars(tmp_path / "whole")["total"]) == 8


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"), purge_orphaned_data=False)
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag != "images_per_s"
    }
