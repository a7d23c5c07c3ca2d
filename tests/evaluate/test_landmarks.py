"""Masks of landmarks under l3d, as a library and as a program."""

import csv
import json

import cv2
import numpy as np
import pytest

from endolux.datasets import get_protocol, open_dataset
from endolux.errors import EndoluxError
from endolux.evaluate.landmarks import read_labels, run_landmarks
from endolux.evaluate.protocol_run import select_frames
from endolux.metrics.segmentation import segmentation_scores
from endolux.metrics.segmentation_published import assd_as_published, overlap_as_published

from .test_evaluate_cli import run

SIZE = (192, 108)


@pytest.fixture
def l3d(tmp_path):
    """Three test frames: three landmarks, two, and none."""
    root = tmp_path / "L3D"
    shapes = [
        [("ridge", 20), ("silhouette", 50), ("ligament", 80)],
        [("ridge", 30), ("silhouette", 60)],
        [],
    ]
    for number, lines in enumerate(shapes):
        for folder in ("images", "labels"):
            (root / "Test" / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"Test/images/P_{number}.jpg"), np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))
        content = [{"label": label, "points": [[10.0, row], [181.0, row]]} for label, row in lines]
        (root / f"Test/labels/P_{number}.json").write_text(
            json.dumps({"shapes": content, "imageWidth": SIZE[0], "imageHeight": SIZE[1]})
        )
    return root


def truths(root):
    dataset = open_dataset("l3d", root)
    return {key.index: dataset.load(key).labels["landmarks"] for key in dataset.keys()}  # noqa: SIM118


def write(folder, masks):
    folder.mkdir(exist_ok=True)
    for number, mask in masks.items():
        cv2.imwrite(str(folder / f"P_{number}.png"), mask)
    return folder


def shifted(mask, rows):
    return np.roll(mask, rows, axis=0)


def test_scores_are_those_of_the_metrics(l3d, tmp_path):
    true = truths(l3d)
    masks = {0: shifted(true[0], 3), 1: np.where(true[1] == 2, 0, true[1]).astype(np.uint8), 2: true[2]}
    dataset, protocol = open_dataset("l3d", l3d), get_protocol("l3d")
    result = run_landmarks(write(tmp_path / "masks", masks), dataset, protocol, select_frames(dataset, protocol))
    assert not result.failures
    for frame in result.frames:
        assert frame.published["srft_galore_assd"] == pytest.approx(
            assd_as_published(masks[frame.key.index], true[frame.key.index], reproduce="srft-galore"), nan_ok=True
        )
        assert (frame.published["d2gpland_dsc"], frame.published["d2gpland_iou"]) == overlap_as_published(
            masks[frame.key.index], true[frame.key.index]
        )
    expected = segmentation_scores(masks[0], true[0])
    assert result.frames[0].scores == expected
    assert expected.classes[1].assd > 0
    summary = result.summary
    assert summary.classes[2].miss_rate == 0.5
    assert (summary.images, summary.empty, summary.pairs) == (3, 1, 4)
    assert result.published["d2gpland_dsc"] == pytest.approx(
        np.mean([overlap_as_published(masks[n], true[n])[0] for n in range(3)])
    )
    assert any("no landmark in truth and prediction" in text for text in result.warnings)
    assert any("3 frames were found" in text for text in result.warnings)


def test_program_prints_the_table_and_writes_files(l3d, tmp_path):
    true = truths(l3d)
    folder = write(tmp_path / "masks", true)
    code, out, err = run(folder, "--protocol", "l3d", "--data", l3d, "-o", tmp_path / "r", "--quiet")
    assert (code, err) == (0, "")
    for text in ("ridge", "silhouette", "ligament", "all classes", "pooled     DSC 1", "srft_galore_assd"):
        assert text in out
    content = json.loads((tmp_path / "r/result.json").read_text())
    assert content["kind"] == "landmarks"
    assert content["classes"]["ridge"]["dsc"] == 1.0
    assert content["classes"]["ridge"]["assd"] == 0.0
    assert content["over_all"]["pooled_dsc"] == 1.0
    assert content["frames"]["scored"] == 3
    rows = list(csv.DictReader((tmp_path / "r/frames.csv").open()))
    assert [row["ridge_dsc"] for row in rows] == ["1.0", "1.0", ""]
    code, out, err = run(folder, "--protocol", "l3d", "--data", l3d, "-o", tmp_path / "r")
    assert (code, out) == (2, "")


def test_a_missing_mask_is_told_and_the_rest_scored(l3d, tmp_path):
    folder = write(tmp_path / "masks", {0: truths(l3d)[0]})
    code, out, err = run(folder, "--protocol", "l3d-legacy", "--data", l3d, "--json", "--quiet")
    assert code == 5, err
    content = json.loads(out)
    assert (content["ok"], content["frames"]["failed"]) == (False, 2)
    assert "error[run.partial]: 2 of 3 frames failed" in err


@pytest.mark.parametrize(
    ("arguments", "code", "error_id"),
    [
        (["baseline:constant"], 2, "evaluate.masks"),
        (["repdepth-colon"], 2, "evaluate.masks"),
        (["{masks}", "--alignment", "median"], 2, "usage.arguments"),
        (["{masks}", "--prediction-kind", "metric"], 2, "usage.arguments"),
        (["{empty}"], 3, "evaluate.no-prediction"),
    ],
)
def test_wrong_use(l3d, tmp_path, arguments, code, error_id):
    places = {"masks": write(tmp_path / "masks", truths(l3d)), "empty": write(tmp_path / "empty", {})}
    found, out, err = run(*(text.format(**places) for text in arguments), "--protocol", "l3d", "--data", l3d, "-q")
    assert (found, out) == (code, "")
    assert error_id in err.splitlines()[0]
    assert len(err.splitlines()) == 3


def test_masks_of_another_size_and_kind(l3d, tmp_path):
    true = truths(l3d)
    small = {n: cv2.resize(mask, (96, 54), interpolation=cv2.INTER_NEAREST) for n, mask in true.items()}
    dataset, protocol = open_dataset("l3d", l3d), get_protocol("l3d")
    result = run_landmarks(write(tmp_path / "small", small), dataset, protocol, select_frames(dataset, protocol))
    assert all(frame.resized for frame in result.frames)
    assert 0.5 < result.summary.pooled_dsc < 1
    colour = np.repeat(true[0][:, :, None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    np.testing.assert_array_equal(read_labels(tmp_path / "colour.png"), true[0])
    np.save(tmp_path / "a.npy", true[0].astype(np.int64))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.npy"), true[0])


@pytest.mark.parametrize(
    ("name", "content", "error_id"),
    [
        ("a.png", np.full((4, 4), 255, np.uint8), "evaluate.labels"),
        ("a.png", np.stack([np.full((4, 4), n, np.uint8) for n in (0, 1, 2)], axis=2), "evaluate.labels"),
        ("a.npy", np.full((4, 4), 0.5), "evaluate.labels"),
        ("a.npy", np.full((4, 4), -1), "evaluate.labels"),
        ("a.npy", b"", "input."),
        ("a.png", b"text", "dataset.damaged"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, name, content, error_id):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name.endswith(".npy"):
        np.save(path, content)
    else:
        cv2.imwrite(str(path), content)
    with pytest.raises(EndoluxError) as caught:
        read_labels(path)
    assert caught.value.error_id.startswith(error_id)
