"""Storage of kernels: what 8 bits cost, and graphs that hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from endolux.errors import CheckError, UsageError
from endolux.export import check_parity, export_bundle, inference_network, safetensors_bytes
from endolux.export.onnx import graph, rounding_error, stored_bytes
from endolux.export.storage import quantise, rounded
from endolux.models import DepthNetwork, RepDepth

WIDE = {"widths": (24, 32, 32, 32), "blocks": (1, 1, 2, 2), "decoder": (32, 24, 24), "fine": 4}


def lively() -> DepthNetwork:
    torch.manual_seed(0)
    network = RepDepth(**WIDE).train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(2, 3, 64, 64))
    nn.init.normal_(network.head.weight, std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    return lively()


@pytest.fixture(scope="module")
def model(network: DepthNetwork) -> onnx.ModelProto:
    return graph(inference_network(network, store="int8"))


@given(st.integers(0, 2**31), st.integers(-30, 30), st.sampled_from([(5, 7), (4, 3, 3, 3), (6, 1, 5, 5)]))
@settings(max_examples=50, deadline=None)
def test_codes_are_near_and_stay_when_rounded_again(seed: int, exponent: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(shape, generator=generator) * 2.0**exponent
    kernel[0] = 0
    codes, factors = quantise(kernel)
    assert codes.dtype == torch.int8
    assert int(codes.abs().max()) <= 127
    assert factors.shape == (shape[0], *([1] * (len(shape) - 1)))
    assert bool((factors > 0).all())
    values = codes.float() * factors
    step = kernel.flatten(1).abs().amax(dim=1).reshape(factors.shape) / 127
    assert float((values - kernel).square().sum()) <= float((step * 0.51).square().sum() * kernel[0].numel())
    again_codes, again_factors = quantise(values)
    assert torch.equal(again_codes, codes)
    assert torch.equal(again_factors, factors)
    assert torch.equal(codes.double() * factors.double(), values.double()), "the product is exact"


def test_only_large_kernels_take_eight_bits() -> None:
    small, large, bias = torch.randn(8, 8, 3, 3), torch.randn(32, 32, 3, 3), torch.randn(64)
    assert torch.equal(rounded(small, "int8"), small.half().float())
    assert not torch.equal(rounded(large, "int8"), large.half().float())
    assert torch.equal(rounded(bias, "int8"), bias)
    assert torch.equal(rounded(large, "fp32"), large)


@pytest.mark.parametrize("store", ["fp32", "fp16", "int8"])
def test_each_storage_gives_the_rounded_network(network: DepthNetwork, model: onnx.ModelProto, store: str) -> None:
    ready = inference_network(network, store="int8")
    data = stored_bytes(model, ready, store)
    if store == "fp16":
        # The kernels in this graph hold 8-bit values, which fp16 rounds once more.
        ready = inference_network(ready, store="fp16")
    parity = check_parity(ready, data, sizes=((96, 64), (160, 224)))
    assert max(result.relative for result in parity) < 1e-4


def test_eight_bits_are_a_quarter(network: DepthNetwork, model: onnx.ModelProto) -> None:
    ready = inference_network(network, store="int8")
    sizes = {store: len(stored_bytes(model, ready, store)) for store in ("fp32", "fp16", "int8")}
    weights = sum(p.numel() for p in ready.parameters())
    assert sizes["fp32"] - sizes["int8"] > 2.4 * weights
    assert sizes["fp32"] > sizes["fp16"] > sizes["int8"]
    stored = onnx.load_from_string(stored_bytes(model, ready, "int8"))
    kinds = {
        i.name: i.data_type for i in stored.graph.initializer if len(i.dims) == 4 and not i.name.endswith("factor")
    }
    assert onnx.TensorProto.INT8 in kinds.values()
    assert set(kinds.values()) <= {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16}


def test_the_same_weights_give_the_same_bytes(network: DepthNetwork, model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    first, second = (inference_network(n, store="int8") for n in (network, lively()))
    assert stored_bytes(model, first, "int8") == stored_bytes(model, second, "int8")
    assert model.SerializeToString(deterministic=True) == before


def test_unrounded_kernels_are_not_stored_as_codes(network: DepthNetwork, model: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="not rounded"):
        stored_bytes(model, inference_network(network, store="fp32"), "int8")


def test_rounding_is_measured(network: DepthNetwork) -> None:
    errors = {
        store: rounding_error(network, inference_network(network, store=store), size=(96, 64))
        for store in ("fp32", "fp16", "int8")
    }
    assert errors["fp32"] == 0.0
    assert 0 < errors["fp16"] < errors["int8"] < 0.05


def test_an_eight_bit_bundle(
    tmp_path: Path, network: DepthNetwork, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tracing takes seconds and is tested elsewhere.
    monkeypatch.setattr("endolux.export.onnx.graph", lambda _network, **_options: model)
    exported = export_bundle(network, folder=tmp_path / "b", name="small", size=(96, 64), store="int8")
    assert sorted(exported.bundle.card.files) == ["model.onnx"]
    assert 0 < exported.rounding < 0.05
    assert exported.bundle.card.preprocessing.resize == "keep-aspect"
    session = onnxruntime.InferenceSession(tmp_path / "b" / "model.onnx", providers=["CPUExecutionProvider"])
    depth = session.run(None, {"image": np.full((1, 64, 96, 3), 100, np.uint8)})[0]
    assert depth.shape == (1, 1, 64, 96)


def test_float32_bundles_change_nothing(network: DepthNetwork) -> None:
    ready = inference_network(network, store="fp32")
    fused = network.fuse().state_dict()
    assert all(torch.equal(tensor, fused[name]) for name, tensor in ready.state_dict().items())
    stored = safetensors_bytes(ready, store="fp32")
    assert len(stored) > 4 * sum(p.numel() for p in ready.parameters())


def test_rounding_that_moves_depth_far_is_refused(
    tmp_path: Path, network: DepthNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("endolux.export.bundle._LARGEST_ROUNDING", 1e-9)
    with pytest.raises(CheckError) as caught:
        export_bundle(network, folder=tmp_path / "b", name="small", size=(96, 64), store="int8")
    assert caught.value.error_id == "export.rounding"
    assert not (tmp_path / "b").exists()


def test_an_unknown_storage_is_refused(tmp_path: Path, network: DepthNetwork) -> None:
    with pytest.raises(UsageError) as caught:
        export_bundle(network, folder=tmp_path / "b", name="x", size=(96, 64), store="int4")  # type: ignore[arg-type]
    assert caught.value.error_id == "export.store"
