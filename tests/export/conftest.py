"""The formula for weights, and one thread for each test process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

# Two test processes on two cores: threads that wait for each other take longer than one thread alone.
torch.set_num_threads(1)
