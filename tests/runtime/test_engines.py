"""Engines: agreement, determinism, and every way a graph or an argument can be wrong."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import numpy as np
import pytest

from endolux.errors import DeviceError, MissingExtraError, ModelError, UsageError
from endolux.runtime import engines
from endolux.runtime.bundles import load_bundle, write_bundle
from endolux.runtime.engines import ENGINES, Engine, create_engine, default_threads

NAMES = sorted(ENGINES)


def batch(count: int = 1, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest, tiny_bundle: Path) -> Engine:
    pytest.importorskip(request.param)
    return create_engine(load_bundle(tiny_bundle), engine=request.param, threads=1)


def test_keeps_to_the_interface(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.name in NAMES
    assert engine.version
    assert engine.precision == "float32"
    assert engine.threads == 1


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 64, 96), (1, 32, 32), (2, 32, 320), (1, 224, 384), (1, 96, 64)])
def test_dynamic_shapes(engine: Engine, shape: tuple[int, int, int]) -> None:
    for _ in range(2):
        depth = engine.run(batch(*shape))
        assert depth.shape == (shape[0], 1, *shape[1:])
        assert depth.dtype == np.float32
        assert 1 <= depth.min() <= depth.max() <= 200


def test_many_shapes_stay_bounded(engine: Engine) -> None:
    first = engine.run(batch())
    for index in range(1, 10):
        engine.run(batch(1, 32, 32 * index))
    compiled = getattr(engine, "_compiled", {})
    assert len(compiled) <= engines._COMPILED_SHAPES
    assert engine.run(batch()).tobytes() == first.tobytes()


def test_result_is_not_reused(engine: Engine) -> None:
    """A result must not change when the engine runs again."""
    first = engine.run(batch())
    kept = first.copy()
    engine.run(255 - batch())
    assert np.array_equal(first, kept)


def test_same_bytes(engine: Engine, tiny_bundle: Path) -> None:
    again = create_engine(load_bundle(tiny_bundle), engine=engine.name, threads=1)
    assert engine.run(batch()).tobytes() == engine.run(batch()).tobytes() == again.run(batch()).tobytes()


def test_batch_is_the_same_as_one_by_one(engine: Engine) -> None:
    images = batch(3)
    whole = engine.run(images)
    for index in range(3):
        assert np.abs(engine.run(images[index : index + 1])[0] - whole[index]).max() < 1e-4


def test_exact_engines_agree(tiny_bundle: Path) -> None:
    pytest.importorskip("openvino")
    bundle = load_bundle(tiny_bundle)
    images = batch(2, 128, 192)
    reference = create_engine(bundle, threads=1).run(images)
    other = create_engine(bundle, engine="openvino", threads=1).run(images)
    # One part in ten thousand of the range of 200 mm.
    assert np.abs(reference - other).max() < 1e-4 * np.ptp(reference)
    assert np.abs(reference - other).max() < 1e-3


def test_fast_says_what_it_computes_in(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert create_engine(bundle, precision="fast").precision == "float32"
    pytest.importorskip("openvino")
    fast = create_engine(bundle, engine="openvino", precision="fast", threads=1)
    recorded = fast.precision
    exact = create_engine(bundle, threads=1).run(batch())
    difference = np.abs(fast.run(batch()) - exact).max()
    assert fast.precision == recorded
    assert recorded in ("float32", "bfloat16", "float16")
    assert (difference > 1e-3) == (recorded != "float32")


@pytest.mark.parametrize(
    ("options", "error_id"),
    [
        ({"engine": "tensorflow"}, "engine.unknown"),
        ({"precision": "double"}, "engine.precision"),
        ({"threads": 0}, "engine.threads"),
        ({"threads": -1}, "engine.threads"),
    ],
)
def test_bad_arguments(tiny_bundle: Path, options: dict, error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_engine(load_bundle(tiny_bundle), **options)
    assert caught.value.error_id == error_id
    assert caught.value.exit_code == 2


def test_missing_extra(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_openvino(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "openvino":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_openvino)
    with pytest.raises(MissingExtraError, match=r"pip install 'endolux\[openvino\]'") as caught:
        create_engine(load_bundle(tiny_bundle), engine="openvino")
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("graph", [b"", b"not a graph", b"\x08\x09" * 50])
def test_garbage_graph(tmp_path: Path, name: str, graph: bytes, tiny_fields: dict[str, object]) -> None:
    pytest.importorskip(name)
    bundle = write_bundle(tmp_path / "bad", card_fields=tiny_fields, files={"model.onnx": graph})
    with pytest.raises(ModelError) as caught:
        create_engine(bundle, engine=name)
    assert caught.value.error_id == "model.graph"


def test_bundle_without_a_graph(tmp_path: Path, tiny_fields: dict[str, object]) -> None:
    bundle = write_bundle(tmp_path / "bare", card_fields=tiny_fields, files={"notes.md": b"no graph"})
    with pytest.raises(ModelError) as caught:
        create_engine(bundle)
    assert caught.value.error_id == "model.missing"


def test_wrong_ports(tmp_path: Path, tiny_bundle: Path, tiny_fields: dict[str, object]) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string((tiny_bundle / "model.onnx").read_bytes())
    model.graph.output[0].name = model.graph.node[-1].output[0] = "disparity"
    files = {"model.onnx": model.SerializeToString()}
    bundle = write_bundle(tmp_path / "ports", card_fields=tiny_fields, files=files)
    with pytest.raises(ModelError, match="disparity") as caught:
        create_engine(bundle)
    assert caught.value.error_id == "model.graph"


def test_out_of_memory_is_a_device_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(load_bundle(tiny_bundle))

    class Exhausted:
        def run(self, *_: object) -> object:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 123")

    monkeypatch.setattr(engine, "_session", Exhausted())
    with pytest.raises(DeviceError) as caught:
        engine.run(batch())
    assert caught.value.error_id == "device.memory"
    assert caught.value.exit_code == 8


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no CPU affinity")
def test_default_threads_respect_affinity() -> None:
    assert default_threads() == len(os.sched_getaffinity(0))
