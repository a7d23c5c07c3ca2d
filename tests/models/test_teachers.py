"""Teachers: one interface for bundles, networks and foundation models."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_transformers import SIX, TINY

from endolux.errors import ModelError, UsageError
from endolux.models import create
from endolux.models.foundation import FoundationTeacher, published_size, resized_bicubic
from endolux.models.teachers import BundleTeacher, NetworkTeacher, TeacherOutput, open_teacher, weights_sha256
from endolux.types import DepthKind

transformers = pytest.importorskip("transformers")
SMALL = {"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "decoder": (8, 8, 8), "fine": 4}


def picture(width: int = 80, height: int = 60, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + p) * np.cos(y / 7 - p) * 90 + 120 for p in (0.0, 1.0, 2.0)]
    noise = np.random.default_rng(seed).normal(0, 5, (height, width, 3))
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def tiny(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        image_size=56, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 12, 16, 24], fusion_hidden_size=16,
        head_hidden_size=8, **options,
    )  # fmt: skip
    network = transformers.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        # Random weights of the usual size give nearly nothing; the last bias keeps the output above the ReLU.
        for parameter in network.neck.parameters():
            parameter.mul_(8.0)
        for parameter in network.head.parameters():
            parameter.mul_(5.0)
        network.head.conv3.bias.fill_(1.0)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "tiny-depth"
    tiny().save_pretrained(path)
    return path


def test_knowledge_is_inverse_depth_whatever_the_kind() -> None:
    values = np.array([[4.0, 0.0, -1.0, np.nan, np.inf, 0.5]], np.float32)
    for kind in (DepthKind.METRIC, DepthKind.RELATIVE_DEPTH):
        found = TeacherOutput(map=values, kind=kind).knowledge()
        np.testing.assert_array_equal(found, np.array([[0.25, np.nan, np.nan, np.nan, np.nan, 2.0]], np.float32))
    found = TeacherOutput(map=values, kind=DepthKind.RELATIVE_DISPARITY).knowledge()
    np.testing.assert_array_equal(found, np.array([[4.0, 0.0, -1.0, np.nan, np.nan, 0.5]], np.float32))


def test_published_sizes() -> None:
    assert published_size(640, 480) == (686, 518)
    assert published_size(518, 518) == (518, 518)
    assert published_size(320, 240) == (518, 392)
    for width, height in ((1920, 1080), (338, 270), (20, 2000)):
        found = published_size(width, height)
        assert all(side % 14 == 0 and side >= 14 for side in found)
    assert published_size(1280, 1024, side=56) == (70, 56)


@pytest.mark.parametrize("size", [(56, 70), (42, 56), (140, 168), (30, 200)])
def test_the_resize_is_that_of_the_published_processor(size: tuple[int, int]) -> None:
    image = picture()
    found = resized_bicubic(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size)[0].permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
    # Pillow rounds between its two passes as well.
    assert np.abs(found - expected).max() <= 1.0
    assert abs((found - expected).mean()) < 0.02


def test_foundation_model_by_its_parts(folder: Path) -> None:
    teacher, image = open_teacher(str(folder)), picture()
    assert isinstance(teacher, FoundationTeacher)
    assert (teacher.kind, teacher.name) == (DepthKind.RELATIVE_DISPARITY, "tiny-depth")
    assert teacher.feature_names() == {f"block{i}": 32 for i in (1, 2, 3, 4)}
    found = teacher.predict(image, size=(40, 30), features=["block4", "block2"])
    width, height = teacher.network_size(80, 60)
    assert (width, height) == (70, 56)
    # The same by hand, with Pillow's resize.
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    pixels = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    network = tiny().eval()
    with torch.no_grad():
        values = network(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]).predicted_depth
    expected = torch.nn.functional.interpolate(values[:, None], (30, 40), mode="bicubic", align_corners=False)[0, 0]
    assert found.map.shape == (30, 40)
    assert found.map.std() > 0.01
    np.testing.assert_allclose(found.map, expected.numpy(), atol=0.3 * float(expected.std()))
    assert np.corrcoef(found.map.ravel(), expected.numpy().ravel())[0, 1] > 0.999
    assert list(found.features) == ["block4", "block2"]
    assert found.features["block4"].shape == (32, 4, 5)
    # Tokens are normalised over channels and run over the picture row by row.
    np.testing.assert_allclose(found.features["block4"].mean(axis=0), 0, atol=1e-4)
    again = teacher.predict(image, size=(40, 30))
    assert np.array_equal(found.map, again.map)
    assert again.features == {}
    assert teacher.predict(image).map.shape == (60, 80)


def test_features_lie_where_the_picture_is(folder: Path) -> None:
    teacher = open_teacher(str(folder), input_size=(140, 56))
    image = np.full((56, 140, 3), 100, np.uint8)
    plain = teacher.predict(image, features=["block1"]).features["block1"]
    image[14:28, 84:98] = 255
    changed = np.abs(teacher.predict(image, features=["block1"]).features["block1"] - plain).sum(axis=0)
    assert plain.shape == (32, 4, 10)
    assert np.unravel_index(int(changed.argmax()), changed.shape) == (1, 6)


def test_metric_foundation_models_give_millimetres(tmp_path: Path) -> None:
    tiny(depth_estimation_type="metric", max_depth=20).save_pretrained(tmp_path / "metric")
    teacher = open_teacher(str(tmp_path / "metric"))
    assert teacher.kind is DepthKind.METRIC
    found = teacher.predict(picture()).map
    assert 0 < found.min() < found.max() < 20_000
    assert found.max() > 20


def test_foundation_model_from_its_original_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers and the same identity as from the folder: what was computed once is known for both."""
    from endolux.models import depth_anything
    from endolux.models.depth_anything_keys import to_original
    from endolux.models.transplant import depth_anything_from

    of_folder = depth_anything_from(str(folder))
    torch.save(to_original(of_folder.state_dict()), tmp_path / "depth_anything_v2_vits.pth")
    torch.save(to_original(of_folder.state_dict()), tmp_path / "depth_anything_v2_metric_vkitti_vits.pth")
    torch.save(to_original(of_folder.state_dict()), tmp_path / "depth_anything_v2_metric_mine_vits.pth")
    torch.save(to_original(of_folder.state_dict()), tmp_path / "mine.pth")
    # The released shape is too large for a test.
    monkeypatch.setattr(
        "endolux.models.transplant.DepthAnything", lambda **given: depth_anything.DepthAnything(**{**given, **TINY})
    )
    teacher, image = open_teacher(str(tmp_path / "depth_anything_v2_vits.pth")), picture()
    assert isinstance(teacher, FoundationTeacher)
    assert teacher.kind is DepthKind.RELATIVE_DISPARITY
    first = open_teacher(str(folder))
    np.testing.assert_array_equal(teacher.predict(image).map, first.predict(image).map)
    assert (teacher.sha256, teacher.preprocessing()) == (first.sha256, first.preprocessing())
    metric = open_teacher(str(tmp_path / "depth_anything_v2_metric_vkitti_vits.pth"))
    assert metric.kind is DepthKind.METRIC
    assert 1000 < metric.predict(image).map.max() < 80_000
    for name, error_id in (
        ("mine.pth", "model.architecture"),
        ("depth_anything_v2_metric_mine_vits.pth", "model.config"),
    ):
        with pytest.raises(UsageError) as caught:
            open_teacher(str(tmp_path / name))
        assert caught.value.error_id == error_id


def test_a_folder_that_describes_another_network(folder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    for key, value in (("head_in_index", 2), ("layer_norm_eps", 1e-3)):
        shutil.copytree(folder, tmp_path / key)
        config = json.loads((folder / "config.json").read_text())
        (config if key in config else config["backbone_config"])[key] = value
        (tmp_path / key / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=key) as caught:
            open_teacher(str(tmp_path / key))
        assert caught.value.error_id == "teacher.architecture"


def test_identity_is_that_of_the_weights(folder: Path, tmp_path: Path) -> None:
    first, again = open_teacher(str(folder)), open_teacher(str(folder))
    assert first.sha256 == again.sha256
    assert first.preprocessing() == again.preprocessing()
    other = tiny()
    with torch.no_grad():
        other.head.conv3.bias += 1e-6
    other.save_pretrained(tmp_path / "other")
    assert open_teacher(str(tmp_path / "other")).sha256 != first.sha256
    assert open_teacher(str(folder), input_size=(56, 56)).preprocessing() != first.preprocessing()
    network = create("repdepth", **SMALL)
    assert weights_sha256(network) == weights_sha256(network.double().float())
    assert weights_sha256(network) != weights_sha256(network.half())


def test_input_sizes(folder: Path) -> None:
    assert open_teacher(str(folder), input_size=(70, 28)).network_size(640, 480) == (70, 28)
    assert open_teacher(str(folder), input_size=(70, 28)).squeezes(50, 20) == 1.0
    assert open_teacher(str(folder)).squeezes(50, 20) == 1.0
    with pytest.raises(UsageError) as caught:
        open_teacher(str(folder), input_size=(70, 30))
    assert caught.value.error_id == "teacher.input-size"
    assert "70x28" in caught.value.fix
    with pytest.raises(UsageError, match="on demand"):
        open_teacher("repdepth-colon", input_size=(320, 256))


def test_bundle_as_a_teacher() -> None:
    teacher = open_teacher("repdepth-colon")
    assert isinstance(teacher, BundleTeacher)
    assert teacher.kind is DepthKind.RELATIVE_DEPTH
    image = np.pad(picture(160, 120), ((0, 0), (40, 40), (0, 0)))
    found = teacher.predict(image, size=(120, 60)).map
    assert found.shape == (60, 120)
    # Nothing is said about the black bars, and their edges do not bleed in.
    assert np.isnan(found[:, :18]).all()
    assert np.isnan(found[:, -18:]).all()
    inside = found[:, 22:-22]
    assert np.isfinite(inside).all()
    assert inside.min() > 1
    assert len(teacher.sha256) == 64
    with pytest.raises(UsageError) as caught:
        teacher.predict(image, features=["block1"])
    assert caught.value.error_id == "teacher.feature"
    assert np.isnan(teacher.predict(np.zeros((64, 64, 3), np.uint8)).map).all()


def test_network_as_a_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create("repdepth", **SMALL)
    (tmp_path / "run").mkdir()
    teacher = open_teacher(str(tmp_path / "run"), load_run=lambda path: network if path.name == "run" else None)
    assert isinstance(teacher, NetworkTeacher)
    assert (teacher.name, teacher.kind) == ("run", network.kind)
    image = picture(128, 96)
    with torch.no_grad():
        expected = network.eval().depth(torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0)[0, 0].numpy()
    np.testing.assert_allclose(teacher.predict(image).map, expected, rtol=1e-4)
    assert teacher.predict(image, size=(50, 40)).map.shape == (40, 50)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "config"),
    [("repdepth", SMALL), ("leve-mobilenetv3", {"max_depth_mm": 200.0}), ("litenet-t", {}), ("af-sfmlearner", {}),
     ("depth-anything-v1-s", {**TINY, "output": "metric"}), ("depth-anything-v1-s", {**TINY, "output": "inverse"}),
     ("dares", TINY), ("endodac", SIX)],
)  # fmt: skip
def test_depth_and_features_in_one_pass(name: str, config: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = create(name, **config)
    teacher, image = NetworkTeacher(network, name="one"), picture(128, 64)
    with torch.no_grad():
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0
        torch.testing.assert_close(network.depth_of(network(tensor)), network.depth(tensor))
    layer = list(teacher.feature_names())[-1]
    calls = []
    whole = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    whole.register_forward_hook(lambda *_: calls.append(1))
    without = teacher.predict(image)
    assert len(calls) == 1
    found = teacher.predict(image, features=[layer])
    assert len(calls) == 2
    np.testing.assert_array_equal(found.map, without.map)
    assert found.features[layer].shape[0] == teacher.feature_names()[layer]


def test_features_of_a_network() -> None:
    torch.manual_seed(0)
    teacher = NetworkTeacher(create("leve-mobilenetv3", max_depth_mm=200.0), name="leve")
    name, channels = next(iter(teacher.feature_names().items()))
    found = teacher.predict(picture(128, 64), features=[name])
    assert found.features[name].shape[0] == channels
    with pytest.raises(UsageError) as caught:
        teacher.check_features([name + "x"])
    assert name in caught.value.fix


def test_what_cannot_be_a_teacher(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_teacher("repdepht")
    assert caught.value.error_id == "teacher.unknown"
    with pytest.raises(ModelError, match="No teacher"):
        open_teacher(str(tmp_path))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError) as caught:
        open_teacher(str(tmp_path / "bert"))
    assert caught.value.error_id == "teacher.architecture"
    (tmp_path / "no-weights").mkdir()
    config = (folder / "config.json").read_text()
    (tmp_path / "no-weights" / "config.json").write_text(config)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name in ("no-weights", "broken"):
        with pytest.raises(ModelError) as caught:
            open_teacher(str(tmp_path / name))
        assert caught.value.error_id == "teacher.fetch"
        assert "model.safetensors" in caught.value.fix
    with pytest.raises(UsageError) as caught:
        open_teacher(str(folder)).predict(np.zeros((4, 4), np.uint8))
    assert caught.value.error_id == "teacher.image"


def test_weights_that_are_missing_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights: Mapping[str, torch.Tensor] = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file({k: v for k, v in weights.items() if k != "head.conv3.bias"}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        open_teacher(str(tmp_path))
    assert caught.value.error_id == "teacher.weights"
    assert "head.conv3.bias" in caught.value.what


def test_a_hub_id_without_network_gives_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Read when the library is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        open_teacher("nobody/no-such-depth-model")
    lines = caught.value.lines()
    assert lines[0].startswith("error[teacher.fetch]: There is no folder 'nobody/no-such-depth-model', and a model of")
    assert "http" not in lines[1]
    assert "\n" not in lines[1]
    assert "hf download nobody/no-such-depth-model" in lines[2]
    assert caught.value.exit_code == 4


def test_transformers_works_without_torchvision() -> None:
    assert "torchvision" not in sys.modules
    assert hasattr(transformers, "DepthAnythingForDepthEstimation")
