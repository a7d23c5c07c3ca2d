"""Networks: one registry, one file an architecture."""

from endolux.models.afsfm import AfSfmLearner
from endolux.models.base import DepthNetwork, architectures, create, register
from endolux.models.d2gpland import D2gplandNetwork
from endolux.models.dares import Dares
from endolux.models.depth_anything import DepthAnything
from endolux.models.endodac import EndoDAC
from endolux.models.guidedepth import GuideDepth
from endolux.models.hiera_depth import HieraDepth
from endolux.models.landmark_network import LandmarkNetwork, create_landmarks
from endolux.models.landmarks import SrftGaloreNetwork
from endolux.models.landmarks_light import LandmarksLight
from endolux.models.leve import Leve, LeveMobileNetV3
from endolux.models.lite_mono import LiteMono
from endolux.models.litenet import LiteNet
from endolux.models.parts import Part, create_part, parts, register_part
from endolux.models.pose_flow import AppearanceFlow, IntrinsicsHead, OpticalFlow, PoseDecoder, PoseNetwork
from endolux.models.ratio import RatioNetwork, from_ratio, to_ratio
from endolux.models.repdepth import RepDepth
from endolux.models.resnet import ResNetEncoder
from endolux.models.skip_decoder import SkipDecoder

__all__ = [
    "AfSfmLearner",
    "AppearanceFlow",
    "D2gplandNetwork",
    "Dares",
    "DepthAnything",
    "DepthNetwork",
    "EndoDAC",
    "GuideDepth",
    "HieraDepth",
    "IntrinsicsHead",
    "LandmarkNetwork",
    "LandmarksLight",
    "Leve",
    "LeveMobileNetV3",
    "LiteMono",
    "LiteNet",
    "OpticalFlow",
    "Part",
    "PoseDecoder",
    "PoseNetwork",
    "RatioNetwork",
    "RepDepth",
    "ResNetEncoder",
    "SkipDecoder",
    "SrftGaloreNetwork",
    "architectures",
    "create",
    "create_landmarks",
    "create_part",
    "from_ratio",
    "parts",
    "register",
    "register_part",
    "to_ratio",
]
