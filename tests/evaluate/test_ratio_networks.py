"""Networks of ratios under the protocols of Leve: figures against the published formulas in float64."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from endolux.datasets import get_protocol, open_dataset, protocols
from endolux.evaluate.averages import figures
from endolux.evaluate.predictors import ModelPredictor
from endolux.evaluate.protocol_report import document, table
from endolux.evaluate.protocol_run import run_protocol, select_frames
from endolux.prep.network_input import resize
from endolux.runtime.bundles import load_bundle
from endolux.runtime.model import Model
from endolux.types import DepthKind

from .test_evaluate_cli import run, run_program

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", ROOT / "../shared/data")) / "endoslam_unity_stomach"
NAMES = ("rmse", "mae", "abs_rel", "log10", "rmse_log", "delta1", "delta2", "delta3")


def published_metrics(d, g):
    logs, ratio = np.log10(d) - np.log10(g), np.maximum(d / g, g / d)
    return {
        "rmse": np.sqrt(((d - g) ** 2).mean()),
        "mae": np.abs(d - g).mean(),
        "abs_rel": (np.abs(d - g) / g).mean(),
        "log10": np.abs(logs).mean(),
        "rmse_log": np.sqrt((logs**2).mean()),
        **{f"delta{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)},
    }


def depth_of_ratio(ratio, maximum, *, as_published):
    if not as_published:
        return maximum / np.clip(ratio, 1, 100)
    with np.errstate(divide="ignore"):
        return np.where(ratio == 0, 0.0, np.clip(maximum / ratio, maximum / 100, maximum))


def by_the_formulas(frames, ratio_of, size, maximum, *, as_published=True):
    """Means over pictures and their mirrors: resize, ratio, depth, resize, figures."""
    rows = []
    for image, truth in frames:
        for step in (1, -1):
            small = resize(np.ascontiguousarray(image[:, ::step]), *size)
            depth = depth_of_ratio(ratio_of(small), maximum, as_published=as_published)
            whole = cv2.resize(depth, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
            rows.append(published_metrics(whole, truth[:, ::step]))
    return {name: np.mean([row[name] for row in rows]) for name in NAMES}


def stand_in(image):
    """Ratios from a colour: from below 0 to some tens."""
    return 0.2 * image[..., 0].astype(np.float64) - 0.11 * image[..., 1] - 3.05


def predictor(*, as_published):
    """A bundle like an imported Leve, whose engine is the stand-in."""
    bundle = load_bundle("repdepth-colon")
    card = bundle.card.model_copy(
        update={
            "architecture": "leve",
            "preprocessing": bundle.card.preprocessing.model_copy(
                update={"height": 480, "width": 640, "multiple": 8, "resize": "stretch"}
            ),
            "output": bundle.card.output.model_copy(
                update={"kind": DepthKind.METRIC, "minimum": 0.0 if as_published else 100.0, "maximum": 10_000.0}
            ),
        }
    )

    def compute(array):
        depth = depth_of_ratio(stand_in(array[0]), 10_000.0, as_published=as_published)
        return depth[None, None].astype(np.float32)

    engine = SimpleNamespace(name="stand-in", version="1", precision="exact", threads=1, run=compute)
    return ModelPredictor(Model(dataclasses.replace(bundle, card=card), engine), name="leve")


@pytest.fixture
def subset(tmp_path):
    """Two frames with a black rim, which a search for the content area would cut off, and a true 0."""
    noise, frames = np.random.default_rng(3), []
    for folder in ("frames", "depths"):
        (tmp_path / folder).mkdir()
    for number in range(2):
        image = cv2.resize(noise.integers(20, 255, (12, 12, 3), dtype=np.uint8), (320, 320))
        y, x = np.mgrid[:320, :320]
        image[(x - 160) ** 2 + (y - 160) ** 2 > 150**2] = 0
        codes = np.clip(x // 2 + y // 4 + 9 * number, 0, 255).astype(np.uint8)
        codes[5, 5] = 0
        cv2.imwrite(str(tmp_path / f"frames/{number}.png"), image[:, :, ::-1])
        cv2.imwrite(str(tmp_path / f"depths/{number}.png"), codes)
        frames.append((image, codes.astype(np.float64) / 255 + 1e-6))
    return tmp_path, frames


@pytest.mark.parametrize("as_published", [True, False])
def test_figures_are_those_of_the_formulas(subset, as_published):
    root, frames = subset
    dataset, protocol = open_dataset("endoslam-leve", root), get_protocol("endoslam-leve")
    result = run_protocol(predictor(as_published=as_published), dataset, protocol, select_frames(dataset, protocol))
    found = figures(result.frames, averaging=protocol.averaging)
    expected = by_the_formulas(frames, stand_in, (640, 480), 1.0, as_published=as_published)
    for name in NAMES:
        # Depths are stored in float32, so that a few of 400 000 shares at 1.25 may fall to the other side.
        tolerance = {"abs": 2e-5} if name.startswith("delta") else {"rel": 2e-6}
        assert found[name].mean == pytest.approx(expected[name], **tolerance), name
    assert sum(frame.measured.compared for frame in result.frames) == 4 * 320 * 320
    content = document(result, data="x")
    assert content["model"]["ratio_at_or_below_0"] == ("nearest, as published" if as_published else "farthest")
    assert any("--reproduce" in text for text in result.warnings) != as_published
    assert content["protocol"]["notes"]
    assert "antialiased" in table(result)


def test_as_published_is_another_figure(subset):
    frames = subset[1]
    ratios = [stand_in(resize(image, 640, 480)) for image, _ in frames]
    assert min(ratio.min() for ratio in ratios) < 0 < max(ratio.max() for ratio in ratios)
    one, other = (
        by_the_formulas(frames, stand_in, (640, 480), 1.0, as_published=published) for published in (True, False)
    )
    assert abs(one["rmse"] - other["rmse"]) > 0.01


def test_every_protocol_with_a_largest_ratio_says_what_it_cannot_repeat():
    found = [one for one in protocols().values() if one.ratio_maximum is not None]
    assert {"endoslam-leve", "nyu-eigen-leve", "kitti-eigen-leve"} <= {one.name for one in found}
    for one in found:
        assert one.whole_picture
        assert any("--reproduce" in text for text in one.notes)
        assert any("antialiased" in text for text in one.notes)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no EndoSLAM frames in {DATA}")
def test_an_imported_leve_on_real_frames(tmp_path):
    torch = pytest.importorskip("torch", reason="importing a checkpoint needs torch")
    from endolux.models import create

    spec = importlib.util.spec_from_file_location("golden_fill", ROOT / "tests/models/golden_fill.py")
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    network = create("leve-3x3").eval()
    golden.golden_fill_(network)
    torch.save({"model": network.state_dict()}, tmp_path / "a.pth")
    bundle = tmp_path / "bundle"
    code, _, err = run_program("models", "import", "leve-3x3", tmp_path / "a.pth", "--reproduce", "-o", bundle)
    assert code == 0, err
    options = ("--protocol", "endoslam-leve", "--data", DATA, "--limit", "2", "--threads", "1")
    code, _, err = run(bundle, *options, "-o", tmp_path / "r", "--quiet")
    assert code == 0, err
    network = network.double()

    def ratio_of(image):
        with torch.inference_mode():
            return network(torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255)[0, 0].numpy()

    dataset, frames = open_dataset("endoslam-leve", DATA), []
    for key in dataset.keys()[:2]:
        sample = dataset.load(key)
        frames.append((sample.frame.image, sample.depth.values.astype(np.float64) / 1000))
    expected = by_the_formulas(frames, ratio_of, (320, 240), 1.0)
    found = json.loads((tmp_path / "r/result.json").read_text())["metrics"]
    for name in NAMES:
        # A ratio within the rounding of float32 around 0 jumps from the farthest depth to the nearest.
        assert found[name]["mean"] == pytest.approx(expected[name], rel=1e-3), name
