"""Baselines, predictors, runner and report."""

import hashlib
import json
import math

import cv2
import numpy as np
import pytest

from endolux.datasets.pairs import TruthFormat, TruthKind, find_pairs
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.evaluate.baselines import BASELINES, brightness_depth, constant_depth
from endolux.evaluate.predictors import ModelPredictor, open_predictor
from endolux.evaluate.report import FRAMES_FILE, RESULT_FILE, document, frames_csv, intervals, table, write_report
from endolux.evaluate.runner import compare, evaluate
from endolux.geometry.align import Alignment
from endolux.metrics import METRICS
from endolux.types import DepthKind, DepthMap

MM = TruthFormat(codes_per_mm=100.0)


def run(folder, name="baseline:brightness", **arguments):
    return evaluate(open_predictor(name), find_pairs(folder), **({"truth": MM} | arguments))


def mean(result, metric="abs_rel"):
    return float(np.mean([frame.metrics[metric] for frame in result.frames]))


def test_every_baseline_keeps_size_kind_and_mask():
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    valid = image[..., 0] > 50
    for function in BASELINES.values():
        depth = function(image, valid)
        assert depth.size == (41, 30)
        assert depth.kind is DepthKind.RELATIVE_DEPTH
        assert (depth.values > 0).all()
        assert np.isfinite(depth.values).all()
        np.testing.assert_array_equal(depth.valid, valid)
        assert function(image, None).valid.all()


def test_brightness_is_the_inverse_square_root_of_linear_light():
    for level in (40, 128, 255):
        image = np.full((20, 20, 3), level, np.uint8)
        expected = 1 / math.sqrt((level / 255) ** 2.2)
        assert brightness_depth(image).at(10, 10) == pytest.approx(expected, rel=1e-5)
    assert brightness_depth(np.zeros((8, 8, 3), np.uint8)).at(0, 0) == pytest.approx(100.0)


def test_brightness_takes_the_largest_channel_and_is_not_darkened_by_the_border():
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 200
    assert brightness_depth(red).at(30, 20) == pytest.approx(brightness_depth(np.full_like(red, 200)).at(30, 20))
    valid = np.zeros((40, 60), bool)
    valid[:, 30:] = True
    red[:, :30] = 0
    inside = brightness_depth(red, valid).values[valid]
    assert np.ptp(inside) < 1e-4 * inside.mean()


def test_brightness_beats_constant_where_light_falls_with_the_square(pairs_folder):
    light, constant = run(pairs_folder), run(pairs_folder, "baseline:constant")
    assert mean(light) < 0.02
    assert mean(constant) > 0.1
    assert light.alignment is Alignment.MEDIAN
    assert light.list_sha256 == constant.list_sha256


def test_constant_under_median_by_hand(pairs_folder):
    result = run(pairs_folder, "baseline:constant")
    codes = cv2.imread(str(pairs_folder / "depth/2.png"), cv2.IMREAD_UNCHANGED) / 100
    expected = np.abs(np.median(codes) - codes) / codes
    assert result.frames[2].metrics["abs_rel"] == pytest.approx(expected.mean(), rel=1e-12)


def test_depth_in_metres_would_not_pass_silently(pairs_folder):
    with pytest.raises(UsageError) as caught:
        run(pairs_folder, truth=TruthFormat())
    assert caught.value.error_id == "evaluate.depth-scale"


def test_alignment_must_fit(pairs_folder):
    with pytest.raises(UsageError) as caught:
        run(pairs_folder, alignment=Alignment.NONE)
    assert caught.value.error_id == "align.kind"
    with pytest.raises(UsageError):
        run(pairs_folder, truth=TruthFormat(kind=TruthKind.DISPARITY), alignment=Alignment.MEDIAN)


def test_inversion_is_stated(pairs_folder):
    result = run(pairs_folder, alignment=Alignment.SCALE_SHIFT_DISPARITY)
    assert result.inverted
    assert "1/depth" in table(result)
    assert document(result)["alignment"]["prediction_inverted"] is True
    assert not run(pairs_folder).inverted


def test_one_bad_frame_is_a_counted_failure(pairs_folder):
    cv2.imwrite(str(pairs_folder / "depth/1.png"), np.full((24, 32), 3000, np.uint16))
    (pairs_folder / "images/3.png").write_bytes(b"no picture")
    result = run(pairs_folder)
    assert [frame.name for frame in result.frames] == ["0", "2"]
    assert [(f.index, f.name) for f in result.failures] == [(1, "1"), (3, "3")]
    assert result.failures[0].error.error_id == "evaluate.size"
    content = document(result)
    assert content["failed_frames"] == 2
    assert content["data"]["pairs"] == 4
    assert content["metrics"]["abs_rel"]["frames"] == 2


def test_all_bad_is_an_error(pairs_folder):
    for path in (pairs_folder / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        run(pairs_folder)
    assert caught.value.error_id == "evaluate.all-failed"


def test_empty_truth_is_nan_and_counted(pairs_folder):
    cv2.imwrite(str(pairs_folder / "depth/0.png"), np.zeros((48, 64), np.uint16))
    result = run(pairs_folder)
    assert result.frames[0].empty
    assert all(math.isnan(value) for value in result.frames[0].metrics.values())
    content = document(result)
    assert content["empty_frames"] == 1
    assert content["metrics"]["abs_rel"]["missing"] == 1
    assert content["metrics"]["abs_rel"]["mean"] == pytest.approx(
        np.mean([frame.metrics["abs_rel"] for frame in result.frames[1:]])
    )
    assert "1 frames have no pixel" in table(result)


def test_only_empty_truth_is_an_error(pairs_folder):
    for path in (pairs_folder / "depth").iterdir():
        cv2.imwrite(str(path), np.zeros((48, 64), np.uint16))
    with pytest.raises(InputError) as caught:
        run(pairs_folder)
    assert caught.value.error_id == "evaluate.empty"


def test_bad_true_values_are_counted(pairs_folder):
    (pairs_folder / "depth/0.png").unlink()
    depth = np.full((48, 64), 50.0)
    depth[0, :5], depth[1, :3], depth[2, :2] = np.inf, -1, np.nan
    np.save(pairs_folder / "depth/0.npy", depth)
    frame = run(pairs_folder).frames[0]
    assert (frame.infinite, frame.negative, frame.truth_pixels) == (5, 3, 48 * 64 - 10)


def test_black_border_is_not_compared(pairs_folder):
    for path in (pairs_folder / "images").iterdir():
        image = cv2.imread(str(path))
        image[:, :20] = 0
        cv2.imwrite(str(path), image)
    frame = run(pairs_folder).frames[0]
    assert frame.dropped == frame.truth_pixels - frame.compared
    assert frame.dropped >= 20 * 48


def test_nonpositive_aligned_values_are_counted():
    truth = np.array([[1.0, 2.0, 100.0, 100.0]])
    depth = DepthMap(values=np.float32([[1, 9, 10, 10]]), kind=DepthKind.RELATIVE_DEPTH, valid=truth > 0)
    frame = compare("x", depth, truth, truth > 0, truth=TruthFormat(), alignment=Alignment.SCALE_SHIFT_DEPTH)
    assert frame.nonpositive == 1
    assert math.isnan(frame.metrics["silog"])
    assert not math.isnan(frame.metrics["abs_rel"])


def test_predictions_from_a_folder(pairs_folder, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for pair in find_pairs(pairs_folder):
        codes = cv2.imread(str(pair.depth), cv2.IMREAD_UNCHANGED)
        np.save(predictions / f"{pair.name}.npy", (codes / 100).astype(np.float32))
    arguments = {"truth": MM, "alignment": Alignment.NONE}
    predictor = open_predictor(str(predictions), prediction_kind=DepthKind.METRIC)
    result = evaluate(predictor, find_pairs(pairs_folder), **arguments)
    assert mean(result) == pytest.approx(0, abs=1e-6)
    (predictions / "2.npy").unlink()
    result = evaluate(
        open_predictor(str(predictions), prediction_kind=DepthKind.METRIC), find_pairs(pairs_folder), **arguments
    )
    assert [f.error.error_id for f in result.failures] == ["evaluate.no-prediction"]


def test_coded_predictions_need_their_scale(pairs_folder):
    predictions = str(pairs_folder / "depth")
    with pytest.raises(UsageError) as caught:
        open_predictor(predictions)
    assert "--prediction-kind" in caught.value.fix
    with pytest.raises(UsageError) as caught:
        open_predictor(predictions, prediction_kind=DepthKind.METRIC)
    assert "--prediction-scale" in caught.value.fix
    with pytest.raises(UsageError):
        open_predictor(predictions, prediction_kind=DepthKind.METRIC, prediction_scale=-1.0)
    predictor = open_predictor(predictions, prediction_kind=DepthKind.METRIC, prediction_scale=50.0)
    result = evaluate(predictor, find_pairs(pairs_folder), truth=MM, alignment=Alignment.NONE)
    assert mean(result) == pytest.approx(1.0, abs=1e-6)  # half the codes a unit: twice the depth


def test_predictions_of_endolux_itself_state_their_own_kind(pairs_folder, tmp_path):
    from endolux.io.depth_codes import DepthMeta
    from endolux.io.tables import FrameRow, FramesCsv, write_json_atomic

    out = tmp_path / "out"
    (out / "depth").mkdir(parents=True)
    with FramesCsv(out / "frames.csv") as rows:
        for index, pair in enumerate(find_pairs(pairs_folder)):
            name = f"depth/{index + 7:06d}.png"
            (out / name).write_bytes(pair.depth.read_bytes())
            rows.write(FrameRow(index=index + 7, name=pair.image.name, file=name))
    write_json_atomic(out / "meta.json", DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0, engine="onnxruntime"))
    result = evaluate(open_predictor(str(out)), find_pairs(pairs_folder), truth=MM)
    assert result.alignment is Alignment.NONE
    assert mean(result) == pytest.approx(0, abs=1e-6)
    assert result.predictor["engine"] == "onnxruntime"
    with pytest.raises(UsageError):
        open_predictor(str(out), prediction_kind=DepthKind.METRIC)


@pytest.mark.parametrize("name", ["baseline:", "baseline:median"])
def test_unknown_baseline(name):
    with pytest.raises(UsageError) as caught:
        open_predictor(name)
    assert "baseline:brightness" in caught.value.fix
    with pytest.raises(UsageError):
        open_predictor("baseline:constant", prediction_kind=DepthKind.METRIC)


def test_a_model_gives_its_card_hash_engine_and_precision(pairs_folder):
    class Output:
        kind = DepthKind.RELATIVE_DEPTH

    class Card:
        output = depth = Output()
        architecture = "repdepth"

        def model_dump(self, *, mode):
            assert mode == "json"
            return {"name": "tiny", "files": {}, "metrics": [self]}

    class Bundle:
        name, card, card_sha256 = "tiny", Card(), "ab" * 32

    class Engine:
        name, version, precision, threads = "onnxruntime", "1.0", "exact", 2

    class Model:
        bundle, engine = Bundle(), Engine()

        def predict(self, frame):
            if frame.name.startswith("2"):
                raise InputError("no", why="because", fix="nothing", error_id="input.test")
            return constant_depth(frame.image)

    result = evaluate(ModelPredictor(Model(), name="tiny"), find_pairs(pairs_folder), truth=MM)
    assert [f.error.error_id for f in result.failures] == ["input.test"]
    model = document(result)["model"]
    assert model == {
        "type": "model",
        "name": "tiny",
        "card_sha256": "ab" * 32,
        "model_sha256": hashlib.sha256(b'{"files": {}, "name": "tiny"}').hexdigest(),
        "engine": "onnxruntime",
        "engine_version": "1.0",
        "precision": "exact",
        "threads": 2,
        "kind": "relative_depth",
    }


def test_report_files(pairs_folder, tmp_path):
    result = run(pairs_folder)
    content = document(result, data="data", command=("endolux", "evaluate"))
    out = tmp_path / "new" / "report"
    write_report(out, content, result.frames)
    assert json.loads((out / RESULT_FILE).read_text())["versions"]["numpy"] == np.__version__
    lines = (out / FRAMES_FILE).read_text().splitlines()
    assert lines[0].startswith("name,abs_rel,")
    assert len(lines) == 5
    assert float(lines[1].split(",")[1]) == result.frames[0].metrics["abs_rel"]
    before = (out / RESULT_FILE).read_bytes()
    with pytest.raises(UsageError) as caught:
        write_report(out, content, result.frames)
    assert caught.value.error_id == "output.exists"
    assert (out / RESULT_FILE).read_bytes() == before
    with pytest.raises(UsageError) as caught:
        write_report(out / FRAMES_FILE, content, result.frames)
    assert caught.value.error_id == "output.is-file"


def test_a_place_that_cannot_be_written_to_shows_before_the_work(tmp_path, monkeypatch):
    from endolux.evaluate import report

    report.check_output(tmp_path / "new" / "deep")
    monkeypatch.setattr(report.os, "access", lambda path, _mode: path != tmp_path)
    with pytest.raises(UsageError) as caught:
        report.check_output(tmp_path / "new" / "deep")
    assert caught.value.error_id == "output.not-writable"


def test_report_is_deterministic(pairs_folder):
    one, two = run(pairs_folder), run(pairs_folder)
    assert json.dumps(document(one)) == json.dumps(document(two))
    assert frames_csv(one.frames) == frames_csv(two.frames)
    assert intervals(one, seed=1) != intervals(one, seed=2)


def test_json_holds_no_nan(pairs_folder):
    cv2.imwrite(str(pairs_folder / "depth/0.png"), np.zeros((48, 64), np.uint16))
    for index in (1, 2, 3):
        (pairs_folder / f"images/{index}.png").write_bytes(b"")
    with pytest.raises(EndoluxError):
        run(pairs_folder)
    cv2.imwrite(str(pairs_folder / "images/1.png"), np.full((48, 64, 3), 90, np.uint8))
    content = document(run(pairs_folder, "baseline:constant"))
    json.dumps(content, allow_nan=False)
    assert content["metrics"]["abs_rel"]["low"] is None  # one frame has no interval


def test_table_names_every_metric_and_the_conditions(pairs_folder):
    text = table(run(pairs_folder))
    assert all(f"\n{name} " in text for name in METRICS)
    assert "median" in text
    assert "baseline:brightness" in text
    assert "100.00%" in text


def test_an_image_of_another_size_than_truth_and_prediction_is_a_failure(pairs_folder):
    cv2.imwrite(str(pairs_folder / "images/1.png"), np.full((24, 32, 3), 90, np.uint8))
    predictor = open_predictor(str(pairs_folder / "depth"), prediction_kind=DepthKind.METRIC, prediction_scale=100.0)
    result = evaluate(predictor, find_pairs(pairs_folder), truth=MM)
    assert [(f.name, f.error.error_id) for f in result.failures] == [("1", "evaluate.size")]
    assert "image" in result.failures[0].error.what


def test_code_zero_of_a_predicted_disparity_is_no_value(pairs_folder, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for pair in find_pairs(pairs_folder):
        codes = np.rint(1e8 / cv2.imread(str(pair.depth), cv2.IMREAD_UNCHANGED)).astype(np.uint16)
        codes[:4] = 0
        cv2.imwrite(str(predictions / f"{pair.name}.png"), codes)
    predictor = open_predictor(str(predictions), prediction_kind=DepthKind.RELATIVE_DISPARITY)
    result = evaluate(predictor, find_pairs(pairs_folder), truth=MM)
    assert result.alignment is Alignment.SCALE_SHIFT_DISPARITY
    assert not result.inverted
    assert result.frames[0].dropped == 4 * 64
    assert mean(result) < 1e-3


def test_a_bundle_is_loaded_and_named(pairs_folder, tiny_bundle):
    result = run(pairs_folder, str(tiny_bundle))
    assert result.predictor["type"] == "model"
    assert len(str(result.predictor["card_sha256"])) == 64
    assert result.predictor["engine"] == "onnxruntime"
    assert len(result.frames) == 4
