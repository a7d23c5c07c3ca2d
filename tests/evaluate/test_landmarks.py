"""Masks of landmarks under l3d, as a library and as a program."""

import csv
import hashlib
import json

import cv2
import numpy as np
import pytest

from endolux.datasets import get_protocol, open_dataset
from endolux.errors import EndoluxError
from endolux.evaluate.compare import compare_results, comparison_document
from endolux.evaluate.landmark_masks import read_labels
from endolux.evaluate.landmarks import run_landmarks
from endolux.evaluate.landmarks_page import draw_errors, draw_labels
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


def evaluated(l3d, folder, masks, name):
    write(folder / name, masks)
    code, _, err = run(folder / name, "--protocol", "l3d", "--data", l3d, "-o", folder / f"{name}-r", "--quiet")
    assert code == 0, err
    return folder / f"{name}-r"


def test_report_shows_the_ranked_frames_and_loads_nothing(l3d, tmp_path):
    true = truths(l3d)
    report = evaluated(l3d, tmp_path, {0: true[0], 1: shifted(true[1], 4), 2: true[2]}, "<masks>")
    page = (report / "report.html").read_text()
    key = open_dataset("l3d", l3d).keys()[0]
    for text in (f"best: {key}, DSC 1", "ridge", "silhouette", "ligament", "all classes", "srft_galore_assd"):
        assert text in page
    assert page.count('<div class="tiles">') == 2  # the third frame has no landmark, and no rank
    assert page.count("data:image/jpeg;base64,") == 8
    assert "&lt;masks&gt;" in page
    assert "<masks>" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert 'src="/' not in page


def test_masks_are_drawn_where_they_are():
    truth = np.zeros((40, 60), np.uint8)
    truth[10, :], truth[30, :20] = 1, 3
    predicted = np.zeros_like(truth)
    predicted[10, :30], predicted[20, :], predicted[30, :20] = 1, 2, 2
    image = np.full((20, 30, 3), 7, np.uint8)
    drawn = draw_labels(image, truth)
    rows = sorted(set(np.nonzero((drawn != 7).any(axis=2))[0].tolist()))
    assert rows == [5, 15]
    assert (drawn[5] == drawn[5, 0]).all()
    assert (drawn[15, 10:] == 7).all()
    errors = draw_errors(image, predicted, truth)
    right, missed, false = errors[5, 0].tolist(), errors[5, 29].tolist(), errors[10, 0].tolist()
    assert len({tuple(right), tuple(missed), tuple(false), (7, 7, 7)}) == 4
    assert errors[15, 0].tolist() == false
    assert (image == 7).all()


def test_the_document_says_what_was_measured(l3d, tmp_path):
    true = truths(l3d)
    report = evaluated(l3d, tmp_path, {**true, 1: np.zeros_like(true[1])}, "masks")
    content = json.loads((report / "result.json").read_text())
    keys = open_dataset("l3d", l3d).keys()
    hashes = [hashlib.sha256((tmp_path / f"masks/P_{n}.png").read_bytes()).hexdigest() for n in range(3)]
    text = "".join(f"{key}\0{sha256}\n" for key, sha256 in zip(keys, hashes, strict=True))
    assert content["model"]["masks_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert content["data"] == {"root": "L3D", "dataset": "l3d", "split": None}
    assert content["protocol"]["averaging"]
    assert "endolux" in content["versions"]
    columns = content["per_frame"]["metrics"]
    for name, row in content["classes"].items():
        for figure, column in (("dsc", "dsc"), ("assd", "assd"), ("miss_rate", "missed")):
            values = [value for value in columns[f"{name}_{column}"] if value is not None]
            assert np.mean(values) == pytest.approx(row[figure])


def test_two_results_are_compared_class_by_class(l3d, tmp_path):
    true = truths(l3d)
    good = evaluated(l3d, tmp_path, {0: shifted(true[0], 1), 1: true[1], 2: true[2]}, "good")
    worse = {0: shifted(true[0], 6), 1: np.where(true[1] == 2, 0, true[1]).astype(np.uint8), 2: true[0]}
    bad = evaluated(l3d, tmp_path, worse, "bad")
    found = compare_results(bad, good)
    assert (found.frames, found.lone) == (3, 0)
    scores = [segmentation_scores(mask, true[n]) for n, mask in worse.items()]
    best = [segmentation_scores(mask, true[n]) for n, mask in {0: shifted(true[0], 1), 1: true[1]}.items()]
    expected = np.mean([b.classes[1].dsc - a.classes[1].dsc for a, b in zip(scores, best, strict=False)])
    assert found.paired["ridge_dsc"].difference == pytest.approx(expected)
    assert found.paired["ridge_dsc"].frames == 2
    assert found.paired["silhouette_missed"].difference == -0.5
    assert found.paired["silhouette_assd"].frames == 1  # missed in the other frame, so that it has no distance
    assert found.paired["ridge_false_alarm"].difference == -1.0
    assert found.means["ligament_false_alarm"] == (0.5, 0.0)
    answer = comparison_document(found)["metrics"]
    assert answer["silhouette_missed"]["better"] == "lower"
    assert answer["ridge_dsc"]["better"] == "higher"
    code, out, err = run("compare", bad, good)
    assert (code, err) == (0, "")
    assert "silhouette_false_alarm" in out
    code, _, err = run("compare", bad, good, "--json")
    assert code == 0, err


def test_results_that_do_not_compare_are_refused(l3d, tmp_path):
    good = evaluated(l3d, tmp_path, truths(l3d), "good")
    content = json.loads((good / "result.json").read_text())
    other = {**content, "protocol": {**content["protocol"], "id": "l3d-legacy/1"}}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert run("compare", good, tmp_path / "other.json")[0] == 2
    del content["per_frame"]["metrics"]["ridge_dsc"]
    (tmp_path / "cut.json").write_text(json.dumps(content))
    code, out, err = run("compare", good, tmp_path / "cut.json")
    assert (code, out) == (3, "")
    assert err.startswith("error[result.json]")
    assert "ridge_dsc" in err
