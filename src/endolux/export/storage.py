"""How kernels lie in a bundle: fp32, fp16, or 8-bit integers with a factor an output channel.

Arithmetic is float32 in every case: the graph turns kernels back when it is loaded. What is stored is therefore a
question of size and of rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

Store: TypeAlias = Literal["fp16", "fp32", "int8"]
STORES: tuple[Store, ...] = get_args(Store)
_SMALLEST_INT8 = 4096
"""Kernels with fewer numbers stay fp16: they are a hundredth of the bytes, and among them is the last layer."""
_CLIPS = (0.95, 0.9, 0.85, 0.8)


def is_kernel(tensor: Tensor) -> bool:
    """Whether a parameter is stored rounded. Kernels are nearly all of the bytes; biases stay exact."""
    return tensor.ndim >= 2


def rounded(tensor: Tensor, store: Store) -> Tensor:
    """A float32 parameter with the values that ``store`` can hold.

    Example:
        >>> rounded(torch.tensor([[1.0, 1e-9]]), "fp16").tolist()
        [[1.0, 0.0]]
    """
    if store == "fp32" or not is_kernel(tensor):
        return tensor
    if store == "int8" and tensor.numel() >= _SMALLEST_INT8:
        codes, factors = quantise(tensor)
        return codes.float() * factors
    return tensor.half().float()


def quantise(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in [-127, 127] and a positive factor an output channel, so that ``codes * factors`` is near ``kernel``.

    Of a few clipping ranges, each channel takes the one of the smallest squared error.

    Args:
        kernel: outputs x ..., float32.

    Returns:
        int8 codes of the same shape, float32 factors of shape outputs x 1 x ...

    Example:
        >>> codes, factors = quantise(torch.tensor([[0.5, -1.27], [0.0, 0.0]]))
        >>> codes.tolist(), [round(float(factor), 4) for factor in factors[:, 0]]
        ([[50, -127], [0, 0]], [0.01, 1.0])
    """
    shape = (-1, *([1] * (kernel.ndim - 1)))
    largest = kernel.flatten(1).abs().amax(dim=1)
    step = torch.where(largest > 0, largest / 127.0, torch.ones_like(largest)).reshape(shape)
    factors = _short(step)
    codes = (kernel / factors).round().clamp(-127, 127)
    error = _squared(codes * factors - kernel)
    for clip in _CLIPS:
        clipped = _short(step * clip)
        candidate = (kernel / clipped).round().clamp(-127, 127)
        candidate_error = _squared(candidate * clipped - kernel)
        better = candidate_error < error
        codes, factors = torch.where(better, candidate, codes), torch.where(better, clipped, factors)
        error = torch.minimum(error, candidate_error)
    return codes.to(torch.int8), factors


def _short(factors: Tensor) -> Tensor:
    # With 16 bits, code x factor is exact in float32: rounding twice changes nothing, and every runtime agrees.
    mantissa, exponent = torch.frexp(factors)
    return torch.ldexp((mantissa * 65536.0).round() / 65536.0, exponent)


def _squared(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).sum(dim=1).reshape(-1, *([1] * (difference.ndim - 1)))


def store_kernels_(model: onnx.ModelProto, parameters: Mapping[str, Tensor], store: Store) -> None:
    """Replace, in place, the float32 kernels of a graph by what ``store`` says and the nodes that turn them back.

    Args:
        model: graph whose initialisers are the parameters, already :func:`rounded`.
        parameters: the same parameters by name.
        store: "fp32" leaves the graph as it is.
    """
    if store == "fp32":
        return
    graph = model.graph
    coded = _codes(parameters) if store == "int8" else {}
    nodes: list[NodeProto] = []
    for initializer in list(graph.initializer):
        if initializer.data_type != TensorProto.FLOAT or len(initializer.dims) < 2:
            continue
        name = initializer.name
        values = numpy_helper.to_array(initializer)
        if values.tobytes() in coded:
            codes, factors = coded[values.tobytes()]
            initializer.CopyFrom(numpy_helper.from_array(codes.reshape(values.shape), f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(factors, f"{name}.factor"))
            nodes.append(
                helper.make_node("Cast", [f"{name}.int8"], [f"{name}.code"], name=f"Cast_{name}", to=TensorProto.FLOAT)
            )
            nodes.append(helper.make_node("Mul", [f"{name}.code", f"{name}.factor"], [name], name=f"Mul_{name}"))
            continue
        half = values.astype(np.float16)
        if store == "int8" and not np.array_equal(half.astype(np.float32), values):
            # A constant that the exporter computed from a parameter: not worth a second rounding.
            continue
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        nodes.append(helper.make_node("Cast", [f"{name}.fp16"], [name], name=f"Cast_{name}", to=TensorProto.FLOAT))
    nodes.extend(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)


def _codes(
    parameters: Mapping[str, Tensor],
) -> dict[bytes, tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]]:
    # By content: the exporter renames some initialisers, and transposes the matrices of linear layers.
    found = {}
    for tensor in parameters.values():
        if not is_kernel(tensor) or tensor.numel() < _SMALLEST_INT8:
            continue
        codes, factors = _recovered(tensor)
        found[tensor.numpy().tobytes()] = (codes, factors)
        if tensor.ndim == 2:
            found[tensor.T.contiguous().numpy().tobytes()] = (np.ascontiguousarray(codes.T), factors.T.copy())
    return found


def _recovered(tensor: Tensor) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    codes, factors = quantise(tensor)
    if not torch.equal(codes.float() * factors, tensor):
        raise ValueError("the kernel was not rounded to 8 bits before it was stored")
    return codes.numpy(), factors.numpy()
