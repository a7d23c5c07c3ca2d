"""AF-SfMLearner's depth network: published work, multi-scale disparity, inference form."""

from __future__ import annotations

import pytest
import torch
from golden_fill import golden_fill_
from torch import nn

from endolux.errors import ModelError, UsageError
from endolux.models import AfSfmLearner, create
from endolux.models.published import identify, load_published
from endolux.types import DepthKind


@pytest.fixture(scope="module")
def network() -> AfSfmLearner:
    network = create("af-sfmlearner").eval()
    golden_fill_(network)
    return network


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_parameters_and_work_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = create("af-sfmlearner").eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_842_236
    total = 0

    def count(layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight[0].numel() * output.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.device("meta"):
        network.disparities(torch.empty(1, 3, 256, 320))
    assert round(2 * total / 1e9, 1) == 10.7


def test_depth_is_the_inverse_of_the_finest_disparity(network: AfSfmLearner, image: torch.Tensor) -> None:
    with torch.no_grad():
        disparities, maps = network.with_disparities(image, ["thirty_second", "decoder0"])
        depth = network.depth(image)
    assert [tuple(d.shape) for d in disparities] == [(1, 1, 64 >> s, 96 >> s) for s in range(4)]
    assert (tuple(maps["thirty_second"].shape), tuple(maps["decoder0"].shape)) == ((1, 512, 2, 3), (1, 16, 64, 96))
    torch.testing.assert_close(depth, 1 / disparities[0])
    for name, channels in network.feature_names().items():
        assert network.features(image, [name])[name].shape[1] == channels
    for disparity in disparities:
        assert disparity.min() > 1 / 150
        assert disparity.max() < 10
        assert disparity.std() > 1e-3
    assert network.kind is DepthKind.RELATIVE_DEPTH


@pytest.mark.parametrize(("sigmoid", "depth"), [(0.0, 150), (0.25, 0.39920160), (0.5, 0.19986677), (1.0, 0.1)])
def test_published_depths(network: AfSfmLearner, image: torch.Tensor, sigmoid: float, depth: float) -> None:
    probe = AfSfmLearner().eval()
    probe.load_state_dict(network.state_dict())
    with torch.no_grad():
        head = probe.decoder.decoder[10].conv
        head.weight.zero_()
        head.bias.fill_(torch.logit(torch.tensor(sigmoid), eps=None))
        found = probe.depth(image)
    torch.testing.assert_close(found, torch.full_like(found, depth), rtol=1e-6, atol=0)


def test_inference_form_is_the_same_function(network: AfSfmLearner, image: torch.Tensor) -> None:
    fused = network.fuse()
    with torch.no_grad():
        torch.testing.assert_close(fused.depth(image), network.depth(image), rtol=1e-4, atol=0)
        assert len(fused.disparities(image)) == 1
    again = create("af-sfmlearner", **fused.config())
    again.load_state_dict(fused.state_dict())
    assert sum(p.numel() for p in fused.parameters()) == 14_322_417
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


def test_config_builds_it_again() -> None:
    network = create("af-sfmlearner", depth_max=100.0, normalise=True)
    assert create("af-sfmlearner", **network.config()).config() == network.config()
    assert network.depth_range() == (0.1, 100.0)
    for impossible in ({"depth_min": 0.0}, {"depth_min": 5, "depth_max": 2}, {"depth_max": float("inf")}):
        with pytest.raises(UsageError) as caught:
            create("af-sfmlearner", **impossible)
        assert caught.value.error_id == "model.config"


def test_published_files_fit_together_and_apart(network: AfSfmLearner) -> None:
    encoder = {f"encoder.{name}": t for name, t in network.encoder.state_dict().items()}
    joined = {**encoder, **network.decoder.state_dict()}
    assert identify(joined) == identify(network.state_dict()) == ("af-sfmlearner",)
    for state in (joined, network.state_dict()):
        other = create("af-sfmlearner")
        load_published(other, state)
        assert all(torch.equal(t, network.state_dict()[name]) for name, t in other.state_dict().items())
    del joined["decoder.13.conv.bias"]
    with pytest.raises(ModelError) as caught:
        load_published(other, joined)
    assert caught.value.error_id == "model.variant"
    assert "decoder.decoder.13.conv.bias" in caught.value.why


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 3, 64, 65), (1, 3, 32, 64)])
def test_other_inputs_are_refused(network: AfSfmLearner, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        network.depth(torch.zeros(shape))
    assert caught.value.error_id == "model.input"
