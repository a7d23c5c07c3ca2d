"""What a network of disparity scores under P0, P1 and P2 of EndoSLAM, whose meanings differ more than networks do.

Specification of Surgical Depth Anything, 5.2 and 7.4: tubes, a nearly perfect prediction, and every way to take it.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.cli.root import run

SIZE, VIEWS = 48, 6


def tube(generator: np.random.Generator) -> np.ndarray:
    """Depth along a tube of random radius, seen from beside its axis; 4 to 250 steps of the stored 8 bits."""
    y, x = (np.mgrid[0:SIZE, 0:SIZE] + 0.5) / SIZE - 0.5
    x, y = x + generator.uniform(-0.15, 0.15), y + generator.uniform(-0.15, 0.15)
    depth = 1 / np.maximum(np.hypot(x, y), 0.02)
    return np.clip(depth * generator.uniform(12, 20), 4, 250)


@pytest.fixture(scope="module")
def tubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, generator = tmp_path_factory.mktemp("tubes"), np.random.default_rng(0)
    organ = root / "UnityCam/Stomach"
    for name in ("Frames", "Pixelwise Depths"):
        (organ / name).mkdir(parents=True)
    forms = ("depth", "disparity", "shifted", "flat")
    for form in forms:
        (root / form).mkdir()
    for number in range(VIEWS):
        depth = tube(generator)
        stored = np.rint(depth).astype(np.uint8)
        light = np.clip(4000 / depth, 0, 230).astype(np.uint8)
        cv2.imwrite(str(organ / f"Frames/image_{number:04d}.png"), np.dstack([light] * 3))
        alpha = np.full_like(stored, 255)
        cv2.imwrite(str(organ / f"Pixelwise Depths/aov_image_{number:04d}.png"), np.dstack([stored] * 3 + [alpha]))
        near = stored * np.exp(generator.normal(0, 0.05, depth.shape))
        disparity = 7 / near
        kept = (near, disparity, disparity + 0.3 * disparity.max(), np.ones_like(near))
        for form, values in zip(forms, kept, strict=True):
            np.save(root / form / f"{number:04d}.npy", values.astype(np.float32))
    return root


def scored(tubes: Path, form: str, protocol: str, kind: str, capsys: pytest.CaptureFixture[str]) -> float:
    words = ["evaluate", str(tubes / form), "--data", str(tubes / "UnityCam"), "--protocol", protocol, "--in-order",
             "--prediction-kind", kind, "--json", "-q"]  # fmt: skip
    assert run(words) == 0
    return float(json.loads(capsys.readouterr().out)["metrics"]["abs_rel"]["mean"])


def test_every_way_to_take_a_nearly_perfect_disparity(tubes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disparity, depth = "relative_disparity", "relative_depth"
    found = {
        "depth": scored(tubes, "depth", "endoslam-unity", depth, capsys),
        "constant": scored(tubes, "flat", "endoslam-unity", depth, capsys),
        "p0": scored(tubes, "disparity", "endoslam-unity-p0", disparity, capsys),
        "p1": scored(tubes, "disparity", "endoslam-unity-p1", disparity, capsys),
        "p1 shifted": scored(tubes, "shifted", "endoslam-unity-p1", disparity, capsys),
        "p2": scored(tubes, "disparity", "endoslam-unity-p2", disparity, capsys),
        "p2 shifted": scored(tubes, "shifted", "endoslam-unity-p2", disparity, capsys),
    }
    # 5 % of noise is 0.04 in the mean.
    for name in ("depth", "p1", "p2", "p2 shifted"):
        assert found[name] < 0.06, found
    assert found["p0"] > 1.5 * found["constant"], found
    assert 2 * found["p1"] < found["p1 shifted"] < found["constant"], found
