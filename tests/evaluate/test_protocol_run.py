"""The runner under a protocol: selection, averaging, counting, provenance, report and bounded memory."""

import json
import math
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from endolux.datasets.base import Averaging, FrameKey, frame_list_sha256
from endolux.errors import InputError, UsageError
from endolux.evaluate import quirks
from endolux.evaluate.averages import figures, sequence_figures
from endolux.evaluate.baselines import get_baseline
from endolux.evaluate.html_report import html_report, ranked
from endolux.evaluate.predictors import BaselinePredictor
from endolux.evaluate.protocol_report import document, frames_csv, table, write_result
from endolux.evaluate.protocol_run import deviate, run_protocol, select_frames
from endolux.evaluate.report import check_output
from endolux.evaluate.scoring import check_protocol
from endolux.geometry.align import Alignment
from endolux.metrics.depth import METRICS, depth_metrics
from endolux.types import DepthKind

from .tiny import Guess, Tiny, protocol, truth_mm, wobble

KEYS = tuple(Tiny().keys())


def run(predictor=None, data=None, convention=None, **arguments):
    data, convention = data or Tiny(), convention or protocol()
    keys = select_frames(data, convention)
    return run_protocol(predictor or Guess(wobble), data, convention, keys, **arguments)


def test_frames_come_in_the_protocols_order_and_under_its_hash():
    convention = protocol(select=lambda keys, _split: keys[::-2], expected_frames=4)
    result = run(convention=convention)
    assert [f.key for f in result.frames] == list(KEYS[::-2])
    assert result.list_sha256 == frame_list_sha256(KEYS[::-2])
    assert result.warnings == ()


def test_another_number_of_frames_than_published_is_loud():
    result = run(convention=protocol(expected_frames=551))
    assert "published list has 551" in result.warnings[0]
    text = table(result)
    assert text.startswith("WARNING    8 frames")
    content = document(result, data="x")
    assert (content["frames"]["expected"], content["frames"]["selected"]) == (551, 8)
    assert "551" in content["warnings"][0]


def test_wrong_set_and_empty_selection():
    with pytest.raises(UsageError) as caught:
        run(convention=protocol(dataset="other"))
    assert caught.value.error_id == "evaluate.wrong-dataset"
    with pytest.raises(InputError) as caught:
        run(convention=protocol(select=lambda _keys, _split: []))
    assert caught.value.error_id == "evaluate.no-frames"


def test_split_reaches_the_selection(tmp_path):
    split = tmp_path / "list.txt"
    split.write_text("1 2")
    seen = []
    convention = protocol(select=lambda keys, path: seen.append(path) or keys[:2])
    assert len(select_frames(Tiny(), convention, split)) == 2
    assert seen == [split]


def per_frame(result, name):
    return np.array([f.measured.metrics[name] for f in result.frames])


def test_averaging_over_frames_sequences_and_pixels():
    frames = run().frames
    values = per_frame(run(), "rmse")
    assert figures(frames, averaging=Averaging.FRAME)["rmse"].mean == pytest.approx(values.mean())
    assert figures(frames, averaging=Averaging.SEQUENCE)["rmse"].mean == pytest.approx(
        (values[:3].mean() + values[3:].mean()) / 2
    )
    scaled = [np.float32(f.measured.scale) * wobble(truth_mm(f.key)) for f in frames]
    mask = np.ones(scaled[0].shape, bool)
    mask[0, :2] = False
    p = np.concatenate([s[mask] for s in scaled]).astype(float)
    t = np.concatenate([truth_mm(f.key)[mask] for f in frames])
    pooled = figures(frames, averaging=Averaging.PIXEL)
    for name, value in depth_metrics(p, t, np.ones(p.shape, bool)).items():
        assert pooled[name].mean == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("averaging", list(Averaging))
def test_intervals_hold_the_mean_and_repeat(averaging):
    frames = run().frames
    one, two = figures(frames, averaging=averaging, seed=3), figures(frames, averaging=averaging, seed=3)
    assert one == two
    for name, figure in one.items():
        if averaging is not Averaging.SEQUENCE and name != "delta3":
            assert figure.low <= figure.mean <= figure.high, name
        assert figure.sequences == 2
    assert math.isnan(one["rmse"].student_low) == (averaging is Averaging.PIXEL)


def test_student_interval_of_three_frames_by_hand():
    convention = protocol(select=lambda keys, _split: keys[:3], expected_frames=3)
    result = run(convention=convention)
    values = per_frame(result, "abs_rel")
    figure = figures(result.frames, averaging=Averaging.FRAME)["abs_rel"]
    reach = 4.302652729911275 * values.std(ddof=1) / math.sqrt(3)
    assert figure.student_high == pytest.approx(values.mean() + reach)
    assert math.isnan(figure.sequence_low)


def test_failures_are_counted_and_named():
    data = Tiny(broken=["a 1"], empty=["bb/1 2 left"])
    result = run(data=data)
    assert [f.name for f in result.failures] == ["a 1"]
    content = document(result, data="x")
    assert content["frames"] | {"list_sha256": ""} == {
        "expected": 8,
        "selected": 8,
        "scored": 7,
        "entries": 7,
        "empty": 1,
        "unusable": 0,
        "failed": 1,
        "list_sha256": "",
    }
    assert content["metrics"]["abs_rel"]["missing"] == 1
    assert any("1 of 8 frames failed" in text for text in result.warnings)
    assert len(frames_csv(result.frames).splitlines()) == 8
    json.dumps(content, allow_nan=False)
    assert sequence_figures(result.frames, averaging=Averaging.FRAME)["a"]["frames"] == 2
    with pytest.raises(InputError) as caught:
        run(data=Tiny(broken=[str(key) for key in KEYS]))
    assert caught.value.error_id == "evaluate.all-failed"
    with pytest.raises(InputError) as caught:
        run(data=Tiny(empty=[str(key) for key in KEYS]))
    assert caught.value.error_id == "evaluate.empty"


def test_affine_disparity_under_median_is_refused_or_has_another_name():
    disparity = Guess(lambda t: 3 / t + 0.2, DepthKind.RELATIVE_DISPARITY)
    with pytest.raises(UsageError) as caught:
        run(disparity)
    assert caught.value.error_id == "align.kind"
    honest, identity = deviate(protocol(), alignment=Alignment.SCALE_SHIFT_DISPARITY)
    result = run(disparity, convention=honest, identity=identity)
    assert result.identity == "tiny-all/1+alignment=scale-shift-disparity"
    assert per_frame(result, "abs_rel").max() < 1e-5
    wrong, identity = deviate(protocol(), reproduce=["disparity-as-depth"])
    result = run(disparity, convention=wrong, identity=identity)
    assert "reproduce=disparity-as-depth" in result.identity
    assert any("protocol error" in text for text in result.warnings)
    assert document(result, data="x")["protocol"]["reproduce"].keys() == {"disparity-as-depth"}
    with pytest.raises(UsageError):
        deviate(protocol(), reproduce=["made-up"])
    with pytest.raises(UsageError):
        run(convention=protocol(reproduce=("made-up",)))


def test_truth_of_another_kind_is_refused():
    with pytest.raises(UsageError) as caught:
        run(data=Tiny(kind=DepthKind.RELATIVE_DISPARITY))
    assert caught.value.error_id == "align.kind"


def test_metric_depth_that_was_rescaled_says_so():
    result = run(Guess(lambda t: 2 * t, DepthKind.METRIC))
    assert per_frame(result, "abs_rel").max() < 1e-6
    assert any("nothing about its millimetres" in text for text in result.warnings)
    exact = protocol(alignment=Alignment.NONE)
    assert per_frame(run(Guess(lambda t: 2 * t, DepthKind.METRIC), convention=exact), "abs_rel") == pytest.approx(1.0)


def test_limit_is_stated_and_changes_the_list():
    result = run(limit=3)
    assert (len(result.frames), result.limit) == (3, 3)
    assert result.list_sha256 == frame_list_sha256(KEYS[:3])
    assert any("first 3 of 8" in text for text in result.warnings)
    assert run(limit=100).limit is None


def test_mirrored_entries_double_the_frames():
    convention = protocol(reproduce=(quirks.MIRRORED_ENTRIES,))
    brightness = BaselinePredictor(name="baseline:brightness", baseline=get_baseline("brightness"))
    result = run(brightness, convention=convention)
    assert [f.mirrored for f in result.frames] == [False, True] * 8
    assert document(result, data="x")["frames"]["entries"] == 16
    ahead = per_frame(result, "abs_rel")
    assert ahead[::2] == pytest.approx(ahead[1::2], rel=1e-4)


def test_baselines_that_a_protocol_wants_stand_in_every_table():
    result = run(convention=protocol(baselines=("constant",)))
    content = document(result, data="x")
    row = content["baselines"]["baseline:constant"]["abs_rel"]
    truth = truth_mm(KEYS[0]).astype(float)
    first = result.baselines["baseline:constant"][0].measured.metrics["abs_rel"]
    assert first == pytest.approx((np.abs(np.median(truth) - truth) / truth).mean(), rel=0.01)
    assert row["frames"] == 8
    assert "baseline   baseline:constant: abs_rel" in table(result)


def test_a_protocol_of_landmarks_is_not_scored_as_depth():
    with pytest.raises(UsageError) as caught:
        run(convention=protocol(task="landmarks"))
    assert caught.value.error_id == "protocol.task"


def test_window_in_pixels_is_cut_off_at_the_edge():
    result = run(convention=protocol(crop_pixels=(10, 100, 4, 20)))
    assert result.frames[0].measured.truth_pixels == 14 * 16
    assert "rows 10..100" in table(result)
    with pytest.raises(UsageError) as caught:
        run(convention=protocol(crop_pixels=(1, 2, 3, 4), crop=(0, 1, 0, 1)))
    assert caught.value.error_id == "protocol.settings"


def test_every_registered_protocol_can_be_run_or_says_why_not():
    from endolux.datasets import protocols

    for name, convention in protocols().items():
        deviate(convention)  # every quirk it names is one that the runner reproduces
        if convention.task != "depth":
            continue
        # Metric depth leaves nothing open, so that every alignment is allowed for it.
        check_protocol(convention, prediction_kind=DepthKind.METRIC)
        assert convention.resize_prediction, name


def test_predictions_of_another_size_are_resized_and_counted():
    result = run(Guess(lambda t: t, size=(64, 48)))
    assert document(result, data="x")["resized_predictions"] == 8
    assert per_frame(result, "abs_rel").max() < 0.02
    with pytest.raises(InputError) as caught:
        run(Guess(lambda t: t, size=(64, 48)), convention=protocol(resize_prediction="refuse"))
    assert caught.value.error_id == "evaluate.all-failed"


def test_document_names_no_folder_of_this_machine():
    command = (
        "endolux",
        "evaluate",
        "/secret/place/predictions",
        "--data=/secret/place/tiny",
        "--command",
        "t /secret/b",
    )
    content = document(run(), data="tiny", command=command)
    assert "secret" not in json.dumps(content)
    assert content["data"] == {"root": "tiny", "dataset": "tiny", "split": None}
    assert content["versions"]["numpy"] == np.__version__
    assert content["model"]["engine"] == "none"
    assert content["pixels"]["excluded_by_reader"] == {"infinite": 16}


def test_failures_and_commands_name_no_folder_either(tmp_path):
    from endolux.evaluate.command import CommandPredictor
    from endolux.evaluate.prediction_set import open_prediction_set

    np.save(tmp_path / "a_1.npy", truth_mm(KEYS[1]))
    predictor = open_prediction_set(tmp_path, KEYS, [""] * 8, kind=DepthKind.METRIC)
    result = run(predictor)
    content = document(result, data="x")
    assert content["frames"]["failed"] == 7
    assert tmp_path.name in content["failures"][0]["what"]
    page = html_report(result, content, dataset=Tiny(), predictor=predictor)
    for text in (json.dumps(content), page):
        assert str(tmp_path.parent) not in text
    tool = CommandPredictor("ls /some/place/weights.pt {image} {output}", name="tool", kind=DepthKind.METRIC)
    assert tool.provenance["command"] == "ls weights.pt {image} {output}"


def test_everything_repeats_byte_for_byte():
    one, two = run(), run()
    assert json.dumps(document(one, data="x")) == json.dumps(document(two, data="x"))
    assert frames_csv(one.frames) == frames_csv(two.frames)
    assert table(one) == table(two)


def test_memory_does_not_grow_with_the_frames():
    class Many(Tiny):
        def __init__(self, count):
            super().__init__()
            self.count = count

        def keys(self):
            return [FrameKey(sequence="a", index=i % 3) for i in range(self.count)]

    def peak(count):
        tracemalloc.start()
        run(data=Many(count), convention=protocol(expected_frames=None))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(3)
    # A frame leaves its figures behind (some kB), not its pixels (tens of kB with truth, mask and prediction).
    assert peak(120) - peak(20) < 100 * 6_000


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.images, self.tags, self.text, self.links = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [v for k, v in attrs.items() if k in ("href", "src", "action", "data", "srcset") and v]
        if tag == "img":
            self.images.append(attrs["src"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # noqa: ARG002
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_report_is_one_well_formed_file_that_loads_nothing(tmp_path):
    data = Tiny(broken=["bb/1 4 left"])
    evil = Guess(wobble)
    evil.provenance = {**evil.provenance, "name": "<script>alert(1)</script>"}
    result = run(evil, data=data)
    content = document(result, data="x")
    page = html_report(result, content, dataset=data, predictor=evil, shown=1)
    write_result(tmp_path / "r", content, result.frames, page)
    parser = Page()
    parser.feed((tmp_path / "r/report.html").read_text(encoding="utf-8"))
    assert parser.open == []
    assert "script" not in parser.tags
    assert len(parser.images) == 3 * 4
    assert all(link.startswith("data:image/jpeg;base64,") for link in parser.links)
    assert parser.tags.count("svg") == 5  # curve, two histograms, sequences, colour scale
    text = " ".join(parser.text)
    for wanted in (*METRICS, "<script>alert(1)</script>", "1 of 8 frames failed", "best: ", "worst: ", "input.test"):
        assert wanted in text
    with pytest.raises(UsageError):
        check_output(tmp_path / "r")


def test_report_ranks_every_frame_once():
    result = run()
    titles = [title for title, _ in ranked(result.frames, count=3)]
    assert len(titles) == len(set(titles)) == 8
    order = np.argsort(per_frame(result, "abs_rel"))
    best, worst = ranked(result.frames, count=1)[0][1], ranked(result.frames, count=1)[-1][1]
    assert best is result.frames[order[0]]
    assert worst is result.frames[order[-1]]


def test_report_survives_a_frame_that_vanished():
    result = run()
    page = html_report(
        result, document(result, data="x"), dataset=Tiny(broken=[str(k) for k in KEYS]), predictor=Guess(wobble)
    )
    assert "broken" in page
