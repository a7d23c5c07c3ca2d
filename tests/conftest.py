"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from endolux.runtime.bundles import write_bundle


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real frames beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("ENDOLUX_SHARED_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no real frames: '{folder}' is absent (set ENDOLUX_SHARED_DATA)")
    return folder.resolve()


def tiny_graph(*, scale: float = 199.0) -> bytes:
    """ONNX graph, N x H x W x 3 uint8 to N x 1 x H x W depth in [1, 1 + scale]: dark is far, blurred."""
    onnx = pytest.importorskip("onnx", reason="the tiny bundle is made with the package 'onnx' (extra 'train')")
    helper, numpy_helper, types = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    generator = np.random.default_rng(0)
    first = (generator.random((8, 3, 3, 3)) / 27).astype(np.float32)
    second = -(generator.random((1, 8, 5, 5)) / 40).astype(np.float32)
    constants = {
        "byte": np.float32(1 / 255),
        "first": first,
        "second": second,
        "bias": np.array([2.0], np.float32),
        "scale": np.float32(scale),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=types.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "byte"], ["unit"]),
        helper.make_node("Conv", ["unit", "first"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second", "bias"], ["c"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        helper.make_node("Sigmoid", ["c"], ["d"]),
        helper.make_node("Mul", ["d", "scale"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", types.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("depth", types.FLOAT, ["N", 1, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_card(**changes: object) -> dict[str, object]:
    """Card fields of the tiny bundle."""
    fields: dict[str, object] = {
        "name": "tiny",
        "summary": "Blurred darkness as depth, for tests.",
        "architecture": "two convolutions",
        "parameters": 417,
        "preprocessing": {"height": 64, "width": 96, "multiple": 32},
        "output": {"kind": "metric", "minimum": 1.0, "maximum": 200.0},
        "trained_on": "nothing",
        "intended_use": "tests",
        "limits": ["It knows nothing."],
        "licence": "Apache-2.0",
    }
    return {**fields, **changes}


@pytest.fixture
def tiny_fields() -> dict[str, object]:
    """Card fields of the tiny bundle, for tests that write one of their own."""
    return tiny_card()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small metric bundle. Shared by all tests of a session: copy it before changing it."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(folder, card_fields=tiny_card(), files={"model.onnx": tiny_graph()})
    return folder
