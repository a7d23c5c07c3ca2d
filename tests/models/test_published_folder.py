"""Folders of published weights: strict, file by file, and errors that say which network a file really is."""

from __future__ import annotations

import collections
import os
import shutil
from pathlib import Path

import pytest
import torch
from golden_fill import golden_fill_
from torch import Tensor

from endolux.errors import ModelError, UsageError
from endolux.models import AppearanceFlow, IntrinsicsHead, OpticalFlow, PoseNetwork, create, create_part
from endolux.models.checkpoint_files import read_checkpoint
from endolux.models.published import identify, load_published, read_state_dict
from endolux.models.published_folder import (
    FAMILIES,
    is_published_folder,
    load_companions,
    load_depth,
    load_parts,
    read_depth,
)
from endolux.train.initial_weights import load_weights_into

State = dict[str, Tensor]
SIZES = {"height": 256, "width": 320, "use_stereo": False}


def state_of(name: str) -> State:
    network = create_part(name)
    golden_fill_(network)
    return network.state_dict()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as AF-SfMLearner's code writes it."""
    folder = tmp_path_factory.mktemp("published") / "weights_19"
    folder.mkdir()
    written: dict[str, Path] = {}
    for file, part in [*FAMILIES["af-sfmlearner"].depth, *FAMILIES["af-sfmlearner"].companions.values()]:
        kind = part.replace("transform-en", "pose-en").replace("position-en", "pose-en")
        if kind in written:
            os.link(written[kind], folder / file)
            continue
        state: dict[str, object] = collections.OrderedDict(state_of(part))
        if file == "encoder.pth":
            state |= SIZES
        torch.save(state, folder / file)
        written[kind] = folder / file
    torch.save({"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}, folder / "adam.pth")
    return folder


def linked(release: Path, folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        os.link(release / name, folder / name)
    return folder


def test_depth_network_of_a_folder(release: Path) -> None:
    assert is_published_folder(release)
    network = create("af-sfmlearner")
    assert load_depth(network, release) == {"height": 256, "width": 320, "use_stereo": 0}
    encoder = state_of("af-sfmlearner-encoder")
    assert all(torch.equal(t, encoder[name]) for name, t in network.encoder.state_dict().items())
    decoder = state_of("af-sfmlearner-decoder")
    assert all(torch.equal(t, decoder[name]) for name, t in network.decoder.state_dict().items())


def test_a_training_starts_from_a_folder(release: Path, tmp_path: Path) -> None:
    network = create("af-sfmlearner")
    load_weights_into(network, release)
    decoder = state_of("af-sfmlearner-decoder")
    assert all(torch.equal(t, decoder[name]) for name, t in network.decoder.state_dict().items())
    with pytest.raises(ModelError) as caught:
        load_weights_into(create("leve-mobilenetv3"), release)
    assert caught.value.error_id == "model.variant"
    with pytest.raises(ModelError) as caught:
        load_weights_into(network, tmp_path)
    assert caught.value.error_id == "model.missing"


def test_companions_of_a_folder(release: Path) -> None:
    found = load_companions("af-sfmlearner", release)
    assert {name: type(network) for name, network in found.items()} == {
        "pose": PoseNetwork,
        "appearance": AppearanceFlow,
        "flow": OpticalFlow,
    }
    assert not any(network.training for network in found.values())
    assert load_companions("lite-mono", release) == {}
    decoder = state_of("dares-position-decoder")
    assert all(torch.equal(t, decoder[name]) for name, t in found["flow"].decoder.state_dict().items())


def test_intrinsics_head_of_endodac(release: Path, tmp_path: Path) -> None:
    folder = linked(release, tmp_path / "endodac")
    torch.save(state_of("endodac-intrinsics-head"), folder / "intrinsics_head.pth")
    found = load_companions("endodac", folder)
    assert isinstance(found["intrinsics"], IntrinsicsHead)
    with pytest.raises(UsageError) as caught:
        load_companions("dares", folder, names=["intrinsics"])
    assert caught.value.error_id == "model.part"
    with pytest.raises(ModelError) as missing:
        load_companions("endodac", folder, names=["intrinsics", "pose"])
    assert missing.value.error_id == "model.missing"
    assert "pose_encoder.pth, pose.pth" in missing.value.what


@pytest.mark.parametrize("name", ["dares-pose-decoder", "dares-transform-decoder", "dares-position-decoder"])
def test_a_file_under_the_wrong_name_is_named(tmp_path: Path, name: str) -> None:
    wrong = "pose_decoder" if name != "dares-pose-decoder" else "transform_decoder"
    file, part = FAMILIES["dares"].companions[wrong]
    torch.save(state_of(name), tmp_path / file)
    with pytest.raises(ModelError) as caught:
        load_parts("dares", tmp_path, [wrong])
    assert caught.value.error_id == "model.variant"
    assert f"'{part}'" in caught.value.what
    assert f"'{name}'" in caught.value.what
    assert file in caught.value.what


def test_the_encoder_of_one_image_is_no_pose_encoder(release: Path, tmp_path: Path) -> None:
    os.link(release / "encoder.pth", tmp_path / "pose_encoder.pth")
    with pytest.raises(ModelError) as caught:
        load_parts("dares", tmp_path, ["pose_encoder"])
    assert "'af-sfmlearner-encoder'" in caught.value.what
    assert "[64, 3, 7, 7] instead of [64, 6, 7, 7]" in caught.value.why


def test_swapped_depth_files_are_named(release: Path, tmp_path: Path) -> None:
    os.link(release / "encoder.pth", tmp_path / "depth.pth")
    os.link(release / "depth.pth", tmp_path / "encoder.pth")
    with pytest.raises(ModelError) as caught:
        read_depth("af-sfmlearner", tmp_path)
    assert caught.value.error_id == "model.variant"
    assert "af-sfmlearner-decoder" in caught.value.what


@pytest.mark.parametrize("case", ["missing", "unexpected", "shape", "nan"])
def test_weights_that_do_not_fit(tmp_path: Path, case: str) -> None:
    state = state_of("dares-pose-decoder")
    if case == "missing":
        del state["net.2.bias"]
    elif case == "unexpected":
        state["net.4.bias"] = torch.zeros(2)
    elif case == "shape":
        state["net.3.weight"] = torch.zeros(6, 256, 1, 1)
    else:
        state["net.2.bias"][3] = torch.nan
    torch.save(state, tmp_path / "pose.pth")
    with pytest.raises(ModelError) as caught:
        load_parts("dares", tmp_path, ["pose_decoder"])
    assert caught.value.error_id == ("model.weights" if case == "nan" else "model.variant")
    words = {"missing": "1 missing (net.2.bias)", "unexpected": "1 unexpected (net.4.bias)", "shape": "[6, 256, 1, 1]"}
    assert words.get(case, "net.2.bias") in f"{caught.value.what} {caught.value.why}"


def test_files_that_are_missing_and_where_they_are(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_depth(create("af-sfmlearner"), release.parent)
    assert caught.value.error_id == "model.missing"
    assert str(release) in caught.value.fix
    folder = linked(release, tmp_path / "half", "encoder.pth")
    with pytest.raises(ModelError) as caught:
        read_depth("af-sfmlearner", folder)
    assert "depth.pth" in caught.value.what
    with pytest.raises(ModelError) as caught:
        read_depth("dares", release)
    assert "'af-sfmlearner'" in caught.value.fix
    with pytest.raises(ModelError) as caught:
        read_depth("dares", release / "pose.pth")
    assert caught.value.error_id == "model.missing"
    with pytest.raises(ModelError) as caught:
        read_depth("dares", tmp_path / "none")
    assert caught.value.error_id == "model.missing"
    with pytest.raises(UsageError) as usage:
        read_depth("dare", release)
    assert "'dares'" in usage.value.fix
    assert not is_published_folder(tmp_path)


def test_sizes_beside_the_weights_are_facts_and_nothing_else_is(release: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(release / "encoder.pth")
    assert checkpoint.facts == {"height": 256, "width": 320, "use_stereo": 0}
    assert set(checkpoint.state) == set(state_of("af-sfmlearner-encoder"))
    with pytest.raises(ModelError) as caught:
        read_state_dict(release / "adam.pth")
    assert "optimiser" in caught.value.why
    torch.save({"a": torch.zeros(2), "depth": 3}, tmp_path / "other.pth")
    torch.save({"a": torch.zeros(2), "height": "256"}, tmp_path / "text.pth")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(ModelError) as caught:
            read_state_dict(tmp_path / name)
        assert caught.value.error_id == "model.checkpoint"


def test_a_name_of_numbers_keeps_its_prefix(tmp_path: Path) -> None:
    state = state_of("dares-pose-decoder")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "pose.pth")
    assert list(read_state_dict(tmp_path / "pose.pth")) == list(state)


def test_each_part_is_told_from_the_others() -> None:
    encoders = ("dares-pose-encoder", "dares-transform-encoder", "dares-position-encoder")
    with torch.device("meta"):
        for _, part in {part: part for _, part in FAMILIES["endodac"].companions.values()}.items():
            fits = identify(create_part(part).state_dict())
            assert fits == (encoders if part in encoders else (part,))
        assert identify(create("af-sfmlearner-encoder").state_dict()) == ("af-sfmlearner-encoder",)
        assert identify(create("af-sfmlearner-decoder").state_dict()) == ("af-sfmlearner-decoder",)


def test_a_pickle_that_runs_code_is_refused(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(release, folder, copy_function=os.link)
    (folder / "pose.pth").unlink()
    trap = tmp_path / "trap"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(trap),))

    torch.save({**state_of("dares-pose-decoder"), "extra": Bomb()}, folder / "pose.pth")
    with pytest.raises(ModelError) as caught:
        load_companions("dares", folder)
    assert caught.value.error_id == "model.checkpoint"
    assert not trap.exists()


def test_weights_of_another_family_are_named(release: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_published(create("leve-mobilenetv3"), read_state_dict(release))
    assert "'af-sfmlearner'" in caught.value.what
