"""Adapting pretrained networks: low-rank gradients."""

from endolux.adapt.galore import GaLoreAdamW
from endolux.adapt.groups import galore_groups
from endolux.adapt.projections import KINDS, SIDES, captured_energy, largest_rank, projection

__all__ = ["KINDS", "SIDES", "GaLoreAdamW", "captured_energy", "galore_groups", "largest_rank", "projection"]
