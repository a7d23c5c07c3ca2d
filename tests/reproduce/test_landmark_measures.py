"""Masks on pictures of the liver: what they score, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from endolux.errors import InputError
from endolux.reproduce.job import LANDMARK_PROTOCOL, ScoredSet
from endolux.reproduce.landmark_measures import Labels, Masks, measure_landmarks
from endolux.reproduce.landmark_names import LANDMARK_METRICS
from endolux.reproduce.metric_names import METRICS
from endolux.reproduce.results import Score
from train.landmark_pictures import write_l3d


class Drawn:
    """Answers from a list, one picture after the other."""

    def __init__(self, answers: list[Labels], *, reads_depth: bool = False) -> None:
        self.size = (answers[0].shape[1], answers[0].shape[0])
        self.reads_depth = reads_depth
        self._answers = iter(answers)

    def mask(self, image, inverse_depth=None) -> Labels:
        assert image.shape == (self.size[1], self.size[0], 3)
        assert (inverse_depth is not None) is self.reads_depth
        if inverse_depth is not None:
            assert inverse_depth.shape == image.shape[:2]
            assert 0.07 < float(inverse_depth.min()) < float(inverse_depth.max()) == 1.0
        return next(self._answers)


def truths(root: Path) -> list[Labels]:
    from endolux.datasets import open_dataset

    dataset = open_dataset("l3d", root)
    return [np.asarray(dataset.load(key).labels["landmarks"], np.uint8) for key in dataset.keys()]  # noqa: SIM118


def score(root: Path, answers: list[Labels], *, scene_frames: int = 0) -> Score:
    test = ScoredSet(role="scenes", reader="l3d", path=root, protocol=LANDMARK_PROTOCOL, scene_frames=scene_frames)
    return measure_landmarks(Drawn(answers), test)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_l3d(tmp_path / "set", split="Test", patients=2, frames=2)


def test_truth_is_perfect(root: Path) -> None:
    found = score(root, truths(root))
    assert isinstance(Drawn(truths(root)), Masks)
    assert (found.entries, found.failed, found.unit) == (4, 0, "px")
    assert found.counts == {"ridge": 4, "silhouette": 4, "ligament": 0, "none": 0}
    for name in ("pooled_dsc", "pooled_iou", "macro_dsc", "dsc_ridge", "iou_silhouette", "d2gpland_iou"):
        assert found.metrics[name] == pytest.approx(1.0)
    for name in ("assd", "assd_ridge", "miss_rate", "srft_galore_assd", "d2gpland_plus_assd"):
        assert found.metrics[name] == 0.0
    # Nobody can be right or wrong about a class that is nowhere.
    assert found.metrics["dsc_ligament"] is None
    assert set(found.metrics) == set(LANDMARK_METRICS) <= set(METRICS)
    assert all(len(values) == 2 for values in found.scenes.values())


def test_nothing_drawn_is_missed_and_has_no_distance(root: Path) -> None:
    found = score(root, [np.zeros_like(each) for each in truths(root)])
    assert found.metrics["pooled_dsc"] == found.metrics["macro_iou"] == 0.0
    assert found.metrics["miss_rate"] == 1.0
    assert found.metrics["assd"] is None
    assert found.metrics["d2gpland_plus_assd"] == 80.0


def test_distances_are_pixels_and_mixed_up_classes_show(root: Path) -> None:
    moved = [np.roll(each, 3, axis=0) for each in truths(root)]
    found = score(root, moved)
    # Three rows up or down, two of four surface rows of a band of five or six overlap.
    assert 1.0 < (found.metrics["assd_ridge"] or 0.0) <= 3.0
    swapped = [np.array([0, 2, 1, 3], np.uint8)[each] for each in truths(root)]
    mixed = score(root, swapped)
    assert mixed.metrics["pooled_dsc"] == 0.0
    assert (mixed.metrics["assd"] or 0.0) > 20.0
    # The published distance of the background sees nothing of it.
    assert mixed.metrics["srft_galore_assd"] == 0.0


def test_scenes_are_counted_in_frames_or_by_sequence(root: Path) -> None:
    answers = truths(root)
    answers[0] = np.zeros_like(answers[0])
    assert score(root, answers).scenes["pooled_dsc"] == pytest.approx([0.5, 1.0])
    assert score(root, answers, scene_frames=1).scenes["pooled_dsc"] == pytest.approx([0.0, 1.0, 1.0, 1.0])


def test_pictures_without_landmarks_and_damaged_ones_are_counted(root: Path) -> None:
    answers = truths(root)
    label = root / "Test/labels/Patient_0001_00000.json"
    label.write_text(json.dumps({**json.loads(label.read_text()), "shapes": []}))
    (root / "Test/images/Patient_0001_00001.jpg").write_bytes(b"no picture")
    (root / "Test/labels/Patient_0002_00000.json").unlink()
    found = score(root, [np.zeros_like(answers[0]), answers[3]])
    assert (found.entries, found.failed) == (2, 2)
    assert found.counts["none"] == 1
    assert found.metrics["pooled_dsc"] == pytest.approx(1.0)
    assert found.metrics["d2gpland_dsc"] == pytest.approx(1.0)


def test_no_picture_at_all(root: Path) -> None:
    for label in (root / "Test/labels").iterdir():
        label.unlink()
    with pytest.raises(InputError) as caught:
        score(root, [np.zeros((8, 8), np.uint8)])
    assert caught.value.error_id == "evaluate.all-failed"


def test_a_network_that_reads_depth_gets_it(root: Path) -> None:
    test = ScoredSet(role="scenes", reader="l3d", path=root, protocol=LANDMARK_PROTOCOL)
    answers = truths(root)
    assert measure_landmarks(Drawn(answers, reads_depth=True), test).metrics["pooled_dsc"] == pytest.approx(1.0)
    (root / "Test/depth_AdelaiDepth/Patient_0001_00000.png").unlink()
    assert measure_landmarks(Drawn(answers[1:], reads_depth=True), test).failed == 1


def test_only_the_test_part_is_scored(root: Path) -> None:
    write_l3d(root, split="Train", patients=1, frames=3)
    test = truths(root)[-4:]
    assert score(root, test).entries == 4
