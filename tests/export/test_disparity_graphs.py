"""LiteNet and Lite-Mono as graphs: any size, both engines, and nothing of what only training needs."""

from __future__ import annotations

import onnx
import pytest
import torch
from test_lite_mono import spread, tiny
from test_litenet import small, trained_

from endolux.export import check_parity, inference_network, onnx_bytes
from endolux.models.disparity import DisparityNetwork

# What every runtime has in float32 and in 8 bits, and what is folded at load.
_PLAIN = {"Add", "Cast", "Concat", "Conv", "Div", "Erf", "Gelu", "Mul", "ReduceSum", "Relu", "Resize", "Sigmoid"}
_PLAIN |= {"Constant", "Gather", "Identity", "Reciprocal", "Reshape", "Shape", "Softmax", "Squeeze", "Sub", "Transpose"}
_PLAIN |= {"Expand", "Unsqueeze"}


def engines_agree(network: DisparityNetwork, model: bytes, *, tolerance: float) -> None:
    ready = inference_network(network, store="fp32")
    step = network.multiple
    sizes = ((320, 256), (step, step), (7 * step, 5 * step), (9 * step, 14 * step))
    check_parity(ready, model, sizes=sizes, tolerance=tolerance)
    openvino = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    core = openvino.Core()
    graph = core.read_model(model, b"")
    for width, height in sizes[2:]:
        sized = graph.clone()
        sized.reshape({"image": [1, height, width, 3]})
        compiled = core.compile_model(sized, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
        image = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8)
        with torch.inference_mode():
            expected = ready.depth(image.permute(0, 3, 1, 2).float() / 255)
        actual = torch.from_numpy(compiled({"image": image.numpy()})["depth"])
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=0)
        assert expected.std() > 0.02 * expected.mean()


def test_litenet_exports_without_a_trace_of_training() -> None:
    with_parts = trained_(small(drop_path=0.2)).eval()
    without = small(side_heads=False)
    without.load_state_dict({n: t for n, t in with_parts.state_dict().items() if n in without.state_dict()})
    models = [
        onnx_bytes(inference_network(network, store="fp32"), store="fp32") for network in (with_parts, without.eval())
    ]
    assert models[0] == models[1]
    graph = onnx.load_from_string(models[0]).graph
    operations = {node.op_type for node in graph.node}
    assert operations <= _PLAIN, operations - _PLAIN
    assert "ConvTranspose" not in operations
    height, width = graph.input[0].type.tensor_type.shape.dim[1:3]
    assert height.dim_param
    assert width.dim_param
    assert [output.name for output in graph.output] == ["depth"]
    engines_agree(with_parts, models[0], tolerance=1e-4)


@pytest.mark.slow
def test_lite_mono_runs_on_both_engines_at_any_size() -> None:
    network = spread(tiny()).eval()
    model = onnx_bytes(inference_network(network, store="fp32"), store="fp32")
    engines_agree(network, model, tolerance=1e-3)
