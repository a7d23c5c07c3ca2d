"""Settings of the tests that compute with torch."""

from __future__ import annotations

import torch

# Two test processes on two cores: threads that wait for each other take longer than one thread alone.
torch.set_num_threads(1)
