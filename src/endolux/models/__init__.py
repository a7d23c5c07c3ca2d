"""Networks: one registry, one file an architecture."""

from endolux.models.base import DepthNetwork, architectures, create, register
from endolux.models.guidedepth import GuideDepth
from endolux.models.leve import Leve, LeveMobileNetV3
from endolux.models.ratio import RatioNetwork, from_ratio, to_ratio
from endolux.models.repdepth import RepDepth

__all__ = [
    "DepthNetwork",
    "GuideDepth",
    "Leve",
    "LeveMobileNetV3",
    "RatioNetwork",
    "RepDepth",
    "architectures",
    "create",
    "from_ratio",
    "register",
    "to_ratio",
]
