"""Trained networks to bundles that run without torch."""

from endolux.export.bundle import Exported, export_bundle
from endolux.export.onnx import Parity, check_parity, inference_network, onnx_bytes, safetensors_bytes
from endolux.export.published import import_published
from endolux.export.storage import STORES, Store

__all__ = [
    "STORES",
    "Exported",
    "Parity",
    "Store",
    "check_parity",
    "export_bundle",
    "import_published",
    "inference_network",
    "onnx_bytes",
    "safetensors_bytes",
]
