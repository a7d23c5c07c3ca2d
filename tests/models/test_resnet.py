"""ResNet-18 under its published names: state dict, function, and its start from ImageNet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from golden_fill import golden_fill_
from torch import Tensor

from endolux.errors import ModelError, UsageError
from endolux.models import ResNetEncoder, create
from endolux.models.published import RESNET18_USED, load_imagenet_encoder

State = dict[str, Tensor]


def by_names(state: State, image: Tensor) -> list[Tensor]:
    """The published network in evaluation mode, from its weights' names alone."""

    def bn(x: Tensor, name: str) -> Tensor:
        parts = (state[f"encoder.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def conv(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, state[f"encoder.{name}.weight"], None, stride, padding)

    x = F.relu(bn(conv(image, "conv1", 2, 3), "bn1"))
    maps = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for layer in range(1, 5):
        for block in range(2):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.relu(bn(conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
            y = bn(conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if f"encoder.{name}.downsample.0.weight" in state:
                x = bn(conv(x, f"{name}.downsample.0", stride, 0), f"{name}.downsample.1")
            x = F.relu(x + y)
        maps.append(x)
    return maps


@pytest.fixture(scope="module")
def pair() -> ResNetEncoder:
    encoder = create("dares-pose-encoder").double().eval()
    golden_fill_(encoder)
    return encoder


def test_maps_are_those_of_the_names(pair: ResNetEncoder) -> None:
    image = torch.rand(2, 6, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = pair(image)
        wanted = by_names(pair.state_dict(), image)
    assert [tuple(x.shape[1:]) for x in found] == [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.std() > 0.01


def test_normalisation_is_that_of_monodepth2(pair: ResNetEncoder) -> None:
    image = torch.rand(1, 6, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = ResNetEncoder(images=2, normalise=True).double().eval()
    other.load_state_dict(pair.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(image).half, pair((image - 0.45) / 0.225).half)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (6, 64, 64), (1, 6, 60, 64), (1, 6, 64, 0)])
def test_other_inputs_are_refused(pair: ResNetEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        pair(torch.zeros(shape, dtype=torch.float64))
    assert caught.value.error_id == "model.input"
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("images", [0, 3, True, "2"])
def test_other_numbers_of_images_are_refused(images: object) -> None:
    with pytest.raises(UsageError) as caught:
        ResNetEncoder(images=images)
    assert caught.value.error_id == "model.config"


@pytest.fixture(scope="module")
def imagenet() -> State:
    """The classification network's file: 102 entries, as published before BatchNorm had counters."""
    encoder = create("af-sfmlearner-encoder")
    golden_fill_(encoder)
    state = {name.removeprefix("encoder."): tensor for name, tensor in encoder.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("counters", [False, True])
def test_imagenet_starts_one_image_and_two(tmp_path: Path, imagenet: State, counters: bool) -> None:
    state = dict(imagenet)
    if counters:
        state |= {
            f"{name.removesuffix('running_var')}num_batches_tracked": torch.tensor(9)
            for name in imagenet
            if name.endswith("running_var")
        }
    torch.save(state, tmp_path / "resnet18.pth")
    assert len(imagenet) == RESNET18_USED
    for name, images in (("af-sfmlearner-encoder", 1), ("dares-pose-encoder", 2)):
        encoder = create(name)
        counts = load_imagenet_encoder(encoder, tmp_path / "resnet18.pth")
        assert (counts.used, counts.ignored, counts.random) == (102, 20 * counters, 0)
        own = encoder.state_dict()
        stem = imagenet["conv1.weight"]
        torch.testing.assert_close(own["encoder.conv1.weight"], torch.cat([stem] * images, 1) / images)
        assert all(torch.equal(own[f"encoder.{key}"], t) for key, t in imagenet.items() if key != "conv1.weight")


def test_two_equal_images_give_what_one_gave(tmp_path: Path, imagenet: State) -> None:
    torch.save(imagenet, tmp_path / "resnet18.pth")
    one, two = create("af-sfmlearner-encoder").eval(), create("dares-transform-encoder").eval()
    for encoder in (one, two):
        load_imagenet_encoder(encoder, tmp_path / "resnet18.pth")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(two(torch.cat([image, image], 1))[4], one(image)[4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["missing", "shape", "unexpected", "deeper", "published", "nan"])
def test_another_imagenet_file_is_refused(tmp_path: Path, imagenet: State, case: str) -> None:
    state = dict(imagenet)
    if case == "missing":
        del state["layer3.0.conv1.weight"]
    elif case == "shape":
        state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    elif case == "unexpected":
        state["head.weight"] = torch.zeros(2)
    elif case == "deeper":
        state |= {f"layer1.2.{part}.weight": torch.zeros(64, 64, 3, 3) for part in ("conv1", "conv2")}
    elif case == "published":
        state = {f"encoder.{name}": tensor for name, tensor in imagenet.items()}
    else:
        state["layer3.0.conv1.weight"] = torch.full((256, 128, 3, 3), torch.nan)
    torch.save(state, tmp_path / "w.pth")
    encoder = create("dares-pose-encoder")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_imagenet_encoder(encoder, tmp_path / "w.pth")
    assert caught.value.error_id == ("model.weights" if case == "nan" else "model.imagenet")
    if case == "published":
        assert "af-sfmlearner-encoder" in caught.value.fix
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_a_decoder_takes_no_imagenet_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_imagenet_encoder(create("dares-pose-decoder"), tmp_path / "any.pth")
    assert caught.value.error_id == "model.imagenet"
