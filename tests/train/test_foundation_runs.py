"""Runs of foundation models from their first weights to the students they teach, and what is refused on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clips import write_clip
from runs import log
from tiny_transformers import TINY as TINY_SHAPE
from tiny_transformers import library_network, lively

from endolux.cli.root import run
from endolux.errors import ModelError
from endolux.models import create
from endolux.models.depth_anything_keys import to_original
from endolux.runtime.bundles import write_bundle
from endolux.train.checkpoints import load_network
from endolux.train.engine import fit
from endolux.train.initial_weights import load_weights_into
from endolux.train.recipe import Recipe, load_recipe
from endolux.train.tasks.supervised import build_network
from endolux.train.trinity_choices import semantic_layer

pytest.importorskip("transformers")
pytest.importorskip("peft")
SHAPE = TINY_SHAPE
TINY = ", ".join(f"{key}: {value}" for key, value in SHAPE.items())
QUICK = ("batch=2", "threads=1", "device=cpu", "log_every=1", "precision=fp32", "steps=1", "checkpoint_every=1")
SMALL_VIDEO = ("video.flow=false", "video.appearance=false", "video.pose.kind=convolutions", "data.size=null",
               "video.photometric={kind: ssim}")  # fmt: skip


def dares(*changes: str) -> Recipe:
    return load_recipe("dares", [f"model.config={{{TINY}}}", *SMALL_VIDEO, *QUICK, *changes])


def surgical(*changes: str) -> Recipe:
    config = f"model.config={{output: depth, max_depth_mm: 200, min_depth_mm: 1, {TINY}}}"
    return load_recipe("surgical-depth-anything", [config, "data.size=56x42", *QUICK, *changes])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip")


def test_runs_of_both_recipes_teach(data: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``endolux train leve teacher=runs/dares-a`` just works, through the knowledge cache."""
    fit(None, dares(), [clip], tmp_path / "dares-a")
    fit(None, surgical(), [data], tmp_path / "surgical-a")
    for teacher, kind in (("dares-a", "relative_depth"), ("surgical-a", "metric")):
        student = tmp_path / f"taught-by-{teacher}"
        words = ["train", "leve", f"teacher={tmp_path / teacher}", "--data", str(data), "-o", str(student),
                 "data.size=96x64", "model.config={max_depth_mm: 200}", *QUICK]  # fmt: skip
        assert run(words) == 0, capsys.readouterr().err
        assert any("response" in row for row in log(student))
        (session,) = json.loads((student / "run.json").read_text())["sessions"]
        assert [origin["name"] for origin in session["origins"]] == [teacher]
        told = {json.loads(path.read_text())["teacher"]: json.loads(path.read_text())
                for path in (tmp_path / "knowledge").glob("*/about.json")}  # fmt: skip
        assert told[teacher]["kind"] == kind
        assert told[teacher]["preprocessing"]["by"] == "network"
    # What was asked once is not asked again.
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "knowledge").rglob("*") if path.is_file()}
    words[words.index(str(student))] = str(student) + "-again"
    assert run(words) == 0
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_a_run_without_pretraining_says_so(data: Path, tmp_path: Path) -> None:
    heard: list[object] = []
    fit(None, surgical(), [data], tmp_path / "first", on_log=heard.append)
    note = (
        "'depth-anything-v1-s' starts from random weights, without pretraining: model.initial names no "
        "depth-anything-v1-s."
    )
    assert {"message": note} in heard
    assert note in json.loads((tmp_path / "first" / "run.json").read_text())["sessions"][0]["notes"]
    heard.clear()
    fit(None, surgical(f"model.initial={tmp_path / 'first'}"), [data], tmp_path / "second", on_log=heard.append)
    assert not [line for line in heard if "random" in str(line)]


@torch.no_grad()
def test_first_weights_from_a_folder_a_file_and_a_bundle(tmp_path: Path) -> None:
    """Whatever form one pretrained network comes in, it starts the same network, and none of another release."""
    source = lively(create("depth-anything-v2-s", **SHAPE), bias=0.5)
    library_network(source).save_pretrained(tmp_path / "folder")
    torch.save(to_original(source.state_dict()), tmp_path / "depth_anything_v2_vits.pth")
    image = torch.rand(1, 3, 56, 70)
    for form in ("folder", "depth_anything_v2_vits.pth"):
        plain = create("depth-anything-v2-s", **SHAPE).eval()
        load_weights_into(plain, tmp_path / form)
        torch.testing.assert_close(plain(image), source(image), atol=1e-5, rtol=1e-5)
        adapted = create("depth-anything-v2-s", **SHAPE, output="depth", adapt={"kind": "vector-lora"}).eval()
        load_weights_into(adapted, tmp_path / form)
        # A head of disparity is no start for depth.
        assert adapted.head.conv3.bias.item() == pytest.approx(0.3)
        dares_network = create("dares", **SHAPE).eval()
        load_weights_into(dares_network, tmp_path / form)
        assert torch.equal(dares_network.backbone.layernorm.weight, source.backbone.layernorm.weight)
        other = create("depth-anything-v1-s", **{**SHAPE, "blocks": 6, "taps": [3, 4, 5, 6]})
        with pytest.raises(ModelError) as caught:
            load_weights_into(other, tmp_path / form)
        assert caught.value.error_id == "model.variant"


@torch.no_grad()
def test_first_weights_from_a_bundle(tmp_path: Path) -> None:
    from endolux.export import inference_network
    from endolux.export.onnx import safetensors_bytes

    source = lively(create("depth-anything-v2-s", **SHAPE), bias=0.5)
    ready = inference_network(source, store="fp32")
    fields = {
        "name": "dav2", "summary": "-", "trained_on": "-", "intended_use": "-", "limits": ["-"], "licence": "MIT",
        "architecture": "depth-anything-v2-s", "parameters": 1,
        "preprocessing": {"height": 56, "width": 70, "multiple": 14, "layout": "nhwc-uint8", "resize": "keep-aspect"},
        "output": {"kind": "relative_disparity", "minimum": 0.0, "maximum": 1000.0},
    }  # fmt: skip
    files = {"model.onnx": b"not needed here", "model.safetensors": safetensors_bytes(ready, store="fp32")}
    write_bundle(tmp_path / "dav2", card_fields=fields, files=files)
    image = torch.rand(1, 3, 56, 70)
    plain = create("depth-anything-v2-s", **SHAPE).eval()
    load_weights_into(plain, tmp_path / "dav2")
    torch.testing.assert_close(plain(image), source(image), atol=1e-5, rtol=1e-5)
    adapted = create("depth-anything-v2-s", **SHAPE, output="depth", adapt={"kind": "vector-lora"}).eval()
    load_weights_into(adapted, tmp_path / "dav2")
    # A head of disparity is no start for depth.
    assert adapted.head.conv3.bias.item() == pytest.approx(0.3)
    dares_network = create("dares", **SHAPE)
    load_weights_into(dares_network, tmp_path / "dav2")
    assert torch.equal(dares_network.neck.convs[0].weight, source.neck.convs[0].weight)
    with pytest.raises(ModelError) as caught:
        load_weights_into(create("depth-anything-v1-s", **SHAPE), tmp_path / "dav2")
    assert caught.value.error_id == "model.variant"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch endolux-was-here",)


@pytest.mark.parametrize(
    ("case", "code", "error_id"),
    [
        ("static", 3, "video.static"),
        ("too few frames", 3, "video.too-short"),
        ("differing sizes", 3, "video.frame-sizes"),
        ("unknown intrinsics", 3, "video.intrinsics"),
        ("fewer adapted layers", 4, "adapt.count"),
        ("ranks for other blocks", 2, "adapt.ranks"),
        ("a pickle with code", 4, "model.checkpoint"),
        ("a pickle of something else", 4, "model.checkpoint"),
        ("weights of another network", 4, "model.variant"),
        ("a licence for research", 4, "model.licence"),
    ],
)
def test_refused_with_three_lines(
    case: str, code: int, error_id: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    changes, source, more = [], str(clip), []
    if case == "static":
        source = str(write_clip(tmp_path / "still", step_mm=0.0))
    elif case == "too few frames":
        source = str(write_clip(tmp_path / "short", shots=(2,)))
    elif case == "differing sizes":
        images = np.load(clip / "rgb.npy")
        for number, image in enumerate(images):
            cv2.imwrite(str(tmp_path / f"{number}.png"), image[: len(image) - 8 * (number % 2)])
        source = f"frames:{tmp_path}"
    elif case == "unknown intrinsics":
        source = str(write_clip(tmp_path / "unknown", tracks=("sequence",)))
        changes = ["video.intrinsics.kind=data"]
    elif case == "fewer adapted layers":
        changes = ["model.adapt={kind: vector-lora, modules: 24}"]
    elif case == "ranks for other blocks":
        changes = ["model.adapt={kind: vector-lora, ranks: [14, 14, 12]}"]
    elif case == "a licence for research":
        more = ["--commercial"]
        changes = ["model.initial=depth-anything/Depth-Anything-V2-Base-hf"]
    else:
        held = {"a pickle with code": Evil(), "a pickle of something else": [1, "two"]}
        torch.save(held.get(case, create("repdepth").state_dict()), tmp_path / "weights.pth")
        changes = ["model.initial=weights.pth"]
    (tmp_path / "small.yaml").write_text(dares(*changes).text())
    assert run(["train", "small.yaml", "--data", source, "-o", "run", *more]) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert f"error[{error_id}]" in told[-3]
    assert [line[:7] for line in told[-2:]] == ["  why: ", "  fix: "]
    assert not (tmp_path / "endolux-was-here").exists()
    if case == "fewer adapted layers":
        assert "8 adapted layers instead of 24" in told[-3]
    assert not list(tmp_path.glob("run/step-*"))


def test_intrinsics_that_are_assumed_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(dares().text())
    source = write_clip(tmp_path / "unknown", tracks=("sequence",))
    assert run(["train", str(tmp_path / "small.yaml"), "--data", str(source), "-o", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "the intrinsics of 'unknown' are not known: taken to be fx=0.82 and cx=0.5 widths" in told
    notes = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"][0]["notes"]
    assert any("taken to be fx=0.82" in note for note in notes)
    network, _ = load_network(tmp_path / "run")
    assert build_network(dares()).config() == network.config()


def test_the_layer_where_meanings_are_looked_for() -> None:
    """The same one for a released network and for a run of it, whatever number of blocks it has."""
    for name, layer in (("depth-anything-v2-s", "block9"), ("depth-anything-v2-l", "block18"), ("dares", "block9")):
        with torch.device("meta"):
            network = create(name)
        assert semantic_layer(network.feature_names(), None, name, taught=True) == layer
    assert semantic_layer(create("litenet-t").feature_names(), None, "student") == "stage3"
