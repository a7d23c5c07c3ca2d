"""SERV-CT written from a slanted plane seen by a rectified pair: Z (1 - 0.2 x) = 80 mm."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from endolux.datasets.base import PROTOCOLS, READERS, FrameKey, Severity
from endolux.datasets.servct import OCCLUSION, ServCT, open_servct
from endolux.errors import InputError, UsageError
from endolux.types import DepthKind

WIDTH, HEIGHT = 36, 24
F, CX, CY, BASELINE = 40.0, 17.0, 11.0, 5.0


def key(index: int, side: str = "left") -> FrameKey:
    return FrameKey(sequence=f"Experiment_{1 if index <= 8 else 2}", index=index, side=side)


def plane(side: str = "left") -> npt.NDArray[np.float64]:
    x = (np.arange(WIDTH) - CX) / F
    # The right camera sits at X = BASELINE: Z = 80 + 0.2 (X' + BASELINE) there.
    return np.tile((80.0 + (0.2 * BASELINE if side == "right" else 0)) / (1 - 0.2 * x), (HEIGHT, 1))


def codes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    return np.rint(values * 256).astype(np.uint16)


def write(root: Path, *, numbers: tuple[int, ...] = (1, 2, 9), opencv_json: bool = True) -> Path:
    for number in numbers:
        folder = root / f"Experiment_{1 if number <= 8 else 2}"
        truth = folder / "Ground_truth_CT"
        for name in ("DepthL", "DepthR", "Disparity", "OcclusionL", "OcclusionR"):
            (truth / name).mkdir(parents=True, exist_ok=True)
        for name in ("Left_rectified", "Right_rectified", "Rectified_calibration"):
            (folder / name).mkdir(exist_ok=True)
        left = codes(plane())
        left[0, 0] = 0
        picture = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
        occlusion = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        occlusion[0, :4] = [(255, 0, 0), (0, 255, 255), (0, 0, 255), (0, 255, 0)]  # BGR: blue, yellow, red, green
        for path, pixels in (
            (folder / "Left_rectified", picture),
            (folder / "Right_rectified", picture + 1),
            (truth / "DepthL", left),
            (truth / "DepthR", codes(plane("right"))),
            (truth / "Disparity", codes(F * BASELINE / plane())),
            (truth / "OcclusionL", occlusion),
            (truth / "OcclusionR", occlusion),
        ):
            assert cv2.imwrite(str(path / f"{number:03d}.png"), pixels)
        p1 = [[F, 0, CX, 0], [0, F, CY, 0], [0, 0, 1, 0]]
        p2 = [[F, 0, CX, -F * BASELINE], [0, F, CY, 0], [0, 0, 1, 0]]
        content: dict[str, object] = {"P1": p1, "P2": p2}
        if opencv_json:
            content = {
                name: {"type_id": "opencv-matrix", "rows": 3, "cols": 4, "dt": "d", "data": np.ravel(matrix).tolist()}
                for name, matrix in (("P1", p1), ("P2", p2))
            }
        (folder / "Rectified_calibration" / f"{number:03d}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("opencv_json", [True, False])
def test_frames_match_the_plane(tmp_path: Path, opencv_json: bool) -> None:
    data = open_servct(write(tmp_path, opencv_json=opencv_json))
    assert list(data.keys()) == [key(n, side) for n in (1, 2, 9) for side in ("left", "right")]
    for side in ("left", "right"):
        sample = data.load(key(9, side))
        assert sample.depth is not None
        assert sample.depth.kind is DepthKind.METRIC
        valid = sample.depth.valid
        assert valid.sum() == WIDTH * HEIGHT - (side == "left")
        assert np.abs(sample.depth.values[valid] - plane(side)[valid]).max() <= 0.5 / 256 + 1e-5
        assert sample.frame.camera is not None
        assert (sample.frame.camera.fx, sample.frame.camera.cx) == (F, CX)
        assert int(sample.frame.image[0, 0, 0]) == 90 + (side == "right")
        assert all(path.is_file() for path in data.files(key(9, side)))
    assert data.baseline_mm(key(1)) == BASELINE


def test_occlusion_colours_become_labels(tmp_path: Path) -> None:
    labels = open_servct(write(tmp_path)).load(key(1)).labels["occlusion"]
    assert [OCCLUSION[c] for c in labels[0, :5]] == ["no-reference", "no-overlap", "occluded", "occluded", "visible"]


def test_disparity_stands_in_for_a_missing_depth(tmp_path: Path) -> None:
    data = open_servct(write(tmp_path))
    (tmp_path / "Experiment_1/Ground_truth_CT/DepthL/002.png").unlink()
    sample = data.load(key(2))
    assert sample.depth is not None
    # Half a disparity code, times dZ/dd = Z^2 / (f B).
    bound = 0.5 / 256 * plane() ** 2 / (F * BASELINE) * 1.01
    assert (np.abs(sample.depth.values - plane()) <= bound).all()
    assert [path.parent.name for path in data.files(key(2))][1] == "Disparity"
    (tmp_path / "Experiment_1/Rectified_calibration/002.json").unlink()
    with pytest.raises(InputError) as caught:
        data.load(key(2))
    assert caught.value.error_id == "servct.calibration"


def test_missing_right_depth_is_an_error_with_its_name(tmp_path: Path) -> None:
    data = open_servct(write(tmp_path))
    (tmp_path / "Experiment_1/Ground_truth_CT/DepthR/002.png").unlink()
    with pytest.raises(InputError, match="DepthR") as caught:
        data.load(key(2, "right"))
    assert caught.value.error_id == "input.missing"


def test_rgb_reference_is_another_one(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError):
        ServCT(tmp_path, reference="RGB")
    folder = tmp_path / "Experiment_2/Ground_truth_RGB/DepthL"
    folder.mkdir(parents=True)
    assert cv2.imwrite(str(folder / "009.png"), codes(plane() + 1))
    data = ServCT(tmp_path, reference="RGB")
    assert {k.sequence for k in data.keys()} == {"Experiment_2"}  # noqa: SIM118
    sample = data.load(key(9))
    assert sample.depth is not None
    assert sample.depth.at(17, 3) == pytest.approx(81.0, abs=1 / 256)
    with pytest.raises(UsageError):
        ServCT(tmp_path, reference="MRI")  # type: ignore[arg-type]


def test_protocols_select_their_pictures(tmp_path: Path) -> None:
    keys = open_servct(write(tmp_path)).keys()
    assert [k.index for k in PROTOCOLS["servct-af"].select(keys, None)] == [1, 2, 9]
    assert len(PROTOCOLS["servct-endoomni"].select(keys, None)) == 6
    assert {PROTOCOLS[n].maximum for n in ("servct-af", "servct-endogede")} == {180.0, 200.0}
    assert PROTOCOLS["servct-af"].expected_frames == 16
    with pytest.raises(UsageError):
        PROTOCOLS["servct-af"].select(keys, tmp_path / "split.txt")


def codes_found(root: Path, severity: Severity | None = None) -> set[str]:
    return {f.code for f in open_servct(root).check() if severity is None or f.severity is severity}


def test_check_of_a_whole_set_is_silent(tmp_path: Path) -> None:
    write(tmp_path, numbers=tuple(range(1, 17)))
    assert open_servct(tmp_path).check() == []


def test_check_sees_missing_wrong_and_inconsistent_files(tmp_path: Path) -> None:
    write(tmp_path)
    assert codes_found(tmp_path) == {"count.frames"}
    truth = tmp_path / "Experiment_1/Ground_truth_CT"
    assert cv2.imwrite(str(truth / "Disparity/001.png"), codes(F * BASELINE / plane() * 1.1))
    assert "depth.inconsistent" in codes_found(tmp_path)
    assert cv2.imwrite(str(truth / "DepthL/002.png"), np.rint(plane()).astype(np.uint16))  # whole mm, not 1/256
    assert "depth.unit" in codes_found(tmp_path, Severity.ERROR)
    assert cv2.imwrite(str(truth / "DepthL/001.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    assert "depth.empty" in codes_found(tmp_path)
    (truth / "DepthR/001.png").write_bytes((truth / "DepthR/001.png").read_bytes()[:60])
    assert "input.truncated" in codes_found(tmp_path, Severity.ERROR)


def test_eight_bits_and_other_sizes_are_refused(tmp_path: Path) -> None:
    data = open_servct(write(tmp_path))
    path = tmp_path / "Experiment_1/Ground_truth_CT/DepthL/001.png"
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 80, np.uint8))
    with pytest.raises(InputError) as bits:
        data.load(key(1))
    assert bits.value.error_id == "dataset.depth-bits"
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH + 1), 80, np.uint16))
    with pytest.raises(InputError) as size:
        data.load(key(1))
    assert size.value.error_id == "dataset.size"


@pytest.mark.parametrize("content", ["{", "{}", '{"P1": [1, 2]}', '{"P1": {"data": null}}'])
def test_bad_calibration(tmp_path: Path, content: str) -> None:
    data = open_servct(write(tmp_path))
    (tmp_path / "Experiment_1/Rectified_calibration/001.json").write_text(content)
    with pytest.raises(InputError):
        data.load(key(1))


def test_paths_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty", "none"):
        with pytest.raises(InputError):
            READERS["servct"](tmp_path / name)
    write(tmp_path / "outer" / "SERV-CT")
    assert len(open_servct(tmp_path / "outer").keys()) == 6
    with pytest.raises(InputError):
        open_servct(tmp_path / "outer").load(key(5))
