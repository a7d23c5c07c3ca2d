"""A grid of four rows, results written by hand, and runs that take no time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import small_grid

from endolux.reproduce.grid import Grid


@pytest.fixture
def grid() -> Grid:
    return small_grid()
