"""Published checkpoints: every wrapping is opened, nothing is run, and only what fits exactly is loaded."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from golden_fill import FACTS, NAMES, golden_fill_
from torch import Tensor

from endolux.errors import EndoluxError, ModelError, UsageError
from endolux.models import create
from endolux.models.published import (
    DDRNET_IGNORED,
    DDRNET_RANDOM,
    DDRNET_USED,
    identify,
    load_imagenet_encoder,
    load_published,
    read_state_dict,
)

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def leve() -> State:
    network = create("leve-mobilenetv3")
    golden_fill_(network)
    return network.state_dict()


def prefixed(state: State, prefix: str) -> State:
    return collections.OrderedDict((prefix + name, tensor) for name, tensor in state.items())


WRAPPED = {
    "bare": lambda s: collections.OrderedDict(s),
    "model": lambda s: {"model": s},
    "state_dict": lambda s: {"epoch": 3, "state_dict": s},
    "module": lambda s: prefixed(s, "module."),
    "model prefix": lambda s: prefixed(s, "model."),
    "both prefixes, wrapped": lambda s: {"state_dict": prefixed(s, "module.model.")},
    "training": lambda s: {
        "epoch": 20,
        "val_losses": [np.float32(0.7), 0.65, np.float64(0.64)],
        "model": s,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": []},
        "scheduler": {"step_size": 5, "gamma": 0.1, "last_epoch": 0},
        "epoch_val_loss": np.float64(0.64),
        "rmse": np.float64(0.5),
    },
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_wrapping_is_opened(tmp_path: Path, leve: State, how: str, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WRAPPED[how](leve), path, _use_new_zipfile_serialization=zipped)
    state = read_state_dict(path)
    assert list(state) == list(leve)
    network = create("leve-mobilenetv3")
    load_published(network, state)
    assert all(torch.equal(tensor, leve[name]) for name, tensor in network.state_dict().items())


def test_safetensors_are_read(tmp_path: Path, leve: State) -> None:
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in leve.items()}, tmp_path / "w.safetensors")
    assert set(read_state_dict(tmp_path / "w.safetensors")) == set(leve)


class Bomb:
    """A pickle that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def bad_files(folder: Path) -> dict[str, Path]:
    good = folder / "good.pth"
    torch.save({"a.weight": torch.rand(100, 100)}, good)
    data = good.read_bytes()
    torch.save({"a.weight": torch.rand(100, 100)}, folder / "old.pth", _use_new_zipfile_serialization=False)
    old = (folder / "old.pth").read_bytes()
    files = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "almost all": data[:-40],
        "truncated old format": old[: len(old) // 2],
        "text": b"<html>Not found</html>" * 100,
        "a number": pickle.dumps(3, protocol=2),
        "damaged pickle": b"\x80\x02\xff\xfe" + bytes(range(256)),
        "another zip": b"",
        "a list": b"",
        "no tensors": b"",
        "names that are no text": b"",
        "no entries": b"",
        "not safetensors.safetensors": b"\xff" * 64,
    }
    paths = {}
    for name, content in files.items():
        paths[name] = folder / (name if "." in name else f"{name}.pth")
        paths[name].write_bytes(content)
    with zipfile.ZipFile(paths["another zip"], "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save([torch.rand(2)], paths["a list"])
    torch.save({"model": {"layers": 3}, "epoch": 2}, paths["no tensors"])
    torch.save({0: torch.rand(2), 1: torch.rand(2)}, paths["names that are no text"])
    torch.save({}, paths["no entries"])
    paths["huge"] = folder / "huge.pth"
    with paths["huge"].open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(5 << 30)
    return paths


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    for name, path in bad_files(tmp_path).items():
        with pytest.raises(ModelError) as caught:
            read_state_dict(path)
        assert caught.value.error_id == "model.checkpoint", name
        assert len(str(caught.value).splitlines()) == 3, name


@pytest.mark.parametrize("protocol", ["zip", "old", "plain pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, protocol: str) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    content = {"a.weight": torch.rand(2), "extra": Bomb(trap)}
    if protocol == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert caught.value.error_id == "model.checkpoint"
    assert not trap.exists()


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_state_dict(tmp_path / "none.pth")
    assert caught.value.error_id == "model.missing"
    with pytest.raises(EndoluxError):
        read_state_dict(tmp_path)


def meta(name: str) -> State:
    with torch.device("meta"):
        return create(name).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_the_variant_is_told_from_the_shapes(name: str) -> None:
    fits = identify(meta(name))
    assert name in fits
    assert fits == (("leve", "leve-no-skips") if name in ("leve", "leve-no-skips") else (name,))


def test_weights_of_no_known_network_fit_none() -> None:
    assert identify({"a": torch.zeros(2)}) == ()
    assert identify(meta("repdepth")) == ()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("leve", "leve-no-skips")])
def test_a_wrong_variant_is_named(name: str) -> None:
    network = create("leve-3x3-dw") if name != "leve-3x3-dw" else create("leve")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_published(network, create(name).state_dict())
    assert caught.value.error_id == "model.variant"
    assert f"'{name}'" in caught.value.what
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_where_two_variants_share_their_weights_the_error_says_so() -> None:
    with pytest.raises(ModelError) as caught:
        load_published(create("leve-3x3"), create("leve").state_dict())
    assert "'leve' or 'leve-no-skips'" in caught.value.what
    assert "look the same" in caught.value.fix


@pytest.mark.parametrize("case", ["missing", "unexpected", "shape", "type", "nan", "inf"])
def test_weights_that_do_not_fit_change_nothing(leve: State, case: str) -> None:
    state = dict(leve)
    key = "decoder.upsampling_block2.result_conv.weight"
    if case == "missing":
        del state[key]
    elif case == "unexpected":
        state["decoder.extra"] = torch.zeros(1)
    elif case == "shape":
        state[key] = state[key][:, :, 0]
    elif case == "type":
        state[key] = state[key].long()
    else:
        state[key] = state[key].clone()
        state[key][0] = float(case)
    network = create("leve-mobilenetv3")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_published(network, state)
    assert caught.value.error_id == ("model.weights" if case in ("nan", "inf") else "model.variant")
    assert (key if case != "unexpected" else "decoder.extra") in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_half_precision_checkpoints_are_taken(leve: State) -> None:
    network = create("leve-mobilenetv3")
    load_published(network, {name: t.half() if t.is_floating_point() else t for name, t in leve.items()})
    weight = network.state_dict()["encoder.backbone.features.0.0.weight"]
    torch.testing.assert_close(weight, leve["encoder.backbone.features.0.0.weight"], rtol=1e-3, atol=1e-6)


def imagenet_file() -> State:
    """The classification network's entries, in the published order and shapes, filled by the formula."""
    encoder = create("leve").imagenet_encoder().state_dict()
    shapes = {name: tuple(t.shape) for name, t in encoder.items() if not name.startswith(("spp.", "final_layer."))}
    for conv, bn, shape in (
        ("down5.0", "down5.1", (256, 128, 3, 3)),
        ("down5.3", "down5.4", (512, 256, 3, 3)),
        ("last_layer.0", "last_layer.1", (1024, 512, 1, 1)),
    ):
        shapes[f"{conv}.weight"] = shape
        shapes |= {f"{bn}.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{bn}.num_batches_tracked"] = ()
    shapes |= {"linear.weight": (1000, 1024), "linear.bias": (1000,)}
    return {
        name: torch.tensor(7) if name.endswith("tracked") else torch.full(shape, 0.25) for name, shape in shapes.items()
    }


def test_the_imagenet_file_has_the_published_entries() -> None:
    rows = [
        f"{k} {'x'.join(map(str, t.shape))} {str(t.dtype).removeprefix('torch.')}" for k, t in imagenet_file().items()
    ]
    assert len(rows) == FACTS["imagenet"]["entries"] == DDRNET_USED + DDRNET_IGNORED
    assert hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest() == FACTS["imagenet"]["sorted_sha256"]


@pytest.mark.parametrize("name", ["leve", "guidedepth", "guidedepth-s", "leve-3x3-dw"])
def test_imagenet_starts_the_encoder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "DDRNet23s_imagenet.pth"
    torch.save({"state_dict": prefixed(imagenet_file(), "module.")}, path)
    network = create(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    counts = load_imagenet_encoder(network, path)
    assert (counts.used, counts.ignored, counts.random) == (254, 20, 79)
    assert DDRNET_RANDOM == 79
    changed = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert len(changed) == 254
    assert not any("spp." in key or "final_layer." in key or "up" in key.split(".")[0] for key in changed)


@pytest.mark.parametrize("case", ["prefix", "missing", "unexpected", "shape", "no classifier", "leve", "nan"])
def test_another_imagenet_file_is_refused(tmp_path: Path, case: str) -> None:
    state = imagenet_file()
    if case == "prefix":
        state = prefixed(state, "backbone.")
    elif case == "missing":
        del state["layer3.0.conv1.weight"]
    elif case == "unexpected":
        state["seghead_extra.conv1.weight"] = torch.zeros(3)
    elif case == "shape":
        state["layer3.0.conv1.weight"] = torch.zeros(128, 64, 1, 1)
    elif case == "no classifier":
        del state["linear.bias"]
    elif case == "leve":
        state = create("leve").state_dict()
    else:
        state["layer3.0.conv1.weight"][0] = float("nan")
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    network = create("leve")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_imagenet_encoder(network, path)
    assert caught.value.error_id == ("model.weights" if case == "nan" else "model.imagenet")
    assert len(str(caught.value).splitlines()) == 3
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_mobilenet_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "mobilenet_v3_small.pth"
    source = create("leve-mobilenetv3").imagenet_encoder().state_dict()
    torch.save(source, path)
    network = create("leve-mobilenetv3")
    counts = load_imagenet_encoder(network, path)
    assert (counts.used, counts.ignored, counts.random) == (len(source), 0, 0)
    own = network.imagenet_encoder().state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in source.items())
    del source["classifier.3.bias"]
    torch.save(source, path)
    with pytest.raises(ModelError) as caught:
        load_imagenet_encoder(network, path)
    assert caught.value.error_id == "model.imagenet"


def test_networks_without_such_an_encoder_refuse_imagenet(tmp_path: Path) -> None:
    for network in (create("repdepth"), create("leve", fused=True)):
        with pytest.raises(UsageError) as caught:
            load_imagenet_encoder(network, tmp_path / "any.pth")
        assert caught.value.error_id == "model.imagenet"
