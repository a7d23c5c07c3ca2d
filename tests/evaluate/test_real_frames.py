"""The benchmark on real frames: loaders, geometry of the truth, and the baselines' published figures."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", ROOT / "../shared/data"))

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not (DATA / "c3vd_phantom").is_dir(), reason=f"no real frames in {DATA}"),
]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("real_frames", ROOT / "benchmarks/real_frames.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_frames"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("dataset", "constant", "brightness"),
    [
        ("c3vd-c3v4", 0.42, 0.20),
        ("c3vd-cecum", 0.28, 0.24),
        ("c3vd-sigmoid", 0.43, 0.30),
        ("simcol3d", 0.37, 0.23),
    ],
)
def test_baselines_reproduce_the_figures(bench, dataset, constant, brightness):
    for name, expected in (("constant", constant), ("brightness", brightness)):
        function = bench.BASELINES[name]
        found = bench.score(lambda image, f=function: f(image, None), data=DATA, datasets=(dataset,))[dataset]
        assert round(found["abs_rel"], 2) == expected
        assert found["coverage"] == 1.0


def test_liver_depth_fills_the_masks_in_both_views(bench):
    pytest.importorskip("embreex")
    for frame in bench.load_frames("liver-mesh", DATA):
        mask = bench._grey(DATA / f"synthetic_liver_stereo_mesh/mask-{frame.name}.png") > 127
        assert (frame.valid & mask).sum() / mask.sum() > 0.995
        assert 305 < frame.truth[frame.valid].min() < frame.truth[frame.valid].max() < 445


def test_chessboard_plane_lies_where_the_source_says(bench):
    for frame in bench.load_frames("chessboard", DATA):
        values = frame.truth[frame.valid]
        assert 105 < values.min() < values.max() < 131


def test_a_perfect_prediction_scores_zero(bench):
    frame = bench.load_frames("simcol3d", DATA)[0]
    found = bench.frame_metrics(frame, frame.truth.astype(np.float32) * 3)
    assert found["abs_rel"] == pytest.approx(0, abs=1e-6)
    frame = bench.load_frames("endoslam", DATA)[0]
    found = bench.frame_metrics(frame, 1 / np.maximum(frame.truth + 2, 1e-3))
    assert found["abs_rel"] == pytest.approx(0, abs=1e-4)


def test_the_protocol_runner_agrees_with_the_benchmark_on_real_frames(bench):
    from endolux.datasets import get_protocol, open_dataset
    from endolux.evaluate.predictors import open_predictor
    from endolux.evaluate.protocol_run import run_protocol, select_frames

    data, convention = open_dataset("simcol3d", DATA / "simcol3d_10frames"), get_protocol("simcol3d-any")
    for name in ("constant", "brightness"):
        result = run_protocol(open_predictor(f"baseline:{name}"), data, convention, select_frames(data, convention))
        found = np.mean([frame.measured.metrics["abs_rel"] for frame in result.frames])
        function = bench.BASELINES[name]
        expected = bench.score(lambda image, f=function: f(image, None), data=DATA, datasets=("simcol3d",))["simcol3d"]
        assert found == pytest.approx(expected["abs_rel"], rel=1e-3)
