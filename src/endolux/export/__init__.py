"""Trained networks to bundles that run without torch."""

from endolux.export.bundle import Exported, export_bundle
from endolux.export.onnx import Parity, check_parity, inference_network, onnx_bytes, safetensors_bytes

__all__ = [
    "Exported",
    "Parity",
    "check_parity",
    "export_bundle",
    "inference_network",
    "onnx_bytes",
    "safetensors_bytes",
]
