"""Model: sizes, masks, determinism, streams."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import endolux
from endolux.errors import ModelError, UsageError
from endolux.prep.content_area import ContentAreaTracker, find_content_area
from endolux.runtime.engines import create_engine
from endolux.runtime.model import Model, load
from endolux.types import Camera, DepthKind, Frame


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return load(tiny_bundle, threads=1)


def picture(width: int, height: int, *, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(60, 200, (4, 4, 3)).astype(np.float32)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return coarse[rows][:, columns].astype(np.uint8)


def round_picture(width: int = 320, height: int = 240, *, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x - width / 2, y - height / 2) < 0.45 * height
    return (picture(width, height, seed=seed) * inside[:, :, None]).astype(np.uint8)


@pytest.mark.parametrize(
    "size", [(1280, 720), (320, 240), (333, 217), (1, 1), (1, 7), (2, 1), (3000, 2), (2, 3000), (64, 2000)]
)
def test_output_has_the_size_of_the_input(model: Model, size: tuple[int, int]) -> None:
    depth = model.predict(picture(*size))
    assert depth.size == size
    assert depth.values.dtype == np.float32
    assert depth.kind is DepthKind.METRIC
    assert depth.valid.all()
    assert np.isfinite(depth.values).all()
    assert 1 <= depth.values.min() <= depth.values.max() <= 200


def test_outside_is_invalid(model: Model) -> None:
    image = round_picture()
    depth = model.predict(image)
    assert not depth.valid[0, 0]
    assert depth.valid[120, 160]
    assert np.isnan(depth.at(0, 0))
    assert 0.38 < depth.valid.mean() < 0.5


def test_what_lies_outside_cannot_matter(model: Model) -> None:
    """The same picture in a different surround gives the same depth, except where resampling mixes the edge."""
    image = round_picture()
    valid = find_content_area(image).mask(320, 240)
    other = np.where(valid[:, :, None], image, 255 - picture(320, 240, seed=9)).astype(np.uint8)
    first = model.predict(Frame(image=image, valid=valid))
    second = model.predict(Frame(image=other, valid=valid))
    inner = np.zeros_like(valid)
    inner[60:180, 100:220] = True
    assert np.abs(first.values - second.values)[inner].max() < 1e-3
    assert np.array_equal(first.valid, valid)


def test_black_frame_is_all_invalid_and_says_so(model: Model) -> None:
    depth = model.predict(np.zeros((240, 320, 3), np.uint8))
    assert depth.size == (320, 240)
    assert not depth.valid.any()
    nothing = Frame(image=picture(32, 24), valid=np.zeros((24, 32), bool))
    assert not model.predict(nothing).valid.any()


def test_camera_goes_along(model: Model) -> None:
    camera = Camera(width=320, height=240, fx=200, fy=200, cx=160, cy=120)
    assert model.predict(Frame(image=picture(320, 240), camera=camera)).camera == camera


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_wrong_arrays(model: Model, image: np.ndarray) -> None:
    with pytest.raises(UsageError) as caught:
        model.predict(image)
    assert caught.value.error_id == "frame.shape"


def test_unknown_model() -> None:
    with pytest.raises(ModelError) as caught:
        endolux.load("no-such-model")
    assert caught.value.error_id == "model.missing"


def test_not_a_number_is_invalid(model: Model) -> None:
    class Broken:
        name, version, precision, threads = "broken", "0", "float32", 1

        def run(self, batch: np.ndarray) -> np.ndarray:
            depth = np.full((batch.shape[0], 1, *batch.shape[1:3]), 50, np.float32)
            depth[:, :, :20, :20] = np.nan
            return depth

    depth = Model(model.bundle, Broken()).predict(picture(320, 240))
    assert not depth.valid[0, 0]
    assert depth.valid[-1, -1]
    assert np.isfinite(depth.values).all()
    assert (depth.values[depth.valid] == 50).all()


def test_batch_is_in_order_and_equal(model: Model) -> None:
    images = [picture(320, 240), np.zeros((240, 320, 3), np.uint8), picture(200, 300), round_picture(), picture(50, 40)]
    images += [picture(320, 240, seed=seed) for seed in range(1, 12)]
    together = model.predict_batch(images)
    assert len(together) == len(images)
    for image, depth in zip(images, together, strict=True):
        alone = model.predict(image)
        assert np.array_equal(alone.valid, depth.valid)
        assert np.abs(alone.values - depth.values).max() < 1e-3
    assert model.predict_batch([]) == []


class TestStream:
    def test_passes_failures_on_in_their_place(self, model: Model) -> None:
        items = [Frame(image=picture(64, 48), index=0), "failure", Frame(image=picture(64, 48), index=2)]
        out = list(model.stream(items))
        assert out[1] == "failure"
        frame, depth = out[2]
        assert frame.index == 2
        assert frame.valid is depth.valid

    def test_clip_has_one_area(self, model: Model) -> None:
        frames = [Frame(image=round_picture(seed=seed), pts_s=seed / 25) for seed in range(12)]
        masks = [depth.valid for _, depth in model.stream(frames)]
        assert all(np.array_equal(mask, masks[-1]) for mask in masks[6:])

    def test_unrelated_images_are_judged_alone(self, model: Model) -> None:
        frames = [Frame(image=picture(320, 240)), Frame(image=round_picture())]
        masks = [depth.valid for _, depth in model.stream(frames)]
        assert masks[0].all()
        assert not masks[1][0, 0]

    def test_tracker_may_be_given(self, model: Model) -> None:
        area = find_content_area(round_picture())
        tracker = ContentAreaTracker(initial=area)
        (_, depth), *_ = model.stream([Frame(image=round_picture(seed=3))], tracker=tracker)
        assert np.array_equal(depth.valid, area.mask(320, 240))

    def test_is_lazy_and_constant_in_memory(self, model: Model) -> None:
        drawn = 0

        def endless() -> Iterator[Frame]:
            nonlocal drawn
            while True:
                drawn += 1
                yield Frame(image=picture(320, 240), pts_s=drawn / 25)

        stream = model.stream(endless())
        for _ in range(5):
            next(stream)
        assert drawn == 5
        tracemalloc.start()
        try:
            for _ in range(5):
                next(stream)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[1]
            for _ in range(60):
                next(stream)
            after = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert after - before < 3_000_000


_DIGEST = """
import hashlib, sys
import numpy as np
import endolux
image = np.random.default_rng(5).integers(0, 256, (217, 333, 3), dtype=np.uint8)
model = endolux.load(sys.argv[1], engine=sys.argv[2])
first = model.predict(image).values.tobytes()
assert first == model.predict(image).values.tobytes()
print(hashlib.sha256(first).hexdigest())
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_same_bytes_in_new_processes(tiny_bundle: Path, engine: str) -> None:
    pytest.importorskip(engine)
    command = [sys.executable, "-c", _DIGEST, str(tiny_bundle), engine]
    digests = {subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)}
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_describes_itself(model: Model) -> None:
    described = model.describe()
    assert described["engine"] == "onnxruntime"
    assert described["precision"] == "float32"
    assert described["card_sha256"] == model.bundle.card_sha256
    assert model.name == "tiny"


def test_import_is_light() -> None:
    """Counted in modules, not in milliseconds, which depend on the machine."""
    heavy = "{'numpy', 'cv2', 'onnxruntime', 'openvino', 'torch', 'av', 'pydantic'}"
    code = f"import sys, endolux; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_first_depth_loads_no_more_than_it_needs(tiny_bundle: Path) -> None:
    code = (
        "import sys, numpy, endolux; m = endolux.load(sys.argv[1]); m.predict(numpy.full((72, 128, 3), 90, 'uint8'));"
        "print(sorted({'torch', 'openvino', 'av', 'yaml', 'cyclopts', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tiny_bundle)], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_lazy_exports() -> None:
    assert endolux.Frame is Frame
    assert set(endolux.__all__) <= set(dir(endolux))
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = endolux.no_such_thing  # type: ignore[attr-defined]


def test_number_of_threads_changes_no_depth(model: Model) -> None:
    two = Model(model.bundle, create_engine(model.bundle, threads=2))
    image = picture(320, 240)
    assert np.abs(two.predict(image).values - model.predict(image).values).max() < 1e-3
