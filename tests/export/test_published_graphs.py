"""Every published network as a graph, on both engines, at several sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_fill import NAMES, golden_fill_, widen_

from endolux.export import check_parity, inference_network, onnx_bytes
from endolux.models import create


# A graph with dynamic sizes takes ten seconds to trace; the test of 'endolux models import' does it for leve.
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_both_engines_agree_with_torch(name: str) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    network = create(name).eval()
    golden_fill_(network)
    widen_(network)
    ready = inference_network(network, store="fp32")
    model = onnx_bytes(ready, store="fp32")
    step = network.multiple
    sizes = ((320, 240), (step, step), (7 * step, 5 * step), (24 * step, 16 * step))
    parity = check_parity(ready, model, sizes=sizes)
    assert max(result.relative for result in parity) < 1e-4
    core = openvino.Core()
    graph = core.read_model(model, b"")
    generator = np.random.default_rng(1)
    for width, height in ((320, 240), (7 * step, 5 * step)):
        sized = graph.clone()
        sized.reshape({"image": [1, height, width, 3]})
        compiled = core.compile_model(sized, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
        image = generator.integers(0, 256, (1, height, width, 3), np.uint8)
        with torch.inference_mode():
            expected = ready.depth(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255).numpy()
        np.testing.assert_allclose(compiled({"image": image})["depth"], expected, rtol=1e-4)
        assert expected.std() > 0.1
