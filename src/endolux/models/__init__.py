"""Networks: one registry, one file an architecture."""

from endolux.models import repdepth as _repdepth  # noqa: F401  (fills the registry)
from endolux.models.base import DepthNetwork, architectures, create, register
from endolux.models.repdepth import RepDepth

__all__ = ["DepthNetwork", "RepDepth", "architectures", "create", "register"]
