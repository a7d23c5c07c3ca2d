"""docs/galore.md does what it shows."""

from __future__ import annotations

import doctest
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[2] / "docs/galore.md"


def test_the_page_runs() -> None:
    state = torch.get_rng_state()
    try:
        found = doctest.testfile(str(PAGE), module_relative=False)
    finally:
        torch.set_rng_state(state)
    assert found.attempted > 12
    assert found.failed == 0
