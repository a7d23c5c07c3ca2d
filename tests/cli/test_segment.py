"""``endolux segment`` as a child process: masks, polylines, overlays; bad input; resuming; export of such runs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from endolux.cli.root import run
from endolux.datasets.l3d import draw, read_polylines
from endolux.runtime.bundles import write_bundle
from endolux.train.engine import fit
from endolux.train.recipe import load_recipe
from train.landmark_pictures import write_l3d

from .cli_inputs import files_of, write_clip, write_png

CLASSES = ["background", "ridge", "silhouette", "ligament"]


def colour_graph(classes: int = 4) -> bytes:
    """ONNX: red is the ridge, green the silhouette, blue the ligament, grey the background."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    weight = np.array([[0, 0, 0], [2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32)[:classes, :, None, None] / 20
    bias = np.array([4, 0, 0, 0], np.float32)[:classes]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=types.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight", "bias"], ["scores"], kernel_shape=[1, 1]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", types.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probabilities", types.FLOAT, ["N", classes, "H", "W"])],
        [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def bundle(folder: Path, *, graph: bytes | None = None) -> Path:
    fields: dict[str, object] = {
        "name": "colours",
        "summary": "Colours as landmarks.",
        "architecture": "none",
        "parameters": 16,
        "trained_on": "nothing",
        "intended_use": "tests",
        "limits": (),
        "licence": "Apache-2.0",
        "preprocessing": {"height": 192, "width": 256, "multiple": 16},
        "output": {"kind": "landmarks", "classes": CLASSES},
    }
    write_bundle(folder, card_fields=fields, files={"model.onnx": graph or colour_graph()})
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("bundles") / "colours")


def lines(width: int = 256, height: int = 192) -> np.ndarray:
    """A grey picture with a red and a blue line."""
    image = np.full((height, width, 3), 110, np.uint8)
    cv2.line(image, (30, 60), (220, 60), (240, 20, 20), 8)
    cv2.line(image, (120, 90), (120, 170), (20, 20, 240), 8)
    return image


@pytest.fixture
def segment(endolux, colours: Path):
    def call(source: str | Path, out: str | Path = "out", *more: str | Path, **named):
        return endolux("segment", "-o", out, "--model", colours, "--threads", "1", *more, "--", source, **named)

    return call


def test_image(segment, tmp_path: Path) -> None:
    done = segment(write_png(tmp_path / "liver.png", lines()), "out", "--json")
    assert done.code == 0, done.err
    document = done.document
    assert document["found"] == {"ridge": 1, "silhouette": 0, "ligament": 1}
    assert document["classes"] == CLASSES
    out = tmp_path / "out"
    mask = cv2.imread(str(out / "masks/liver.png"), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8
    assert mask.shape == (192, 256)
    assert (mask[60, 125], mask[130, 120], mask[20, 20]) == (1, 3, 0)
    assert abs(int((mask == 1).sum()) - 190 * 9) < 190 * 3
    # The polylines can be read and drawn again as labels of L3D are.
    found, size = read_polylines(out / "polylines/liver.json")
    assert size == (256, 192)
    assert [line.label for line in found] == ["ridge", "ligament"]
    assert np.abs(found[0].points[:, 1] - 60).max() <= 2
    assert found[0].points[:, 0].max() - found[0].points[:, 0].min() > 175
    assert (draw(found, (256, 192)) == 1).any()
    overlay = cv2.imread(str(out / "overlay/liver.png"))[:, :, ::-1]
    assert overlay[60, 125, 0] > 180
    assert overlay[130, 120, 2] > 180
    rows = list(csv.DictReader((out / "frames.csv").open()))
    assert int(rows[0]["ridge_px"]) == int((mask == 1).sum())
    assert rows[0]["silhouette_px"] == "0"
    again = segment(tmp_path / "liver.png", "out")
    assert again.code == 0
    assert "nothing was done again" in again.out
    assert "ridge in 1" in again.out


def test_folder_with_a_broken_picture(segment, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    write_png(folder / "a.png", lines())
    write_png(folder / "c.png", np.zeros((192, 256, 3), np.uint8))
    (folder / "b.png").write_bytes(b"no picture")
    shutil.copy(folder / "a.png", folder / "a.bmp")
    done = segment(folder)
    assert done.code == 5
    done.assert_three_lines("run.partial")
    # Two files of one stem are told apart by their numbers.
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["000000.png", "000001.png", "c.png"]
    status = [row["status"] for row in csv.DictReader((tmp_path / "out/frames.csv").open())]
    assert status[:2] == ["ok", "ok"]
    assert status[3] == "black"
    assert not cv2.imread(str(tmp_path / "out/masks/c.png"), cv2.IMREAD_UNCHANGED).any()


def test_video_and_resume(segment, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=12, width=128, height=96)
    whole = segment(clip, "whole", "--json")
    assert whole.code == 0, whole.err
    assert whole.document["frames"] == 12
    with av.open(str(tmp_path / "whole/overlay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 12
    # As a killed run leaves it: the record unfinished, some masks, no overlay.
    parts = tmp_path / "parts"
    shutil.copytree(tmp_path / "whole", parts)
    state = json.loads((parts / "run.json").read_text())
    (parts / "run.json").write_text(json.dumps({**state, "status": "running"}))
    for number in range(7, 12):
        (parts / f"masks/{number:06d}.png").unlink()
    (parts / "overlay.mp4").unlink()
    (parts / "frames.csv").unlink()
    refused = segment(clip, "parts")
    assert refused.code == 2
    refused.assert_three_lines("output.unfinished")
    again = segment(clip, "parts", "--resume", "--json")
    assert again.code == 0, again.err
    assert again.document["resumed_from"] == 7
    whole_files, part_files = files_of(tmp_path / "whole"), files_of(parts)
    assert whole_files.keys() == part_files.keys()
    assert [name for name in whole_files if whole_files[name] != part_files[name]] == []


def test_bad_input(segment, endolux, tiny_bundle: Path, colours: Path, tmp_path: Path) -> None:
    picture = write_png(tmp_path / "a.png", lines())
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"\0" * 4000)
    cases = [
        (segment(tmp_path / "nothing.png"), 3, "input.missing"),
        (segment(garbage), 3, None),
        (endolux("segment", picture, "-o", "o1", "--model", tiny_bundle), 4, "model.kind"),
        (endolux("segment", picture, "-o", "o2", "--model", "nothing"), 4, "model.missing"),
        (endolux("predict", picture, "-o", "o3", "--model", colours), 4, "model.kind"),
        (segment(picture, tmp_path), 2, "output.foreign"),
    ]
    for done, code, error_id in cases:
        assert done.code == code, done.err
        if error_id is not None:
            done.assert_three_lines(error_id)
    other = bundle(tmp_path / "other", graph=colour_graph(3))
    done = endolux("segment", picture, "-o", "o4", "--model", other)
    assert done.code == 4
    done.assert_three_lines("model.graph")


def test_card_is_shown(endolux, colours: Path) -> None:
    done = endolux("models", "show", colours)
    assert done.code == 0, done.err
    assert "landmarks: ridge, silhouette, ligament" in done.out


def test_run_to_bundle_to_masks(endolux, tmp_path: Path) -> None:
    data = write_l3d(tmp_path / "data")
    changes = ["steps=2", "batch=2", "data.size=[64,64]", "device=cpu", "threads=1", "precision=fp32"]
    fit(None, load_recipe("landmarks-light", changes), [f"l3d:{data}"], tmp_path / "run")
    # The command in this process: another one would spend its time on importing torch.
    assert run(["export", str(tmp_path / "run"), "-o", str(tmp_path / "bundle"), "--kind", "metric"]) == 2
    assert run(["export", str(tmp_path / "run"), "-o", str(tmp_path / "bundle"), "--size", "128x96"]) == 0
    card = json.loads((tmp_path / "bundle/card.json").read_text())
    assert card["output"] == {"kind": "landmarks", "classes": CLASSES}
    assert sum(entry["bytes"] for entry in card["files"].values()) < 10e6
    done = endolux("segment", data / "Train/images", "-o", "out", "--model", "bundle", "--no-overlay", "--json")
    assert done.code == 0, done.err
    assert done.document["frames"] == 6
    assert done.document["overlay"] is None
