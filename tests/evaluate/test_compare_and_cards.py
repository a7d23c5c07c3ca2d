"""Comparison of two results, and results on cards."""

import json
from pathlib import Path

import numpy as np
import pytest

from endolux.datasets.pairs import TruthFormat, find_pairs
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.evaluate.cards import add_metric, card_markdown, model_sha256
from endolux.evaluate.compare import compare_results, comparison_document, comparison_table
from endolux.evaluate.predictors import open_predictor
from endolux.evaluate.protocol_report import document
from endolux.evaluate.protocol_run import deviate, run_protocol
from endolux.evaluate.report import document as pairs_document
from endolux.evaluate.runner import evaluate
from endolux.geometry.align import Alignment
from endolux.metrics.depth import METRICS
from endolux.runtime.bundles import load_bundle, write_bundle

from .tiny import Guess, Tiny, protocol, wobble


def result(path, function=wobble, *, data=None, convention=None, provenance=None, identity="", limit=None):
    data, convention = data or Tiny(), convention or protocol()
    predictor = Guess(function)
    predictor.provenance = {**predictor.provenance, **(provenance or {})}
    found = run_protocol(predictor, data, convention, data.keys(), identity=identity, limit=limit)
    content = document(found, data="tiny", command=("endolux", "evaluate", "x"))
    Path(path).write_text(json.dumps(content))
    return path


def better(values):
    return values + (wobble(values) - values) * 0.5


def test_paired_difference_by_hand(tmp_path):
    a, b = result(tmp_path / "a.json"), result(tmp_path / "b.json", better)
    found = compare_results(a, b)
    columns = [json.loads(p.read_text())["per_frame"]["metrics"]["abs_rel"] for p in (a, b)]
    difference = np.subtract(columns[1], columns[0])
    assert found.paired["abs_rel"].difference == pytest.approx(difference.mean())
    assert found.frames == 8
    assert found.paired["abs_rel"].second_better == 1.0
    assert found.by_sequence["abs_rel"].groups == 2
    assert compare_results(b, a).paired["abs_rel"].difference == pytest.approx(-difference.mean())
    text = comparison_table(found)
    assert all(f"\n{name} " in text for name in METRICS)
    assert "second better" in text
    content = comparison_document(found)
    json.dumps(content, allow_nan=False)
    assert content["metrics"]["abs_rel"]["over_frames"]["verdict"] == "second better"
    assert content["metrics"]["delta1"]["over_frames"]["second_better"] >= 0.5


def test_a_result_does_not_differ_from_itself(tmp_path):
    a = result(tmp_path / "a.json")
    found = compare_results(a, a)
    assert found.paired["rmse"].difference == 0
    assert comparison_document(found)["metrics"]["rmse"]["over_frames"]["verdict"] == "no difference shown"


def test_a_verdict_needs_both_intervals():
    from endolux.evaluate.compare import verdict
    from endolux.metrics.statistics import compare_paired

    values = np.array([0.0, 0.0, 0.0, 0.05, 0.05, 0.05, 0.9, 0.02, 0.02, 0.02])
    found = compare_paired(np.zeros(10), -values, rng=np.random.default_rng(0))
    assert found.high < 0 < found.student_high
    assert verdict(found, "abs_rel") == "no difference shown"
    clear = compare_paired(np.zeros(10), -values - 5, rng=np.random.default_rng(0))
    assert (verdict(clear, "abs_rel"), verdict(clear, "delta1")) == ("second better", "first better")


def test_frames_that_failed_in_one_are_left_out_and_counted(tmp_path):
    a = result(tmp_path / "a.json")
    b = result(tmp_path / "b.json", better, data=Tiny(broken=["a 2"]))
    found = compare_results(a, b)
    assert (found.frames, found.lone) == (7, 1)
    assert "WARNING: 1" in comparison_table(found)


def test_other_protocol_or_frames_are_refused(tmp_path):
    a = result(tmp_path / "a.json")
    changed, identity = deviate(protocol(), alignment=Alignment.SCALE_SHIFT_DEPTH)
    cases = {
        "compare.protocol": [
            result(tmp_path / "b.json", convention=protocol(version=2)),
            result(tmp_path / "c.json", convention=changed, identity=identity),
        ],
        "compare.frames": [result(tmp_path / "d.json", limit=5)],
    }
    for error_id, others in cases.items():
        for other in others:
            with pytest.raises(UsageError) as caught:
                compare_results(a, other)
            assert caught.value.error_id == error_id


@pytest.mark.parametrize("text", ["", "{", "[]", '{"protocol": {"id": "tiny-all/1"}, "model": {}}', '{"ok": false}'])
def test_garbage_is_refused(tmp_path, text):
    a = result(tmp_path / "a.json")
    (tmp_path / "b.json").write_text(text)
    for pair in ((a, tmp_path / "b.json"), (tmp_path / "b.json", a)):
        with pytest.raises(InputError):
            compare_results(*pair)
    with pytest.raises(InputError):
        compare_results(a, tmp_path / "none.json")


def test_pairs_results_compare_too(pairs_folder, tmp_path):
    paths = []
    for name in ("constant", "brightness"):
        found = evaluate(
            open_predictor(f"baseline:{name}"), find_pairs(pairs_folder), truth=TruthFormat(codes_per_mm=100.0)
        )
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(pairs_document(found)))
        paths.append(folder)
    found = compare_results(*paths)
    assert found.paired["abs_rel"].difference < 0
    assert found.by_sequence == {}
    with pytest.raises(UsageError) as caught:
        compare_results(paths[0], result(tmp_path / "p.json"))
    assert caught.value.error_id == "compare.protocol"


@pytest.fixture
def bundle(tmp_path):
    fields = {
        "name": "toy", "summary": "A | toy.", "architecture": "none", "parameters": 1, "trained_on": "nothing",
        "intended_use": "none", "limits": ["<b>small</b>"], "licence": "Apache-2.0",
        "preprocessing": {"height": 64, "width": 64}, "output": {"kind": "metric", "minimum": 1, "maximum": 200},
    }  # fmt: skip
    return write_bundle(tmp_path / "toy", card_fields=fields, files={"notes.md": b"Hello."})


def identity_of(bundle):
    return {"name": "toy", "card_sha256": bundle.card_sha256, "model_sha256": model_sha256(bundle.card)}


def test_a_figure_enters_the_card_with_its_provenance(bundle, tmp_path):
    path = result(tmp_path / "a.json", provenance=identity_of(bundle))
    entry = add_metric(bundle.folder, path)
    again = load_bundle(bundle.folder)
    content = json.loads(path.read_text())
    assert again.card.metrics == (entry,)
    assert entry.protocol == "tiny-all/1"
    assert content["frames"]["list_sha256"] in entry.data
    assert entry.values["abs_rel"] == content["metrics"]["abs_rel"]["mean"]
    assert entry.command == "endolux evaluate x"
    # The card changed, the model did not: a second protocol measured before or after still enters.
    other = result(tmp_path / "b.json", convention=protocol(name="other"), provenance=identity_of(bundle))
    add_metric(bundle.folder, other)
    assert [m.protocol for m in load_bundle(bundle.folder).card.metrics] == ["tiny-all/1", "other/1"]
    with pytest.raises(UsageError) as caught:
        add_metric(bundle.folder, path)
    assert caught.value.error_id == "card.duplicate"
    assert not list(bundle.folder.glob(".*"))


def test_what_does_not_belong_on_the_card_stays_off(bundle, tmp_path, pairs_folder):
    own = identity_of(bundle)
    pairs = evaluate(open_predictor("baseline:constant"), find_pairs(pairs_folder), truth=TruthFormat(codes_per_mm=1.0))
    (tmp_path / "pairs.json").write_text(json.dumps(pairs_document(pairs)))
    cases = {
        "card.other-model": result(tmp_path / "1.json", provenance={"card_sha256": "ab" * 32}),
        "card.no-protocol": tmp_path / "pairs.json",
        "result.json": bundle.folder / "notes.md",
        "input.missing": tmp_path / "none",
    }
    before = (bundle.folder / "card.json").read_bytes()
    for error_id, path in cases.items():
        with pytest.raises(EndoluxError) as caught:
            add_metric(bundle.folder, path)
        assert caught.value.error_id == error_id
    short = [
        result(tmp_path / "2.json", provenance=own, data=Tiny(broken=["a 0"])),
        result(tmp_path / "3.json", provenance=own, data=Tiny(empty=["a 0"])),
        result(tmp_path / "4.json", provenance=own, limit=2),
        result(tmp_path / "5.json", provenance=own, convention=protocol(expected_frames=9)),
    ]
    for path in short:
        with pytest.raises(UsageError) as caught:
            add_metric(bundle.folder, path)
        assert caught.value.error_id == "card.incomplete"
    assert (bundle.folder / "card.json").read_bytes() == before


def test_card_as_markdown(bundle, tmp_path):
    add_metric(bundle.folder, result(tmp_path / "a.json", provenance=identity_of(bundle)))
    text = card_markdown(load_bundle(bundle.folder))
    assert text.startswith("# toy\n\nA \\| toy.")
    assert "&lt;b&gt;small&lt;/b&gt;" in text
    assert "### tiny-all/1" in text
    assert "abs\\_rel" in text
    rows = [line for line in text.splitlines() if line.startswith("| abs")]
    assert rows[0].count("|") == len(METRICS) + 1
