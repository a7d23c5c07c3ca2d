"""A network that goes on from a bundle's weights, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import endolux
from endolux.errors import ModelError
from endolux.models import create
from endolux.prep.network_input import network_input, restore
from endolux.runtime.bundles import load_bundle
from endolux.train.initial_weights import load_weights_into

BUNDLE = Path("repdepth-colon")


def test_a_bundle_starts_the_network_that_it_was_made_from() -> None:
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.random((1, 3, 12, 10), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(256, 320), mode="bicubic").clamp(0, 1)
    image = (smooth[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    network = create("repdepth", fused=True).eval()
    load_weights_into(network, BUNDLE)
    spec = load_bundle(str(BUNDLE)).card.preprocessing.model_copy(update={"layout": "nchw-float32"})
    source = network_input(image, spec=spec)
    with torch.inference_mode():
        ours = restore(network.depth(torch.from_numpy(source.array))[0, 0].numpy(), source)
    theirs = endolux.load(str(BUNDLE)).predict(image).values
    assert np.median(np.abs(np.log(ours / theirs))) < 2e-3


@pytest.mark.parametrize(
    ("name", "config", "source", "error_id"),
    [
        ("repdepth", {}, "repdepth-colon", "model.folded"),
        ("repdepth", {"fused": True, "deep": 32}, "repdepth-colon", "model.variant"),
        ("litenet-t", {}, "repdepth-colon", "model.variant"),
        ("repdepth", {"fused": True}, "repdepth-endo", "model.graph-only"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(
    name: str, config: dict[str, object], source: str, error_id: str
) -> None:
    with pytest.raises(ModelError) as caught:
        load_weights_into(create(name, **config), Path(source))
    assert caught.value.error_id == error_id


def test_training_goes_on_from_a_bundle_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "endolux", "phantom", "tube", "--shards", "-n", "2", "--width", "64"]
    command += ["--height", "64", "--views-per-scene", "2", "-o", "data"]
    environment = {**os.environ, "NO_COLOR": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    settings = ["model.initial=repdepth-colon", "model.config={fused: true}", "data.size=[64,64]", "steps=1", "batch=2"]
    done = subprocess.run(
        [sys.executable, "-m", "endolux", "train", "repdepth", "--data", "data", "-o", "run", *settings, "threads=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = (tmp_path / "run" / "run.json").read_text()
    assert "repdepth-colon" in record
