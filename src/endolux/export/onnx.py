"""From a trained network to ONNX and safetensors: folded, stored small, checked, the same bytes every time."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import safetensors.torch
import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import CheckError, ModelError
from endolux.export.storage import Store, is_kernel, rounded, store_kernels_
from endolux.models.base import DepthNetwork
from endolux.models.landmark_network import ExportedNetwork, LandmarkNetwork
from endolux.types import DepthKind

OPSET = 18
INPUT, OUTPUT, CLASSES = "image", "depth", "probabilities"
_Network = TypeVar("_Network", DepthNetwork, LandmarkNetwork)


@dataclasses.dataclass(frozen=True, slots=True)
class Parity:
    """Largest relative difference between torch and ONNX Runtime at one input size (width, height).

    Of a disparity, whose zero means nothing, relative to the largest value of the map.
    """

    size: tuple[int, int]
    relative: float


def inference_network(network: _Network, *, store: Store = "fp16") -> _Network:
    """The network as a bundle stores it: fused, kernels rounded as :mod:`endolux.export.storage` says, in float32.

    Raises:
        ModelError: a weight is not finite or too large for fp16, so the network cannot be stored.

    Example:
        >>> from endolux.models import create
        >>> inference_network(create("repdepth")).config()["fused"]
        True
    """
    fused = network.fuse().cpu().float().eval()
    with torch.no_grad():
        for name, parameter in fused.named_parameters():
            parameter.copy_(rounded(parameter, store))
            if not bool(torch.isfinite(parameter).all()):
                raise ModelError(
                    f"The weight '{name}' is not finite{'' if store == 'fp32' else ' in fp16'}",
                    why="Training diverged, or a BatchNorm saw almost constant input and its folded scale exploded.",
                    fix="Export an earlier checkpoint.",
                    error_id="model.weights",
                )
    return fused


def onnx_bytes(network: ExportedNetwork, *, store: Store = "fp16", size: tuple[int, int] | None = None) -> bytes:
    """Serialise an :func:`inference_network`.

    The graph takes ``image``, N x H x W x 3 uint8 RGB, H and W any multiples of ``network.multiple``, and gives
    ``depth``, N x 1 x H x W float32, or of landmarks ``probabilities``, N x classes x H x W float32. Kernels lie in the
    file as ``store`` says, followed by what turns them into
    float32 and what runtimes fold at load. The same weights give the same bytes; no paths, traces or dates are inside.

    Args:
        network: an :func:`inference_network`, rounded for the same ``store``.
        store: how kernels are stored.
        size: (width, height) of the one picture that the graph shall take, for networks that are fixed to one.
    """
    return stored_bytes(graph(network, size=size), network, store)


def graph(network: ExportedNetwork, *, size: tuple[int, int] | None = None) -> onnx.ModelProto:
    """The graph of :func:`onnx_bytes` with every kernel in float32."""
    if size is not None:
        return _graph(network, torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8), None)
    step = network.multiple
    # Distinct sizes, none of them 1, not even after every pooling: torch.export specialises a dimension on 0 or 1.
    wide = 3 if step >= 32 else 1024 // step
    example = torch.zeros(2, wide * step, (wide + 1) * step, 3, dtype=torch.uint8)
    largest = 8192 // step
    shapes = {
        0: torch.export.Dim("N"),
        1: step * torch.export.Dim("h", min=1, max=largest),
        2: step * torch.export.Dim("w", min=1, max=largest),
    }
    return _graph(network, example, (shapes,))


def _graph(network: ExportedNetwork, example: Tensor, shapes: tuple[dict[int, Any], ...] | None) -> onnx.ModelProto:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _FromPixels(network).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[output_name(network)],
            dynamic_shapes=shapes,
            verbose=False,
            # The optimizer folds constants before it is known which of them are kernels; runtimes do it anyway.
            optimize=True,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export(dynamo=True) gave no program")
    model = program.model_proto
    _anonymise(model)
    return model


def stored_bytes(model: onnx.ModelProto, network: ExportedNetwork, store: Store) -> bytes:
    """Serialise :func:`graph` of ``network`` with its kernels stored as ``store`` says; ``model`` is left alone."""
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    store_kernels_(stored, {name: parameter.detach() for name, parameter in network.named_parameters()}, store)
    onnx.checker.check_model(stored, full_check=True)
    return cast(bytes, stored.SerializeToString(deterministic=True))


def safetensors_bytes(network: ExportedNetwork, *, store: Store = "fp16") -> bytes:
    """The weights of an :func:`inference_network` as safetensors: kernels fp16 (or fp32), biases fp32."""
    tensors = {
        name: (tensor.half() if store != "fp32" and is_kernel(tensor) else tensor).contiguous()
        for name, tensor in sorted(network.state_dict().items())
    }
    return cast(bytes, safetensors.torch.save(tensors))


def check_parity(
    network: ExportedNetwork, model: bytes, *, sizes: tuple[tuple[int, int], ...], tolerance: float = 1e-4
) -> tuple[Parity, ...]:
    """Run torch and ONNX Runtime on the same random pictures.

    Args:
        network: what :func:`onnx_bytes` was given.
        model: what it returned.
        sizes: (width, height) of the pictures, multiples of ``network.multiple``.
        tolerance: largest accepted relative difference of a depth value, or difference of a probability.

    Raises:
        CheckError: a difference is larger.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    results = []
    for width, height in sizes:
        image = _picture(generator, width, height)
        with torch.inference_mode():
            expected = _FromPixels(network)(torch.from_numpy(image)).numpy()
            jumps = None
            if isinstance(network, DepthNetwork):
                jumps = network.discontinuous(_planes(torch.from_numpy(image)))
        actual = session.run([output_name(network)], {INPUT: image})[0]
        if jumps is not None and actual.shape == expected.shape:
            actual = np.where(jumps.numpy(), expected, actual)
        kind = network.kind if isinstance(network, DepthNetwork) else None
        relative = _largest_difference(actual, expected, kind)
        results.append(Parity((width, height), relative))
        # Negated so that NaN fails.
        if not relative <= tolerance:
            raise CheckError(
                f"ONNX Runtime differs from torch by {relative:.1e} (relative) at {width}x{height}",
                why=f"At most {tolerance:.0e} is accepted.",
                fix="Report this with the versions of torch, onnx and onnxruntime.",
                error_id="export.parity",
            )
    return tuple(results)


class _FromPixels(nn.Module):
    """The network behind the conversion from pixels, as it stands in the graph."""

    def __init__(self, network: ExportedNetwork) -> None:
        super().__init__()
        self.network = network

    @override
    def forward(self, image: Tensor) -> Tensor:
        if isinstance(self.network, LandmarkNetwork):
            return self.network.probabilities(_planes(image))
        return self.network.depth(_planes(image))


def output_name(network: ExportedNetwork) -> str:
    """What the graph of a network calls its output."""
    return CLASSES if isinstance(network, LandmarkNetwork) else OUTPUT


def rounding_error(network: _Network, stored: _Network, *, size: tuple[int, int]) -> float:
    """Mean relative difference of depth between a network and its :func:`inference_network`, on a random picture.

    Of landmarks, the mean difference of the probabilities.
    """
    image = _planes(torch.from_numpy(_picture(np.random.default_rng(1), *size)))
    if isinstance(network, LandmarkNetwork) and isinstance(stored, LandmarkNetwork):
        with torch.inference_mode():
            before = network.fuse().cpu().float().probabilities(image)
            return float((before - stored.probabilities(image)).abs().mean())
    with torch.inference_mode():
        expected, actual = network.fuse().cpu().float().depth(image), stored.depth(image)
    if network.kind is DepthKind.RELATIVE_DISPARITY:
        largest = float(expected.abs().max())
        return float((actual - expected).abs().mean()) / largest if largest > 0 else 0.0
    known = expected > 0
    return float((actual / expected - 1.0).abs()[known].mean()) if bool(known.any()) else 0.0


def _planes(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).float() * (1.0 / 255.0)


def _largest_difference(
    actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], kind: DepthKind | None
) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    if kind is None:
        return float(np.max(np.abs(actual - expected)))
    if kind is DepthKind.RELATIVE_DISPARITY:
        return float(np.max(np.abs(actual - expected)) / max(float(np.max(np.abs(expected))), 1e-9))
    differing = actual != expected
    return float(np.max(np.abs(actual[differing] / expected[differing] - 1.0))) if differing.any() else 0.0


def _picture(generator: np.random.Generator, width: int, height: int) -> npt.NDArray[np.uint8]:
    # Smooth as well as noisy: pure noise averages out to the same features everywhere.
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 23 + phase) * np.cos(y / 17 - phase) * 90 + 120 for phase in (0.0, 1.0, 2.0)]
    noisy = np.stack(waves, axis=-1) + generator.normal(0, 15, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)[None]


def _anonymise(model: onnx.ModelProto) -> None:
    # The exporter writes Python stack traces with file paths into every node.
    model.doc_string = ""
    model.producer_name, model.producer_version = "endolux", ""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    graph.name, graph.doc_string = "endolux", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for index, node in enumerate(graph.node):
        node.doc_string, node.name = "", f"{node.op_type}_{index}"
        del node.metadata_props[:]
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for value, names in ((graph.input[0], ("N", "H", "W", None)), (graph.output[0], ("N", None, "H", "W"))):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name and not dimension.dim_value:
                dimension.dim_param = name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter reports its progress on stdout and warns about packages that it can do without.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
