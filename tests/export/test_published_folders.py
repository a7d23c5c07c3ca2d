"""Published folders of AF-SfMLearner become bundles: depth network, pose network, and what their card says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from golden_fill import golden_fill_

import endolux.export.published_folder
from endolux.cli.root import run
from endolux.export.published import UNKNOWN_LICENCE, import_published
from endolux.models import PoseNetwork, create, create_part
from endolux.models.odometry import read_pose
from endolux.models.published_folder import FAMILIES
from endolux.runtime.bundles import load_bundle, verify_bundle

SIZE = (96, 64)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as AF-SfMLearner's code writes them, trained at a small size."""
    folder = tmp_path_factory.mktemp("release") / "weights_19"
    folder.mkdir()
    family = FAMILIES["af-sfmlearner"]
    for file, part in [*family.depth, *(family.companions[name] for name in ("pose_encoder", "pose_decoder"))]:
        network = create_part(part)
        golden_fill_(network)
        state: dict[str, object] = dict(network.state_dict())
        if file == "encoder.pth":
            state |= {"width": SIZE[0], "height": SIZE[1], "use_stereo": False}
        torch.save(state, folder / file)
    return folder


def test_what_goes_into_the_bundle(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def export(network: object, **options: object) -> None:
        seen.update(options, network=network)

    monkeypatch.setattr(endolux.export.published_folder, "export_bundle", export)
    import_published("af-sfmlearner", release, folder=tmp_path / "a")
    assert (seen["size"], seen["resize"], seen["name"], seen["store"]) == (SIZE, "stretch", "a", "fp32")
    card = seen["card"]
    assert card["licence"] == UNKNOWN_LICENCE
    assert [line.split(",")[0] for line in card["derived_from"]] == [
        "encoder.pth",
        "depth.pth",
        "pose_encoder.pth",
        "pose.pth",
    ]
    pose, unit = read_pose(seen["more"]["pose.safetensors"])
    assert isinstance(pose, PoseNetwork)
    assert unit == 1
    decoder = create_part("dares-pose-decoder")
    golden_fill_(decoder)
    assert all(torch.equal(t, decoder.state_dict()[name]) for name, t in pose.decoder.state_dict().items())
    only = tmp_path / "only"
    only.mkdir()
    for name in ("encoder.pth", "depth.pth"):
        os.link(release / name, only / name)
    import_published("af-sfmlearner", only, folder=tmp_path / "b", size=(64, 64), licence="MIT")
    assert (seen["size"], seen["more"], seen["card"]["licence"]) == ((64, 64), {}, "MIT")


@pytest.mark.parametrize("option", [["--max-depth-mm", "100"], ["--reproduce"]])
def test_options_of_ratio_networks_are_refused(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert run(["models", "import", "af-sfmlearner", str(release), "-o", str(tmp_path / "b"), *option]) == 2
    assert "error[model.config]" in capsys.readouterr().err


def test_a_folder_that_lacks_files_is_refused(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(release / "encoder.pth", tmp_path / "encoder.pth")
    for source, words in ((tmp_path, "lacks depth.pth"), (release / "depth.pth", "is no folder of weights")):
        assert run(["models", "import", "af-sfmlearner", str(source), "-o", str(tmp_path / "b")]) == 4
        assert words in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.fixture(scope="module")
def bundle(release: Path) -> Path:
    folder = release.parent / "bundle"
    assert run(["models", "import", "af-sfmlearner", str(release), "-o", str(folder), "--licence", "MIT"]) == 0
    return folder


# A graph with dynamic sizes takes ten seconds to trace.
@pytest.mark.slow
def test_bundle_of_the_release(bundle: Path) -> None:
    card = load_bundle(bundle).card
    assert set(card.files) == {"model.onnx", "model.safetensors", "pose.safetensors"}
    assert all(check.ok for check in verify_bundle(bundle))
    assert (card.preprocessing.width, card.preprocessing.height, card.preprocessing.resize) == (*SIZE, "stretch")
    assert (card.output.kind.value, card.output.minimum, card.output.maximum) == ("relative_depth", 0.1, 150)
    assert card.licence == "MIT"


@pytest.mark.slow
def test_graph_is_the_network_at_the_exported_size_and_others(bundle: Path) -> None:
    network = create("af-sfmlearner").eval()
    for half in (network.encoder, network.decoder):
        golden_fill_(half)
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for width, height in (SIZE, (64, 64), (160, 128)):
        image = generator.integers(0, 256, (2, height, width, 3), np.uint8)
        with torch.inference_mode():
            wanted = network.depth(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255).numpy()
        np.testing.assert_allclose(session.run(None, {"image": image})[0], wanted, rtol=1e-4)
        assert wanted.std() / wanted.mean() > 1e-3
