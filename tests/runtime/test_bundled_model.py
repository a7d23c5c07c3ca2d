"""The network that ships: whole, small, repeatable, the same on both engines, and better than guessing."""

from __future__ import annotations

import hashlib
import importlib.resources
import subprocess
import sys

import numpy as np
import pytest

import endolux
from endolux.evaluate.baselines import brightness_depth, constant_depth
from endolux.geometry.align import Alignment, align
from endolux.io.sources import Failure, open_source
from endolux.metrics import depth_metrics
from endolux.runtime.bundles import DEFAULT_MODEL, load_bundle, verify_bundle
from endolux.types import DepthKind, Frame


@pytest.fixture(scope="module")
def frame() -> Frame:
    clip = importlib.resources.files("endolux") / "data" / "demo.mp4"
    with importlib.resources.as_file(clip) as path, open_source(path) as source:
        item = next(source.frames())
    assert not isinstance(item, Failure)
    return item


def test_it_is_whole_small_and_says_what_it_is() -> None:
    assert all(check.ok for check in verify_bundle(DEFAULT_MODEL))
    bundle = load_bundle(DEFAULT_MODEL)
    assert sum(file.stat().st_size for file in bundle.folder.iterdir()) < 10_000_000
    card = bundle.card
    assert card.output.kind is DepthKind.RELATIVE_DEPTH
    assert card.licence == "Apache-2.0"
    assert card.derived_from == ()
    assert any("Laparoscopic" in limit for limit in card.limits)
    assert any("medical device" in limit for limit in card.limits)
    assert 2_000_000 < card.parameters < 4_000_000


def test_same_frame_gives_same_bytes_here_and_in_a_new_process(frame: Frame) -> None:
    code = (
        "import hashlib, importlib.resources, endolux\n"
        "from endolux.io.sources import open_source\n"
        "path = importlib.resources.files('endolux') / 'data' / 'demo.mp4'\n"
        "frame = next(open_source(str(path)).frames())\n"
        "print(hashlib.sha256(endolux.load().predict(frame).values.tobytes()).hexdigest())\n"
    )
    model = endolux.load()
    here = [hashlib.sha256(model.predict(frame).values.tobytes()).hexdigest() for _ in range(2)]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert here == [there, there]


def test_openvino_agrees_with_onnxruntime(frame: Frame) -> None:
    pytest.importorskip("openvino")
    first = endolux.load(engine="onnxruntime").predict(frame)
    second = endolux.load(engine="openvino").predict(frame)
    assert float(np.abs(second.values / first.values - 1.0).max()) < 1e-4


@pytest.mark.parametrize("size", [(64, 64), (97, 33), (401, 1200)])
def test_any_size_and_aspect(size: tuple[int, int]) -> None:
    width, height = size
    image = np.random.default_rng(0).integers(60, 220, (height, width, 3)).astype(np.uint8)
    depth = endolux.load().predict(image)
    assert depth.size == size
    assert np.isfinite(depth.values[depth.valid]).all()


def test_it_beats_both_baselines_on_scenes_it_never_saw() -> None:
    pytest.importorskip("embreex")
    pytest.importorskip("numba")
    from endolux.phantom.world import PhantomSettings, frames

    # Training used scenes from 0 on; these numbers are out of its reach by construction.
    settings = PhantomSettings(seed=1, first_scene=1_000_000, frames=8, views_per_scene=1)
    model = endolux.load()
    scores: dict[str, list[float]] = {"model": [], "constant": [], "brightness": []}
    for item in frames(settings):
        image, valid = item.frame.image, item.depth.valid
        for name, depth in (
            ("model", model.predict(item.frame)),
            ("constant", constant_depth(image, valid)),
            ("brightness", brightness_depth(image, valid)),
        ):
            fitted = align(depth, item.depth.values.astype(np.float64), valid, alignment=Alignment.MEDIAN)
            scores[name].append(depth_metrics(fitted.values, item.depth.values, fitted.valid)["abs_rel"])
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    assert mean["model"] < 0.8 * min(mean["constant"], mean["brightness"]), mean
