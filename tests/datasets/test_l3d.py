"""L3D: polylines as maps of classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scenes import codes, key, save

from endolux.datasets import get_protocol, open_dataset
from endolux.datasets.l3d import LEGACY_DRAWING, L3dDataset, Polyline, draw, resize_labels
from endolux.errors import InputError

WIDTH, HEIGHT = 192, 108


def write(root: Path, split: str, stem: str, shapes: list[dict[str, object]], **more: object) -> Path:
    save(root / split / "images" / f"{stem}.jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    label = root / split / "labels" / f"{stem}.json"
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text(json.dumps({"shapes": shapes, "imageWidth": WIDTH, "imageHeight": HEIGHT, **more}))
    return label


def line(label: str, row: float) -> dict[str, object]:
    return {"label": label, "points": [[10.0, row], [181.0, row]]}


def test_lines_become_classes(tmp_path: Path):
    shapes = [
        line("Ridge ", 20),
        line("silhouette", 50),
        line("falciform", 80),
        line("tool", 100),
        line("ligament", 20),
    ]
    write(tmp_path, "Test", "Patient_40_08730", shapes)
    dataset = open_dataset("auto", tmp_path)
    assert dataset.name == "l3d"
    sample = dataset.load(key("Test/Patient_40", 8730))
    landmarks = sample.labels["landmarks"]
    assert landmarks.shape == (HEIGHT, WIDTH)
    # 30 px on 1080 rows are 3 px on 108, and OpenCV adds up to two; later lines cover earlier ones.
    column = landmarks[:, 96]
    assert {49, 50, 51} <= set(np.flatnonzero(column == 2)) <= set(range(48, 53))
    assert {19, 20, 21, 79, 80, 81} <= set(np.flatnonzero(column == 3)) <= {*range(18, 23), *range(78, 83)}
    assert not (column == 1).any()
    assert sample.depth is None
    findings = {f.code: f for f in dataset.check()}
    assert "'tool' (1)" in findings["label.unknown"].message
    assert "depth.missing" not in findings
    assert get_protocol("l3d").select(dataset.keys(), None) == [sample.key]
    assert get_protocol("l3d").task == "landmarks"


def test_legacy_drawing_is_thick_and_makes_false_ridges(tmp_path: Path):
    write(
        tmp_path,
        "Test",
        "Patient_40_1",
        [{"label": "s", "points": [[100, 300], [1800, 800]]}],
        imageWidth=1920,
        imageHeight=1080,
    )
    current = L3dDataset(tmp_path).load(key("Test/Patient_40", 1)).labels["landmarks"]
    legacy = open_dataset("l3d-legacy", tmp_path).load(key("Test/Patient_40", 1)).labels["landmarks"]
    assert set(np.unique(current)) == {0, 2}
    assert {0, 1, 2} == set(np.unique(legacy))
    blended = resize_labels(np.array([[0, 0, 2, 2]], np.uint8), (8, 1), blend=True)
    assert 1 in blended
    polyline = Polyline(label="r", class_id=1, points=np.array([[10.0, 540.0], [1900.0, 540.0]]))
    for size in ((1920, 1080), (3840, 2160)):
        assert np.count_nonzero(draw([polyline], size, drawing=LEGACY_DRAWING)[:, 900]) in (30, 31)
    assert np.count_nonzero(draw([polyline], (3840, 2160))[:, 900]) in (60, 61)


def test_legacy_canvas_follows_the_path(tmp_path: Path):
    # A 4K annotation of a patient whose number the published code does not list lands outside its canvas.
    shape = {"label": "ridge", "points": [[10.0, 2000.0], [3800.0, 2000.0]]}
    for patient in (25, 32):
        write(tmp_path, "Test", f"Patient_{patient}_1", [shape], imageWidth=3840, imageHeight=2160)
    legacy = L3dDataset(tmp_path, drawing=LEGACY_DRAWING)
    drawn = {p: legacy.load(key(f"Test/Patient_{p}", 1)).labels["landmarks"].any() for p in (25, 32)}
    assert drawn == {25: True, 32: False}
    assert L3dDataset(tmp_path).load(key("Test/Patient_32", 1)).labels["landmarks"].any()


def test_splits_nested_val_and_pseudo_depth(tmp_path: Path):
    write(tmp_path, "Train", "a", [])
    write(tmp_path, "Val/Val", "Patient_40_2", [])
    save(tmp_path / "Train/depth_AdelaiDepth/a.png", np.full((4, 6), 7, np.uint8))
    (tmp_path / "Train/images/b.jpg").write_bytes((tmp_path / "Train/images/a.jpg").read_bytes())
    (tmp_path / "Train/labels/c.json").write_text("{}")
    dataset = L3dDataset(tmp_path)
    assert list(dataset.keys()) == [key("Train/a", 0), key("Train/b", 0), key("Val/Patient_40", 2)]
    depth = dataset.pseudo_depth(key("Train/a", 0))
    assert depth is not None
    assert (depth == 7).all()
    assert dataset.pseudo_depth(key("Train/b", 0)) is None
    assert dataset.load(key("Train/b", 0)).labels == {}
    assert {"label.missing", "image.missing", "count.published"} <= codes(dataset.check())


def test_parts_of_their_own(tmp_path: Path):
    write(tmp_path, "Train", "a_1", [line("ridge", 50)])
    write(tmp_path, "Val/Val", "b_2", [])
    write(tmp_path, "Test", "c_3", [])
    assert len(open_dataset("l3d", tmp_path).keys()) == 3
    for name, sequence in (("train", "Train/a"), ("val", "Val/b"), ("legacy-train", "Train/a")):
        dataset = open_dataset(f"l3d-{name}", tmp_path)
        assert {k.sequence for k in list(dataset.keys())} == {sequence}
        assert dataset.name == f"l3d-{name}"
        counts = [f.message for f in dataset.check() if f.code == "count.published"]
        assert len(counts) == 1
        assert sequence.split("/")[0] in counts[0]
    write(tmp_path / "other", "Test", "c_3", [])
    with pytest.raises(InputError) as caught:
        open_dataset("l3d-train", tmp_path / "other")
    assert caught.value.error_id == "dataset.empty"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"shapes": 3}', '{"shapes": [{"label": "r"}]}', '{"shapes": [{"label": 1, "points": [[0, 0]]}]}',
     '{"shapes": [{"label": "r", "points": [[1e30, 0], [1, 1]]}]}',
     '{"shapes": [{"label": "r", "points": [[1], [2, 3]]}]}'],
)  # fmt: skip
def test_damaged_labels(tmp_path: Path, content: str):
    write(tmp_path, "Test", "p_1", []).write_text(content)
    with pytest.raises(InputError) as caught:
        L3dDataset(tmp_path).load(key("Test/p", 1))
    assert caught.value.error_id == "dataset.damaged"
    assert "dataset.damaged" in codes(L3dDataset(tmp_path).check())


def test_not_there(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        L3dDataset(tmp_path)
    assert caught.value.error_id == "dataset.empty"
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError) as caught:
        L3dDataset(tmp_path / "x")
    assert caught.value.error_id == "input.not-a-folder"
