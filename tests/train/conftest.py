"""Shards for the tests of training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# For the small transformers.
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from shards import write_shard


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shard(tmp_path / "data" / "shard-0", count=6, seed=1, room=2)
    write_shard(tmp_path / "data" / "shard-1", count=5, seed=2)
    return tmp_path / "data"
