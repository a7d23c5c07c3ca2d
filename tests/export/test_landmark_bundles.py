"""The big network of landmarks as a bundle: a graph for one size, pictures stretched to it, ``endolux segment``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from endolux.cli.root import run
from endolux.errors import UsageError
from endolux.export.landmarks import export_landmarks
from endolux.models import create_landmarks
from endolux.models.landmarks import TINY
from endolux.models.sam import TINY_SAM
from endolux.runtime.landmarks import load_landmarks
from endolux.train.checkpoints import load_exported
from endolux.train.engine import fit
from endolux.train.recipe import load_recipe
from train.landmark_pictures import write_l3d

SIZE = (96, 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("big")
    data = write_l3d(folder / "data", patients=1)
    changes = [
        "segmentation=null",
        f"model.config={json.dumps({**TINY, 'encoders': 'galore'})}",
        "optimiser={name: galore, adapted: 10, rank: 4, lr: 1e-3}",
        f"data.size=[{SIZE[0]},{SIZE[1]}]",
        *("epochs=null", "steps=2", "batch=2", "device=cpu", "threads=1", "precision=fp32"),
    ]
    fit(None, load_recipe("srft-galore", changes), [f"l3d:{data}"], folder / "run")
    # The size of the training, without being told.
    assert run(["export", str(folder / "run"), "-o", str(folder / "bundle"), "--store", "fp32"]) == 0
    return folder


def test_graph_is_the_network(trained: Path) -> None:
    card = json.loads((trained / "bundle/card.json").read_text())
    assert card["preprocessing"]["resize"] == "stretch"
    assert (card["preprocessing"]["width"], card["preprocessing"]["height"]) == SIZE
    graph = onnx.load(trained / "bundle/model.onnx").graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, SIZE[1], SIZE[0], 3]
    network, _ = load_exported(trained / "run")
    assert network.architecture == "srft-galore"
    model = load_landmarks(trained / "bundle", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    with torch.inference_mode():
        expected = network.probabilities(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    given = model.engine.run(image[None])
    assert np.abs(given - expected.numpy()).max() < 1e-4
    pytest.importorskip("openvino")
    other = load_landmarks(trained / "bundle", engine="openvino", threads=1)
    assert np.abs(other.engine.run(image[None]) - given).max() < 1e-4


def test_pictures_are_stretched(trained: Path) -> None:
    model = load_landmarks(trained / "bundle", threads=1)
    picture = cv2.imread(str(next((trained / "data/Train/images").iterdir())))[..., ::-1]
    found = model.predict(np.ascontiguousarray(picture))
    assert found.labels.shape == picture.shape[:2]
    assert run(["segment", str(trained / "data/Train/images"), "-o", str(trained / "out"), "--model",
                str(trained / "bundle"), "--no-overlay"]) == 0  # fmt: skip
    assert len(list((trained / "out/masks").iterdir())) == 3


@pytest.mark.parametrize("depth", [True, False])
def test_a_form_for_one_size_is_the_same_network(depth: bool) -> None:
    torch.manual_seed(0)
    network = create_landmarks("srft-galore", **{**TINY, "depth": depth}).eval()
    image = torch.rand(1, 3, SIZE[1], SIZE[0])
    with torch.inference_mode():
        torch.testing.assert_close(network.fixed(SIZE)(image), network(image), rtol=1e-4, atol=1e-5)
        # The network itself still takes any size.
        assert network(torch.rand(1, 3, 96, 64)).shape == (1, 4, 24, 16)
    light = create_landmarks("landmarks-light")
    assert light.any_size
    assert light.fixed(SIZE) is light


def test_networks_that_read_depth_have_no_bundle(tmp_path: Path) -> None:
    for network in (create_landmarks("d2gpland", sam=TINY_SAM), create_landmarks("landmarks-light", depth="input")):
        with pytest.raises(UsageError, match="reads depth") as caught:
            export_landmarks(network, folder=tmp_path / "bundle", name="a", size=(64, 64))
        assert caught.value.error_id == "export.unsupported"
