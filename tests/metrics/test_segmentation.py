"""Segmentation: closed forms, MONAI and scipy as references, the published variants."""

import importlib.util
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from endolux.errors import UsageError
from endolux.metrics import (
    EmptyMaskWarning,
    assd,
    assd_as_published,
    dsc,
    hd95,
    iou,
    overlap_as_published,
    segmentation_scores,
    summarise_segmentation,
)

labels = hnp.arrays(np.uint8, (9, 11), elements=st.integers(0, 3))


def random_labels(seed, shape=(40, 50), width=3):
    """Three wandering bands, as landmarks are."""
    rng = np.random.default_rng(seed)
    out = np.zeros(shape, np.int64)
    for number in (1, 2, 3):
        centre = shape[0] * number / 4 + np.cumsum(rng.normal(0, 0.5, shape[1]))
        out[np.abs(np.arange(shape[0])[:, None] - centre) < width] = number
    return out


def disc(x0, y0, radius=8, shape=(40, 50)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (x - x0) ** 2 + (y - y0) ** 2 <= radius**2


def test_closed_forms():
    square, shifted = np.zeros((2, 20, 20), bool)
    square[5:15, 5:15] = True
    shifted[5:15, 7:17] = True
    assert dsc(square, shifted) == pytest.approx(0.8)
    assert iou(square, shifted) == pytest.approx(80 / 120)
    row = np.zeros((30, 40), bool)
    row[10] = True
    for step in (1, 5, 12):
        assert assd(row, np.roll(row, step, axis=0)) == step
        assert hd95(row, np.roll(row, step, axis=0), spacing=0.25) == step / 4


@given(hnp.arrays(np.bool_, (6, 7)), hnp.arrays(np.bool_, (6, 7)))
@pytest.mark.filterwarnings("ignore::endolux.metrics.EmptyMaskWarning")
def test_symmetric_and_consistent(a, b):
    for measure in (dsc, iou, assd, hd95):
        assert measure(a, b) == pytest.approx(measure(b, a), nan_ok=True)
        assert measure(a[::-1].T, b[::-1].T) == pytest.approx(measure(a, b), nan_ok=True)
    value = dsc(a, b)
    assert iou(a, b) == pytest.approx(value / (2 - value), nan_ok=True)
    if a.any():
        assert (dsc(a, a), iou(a, a), assd(a, a), hd95(a, a)) == (1, 1, 0, 0)


def test_empty_masks():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    for measure in (dsc, iou, assd, hd95):
        with pytest.warns(EmptyMaskWarning):
            assert math.isnan(measure(empty, empty))
    assert (dsc(empty, full), iou(empty, full)) == (0, 0)
    for measure in (assd, hd95):
        for variant in (None, "medpy"):
            with pytest.warns(EmptyMaskWarning):
                assert math.isnan(measure(empty, full, reproduce=variant))


def surfaces(mask):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    structure = ndimage.generate_binary_structure(mask.ndim, 1)
    return mask & ~ndimage.binary_erosion(mask, structure)


def directed(a, b):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    return ndimage.distance_transform_edt(~surfaces(b))[surfaces(a)]


@pytest.mark.parametrize("seed", range(3))
def test_against_scipy(seed):
    truth, prediction = random_labels(seed) == 2, random_labels(seed + 10) == 2
    there, back = directed(prediction, truth), directed(truth, prediction)
    assert assd(prediction, truth) == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-9)
    assert assd(prediction, truth, reproduce="medpy") == pytest.approx((there.mean() + back.mean()) / 2, abs=1e-9)
    assert hd95(prediction, truth) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
    assert hd95(prediction, truth, reproduce="medpy") == pytest.approx(
        np.percentile(np.concatenate([there, back]), 95), abs=1e-9
    )


def test_the_two_combinations_differ_when_one_surface_is_long():
    small, large = disc(10, 10, 2), disc(25, 20, 15)
    assert abs(assd(small, large) - assd(small, large, reproduce="medpy")) > 1


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("monai", "torch")), reason="MONAI is the reference (extra dev)"
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_against_monai():
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics import (
            compute_average_surface_distance,
            compute_dice,
            compute_hausdorff_distance,
            compute_iou,
        )
    for seed in range(3):
        truth, prediction = random_labels(seed), random_labels(seed + 20, width=4)
        one_hot = [
            torch.from_numpy(np.stack([m == n for n in range(4)])[None].astype(np.float32)) for m in (prediction, truth)
        ]
        reference = {
            "dsc": compute_dice(*one_hot, include_background=False),
            "iou": compute_iou(*one_hot, include_background=False),
            "assd": compute_average_surface_distance(*one_hot, symmetric=True),
            "hd95": compute_hausdorff_distance(*one_hot, percentile=95),
        }
        found = segmentation_scores(prediction, truth)
        for name, values in reference.items():
            ours = [getattr(found.classes[number], name) for number in (1, 2, 3)]
            assert ours == pytest.approx(values[0].numpy().astype(float), rel=1e-5), name


@settings(deadline=None)
@given(labels, labels)
def test_pooled_overlap_is_that_of_the_stacked_masks(prediction, truth):
    stacks = [np.concatenate([m == n for n in (1, 2, 3)]) for m in (prediction, truth)]
    found = segmentation_scores(prediction, truth).pooled
    if stacks[0].any() or stacks[1].any():
        assert found.dsc == pytest.approx(dsc(*stacks))
        assert found.iou == pytest.approx(iou(*stacks))
    else:
        assert math.isnan(found.dsc)
    assert (found.predicted, found.true) == (stacks[0].sum(), stacks[1].sum())


@settings(deadline=None, max_examples=30)
@given(labels, labels, st.permutations([1, 2, 3]))
def test_renaming_the_classes_renames_the_scores(prediction, truth, order):
    names = np.array([0, *order], np.uint8)
    base, renamed = segmentation_scores(prediction, truth), segmentation_scores(names[prediction], names[truth])
    for number in (1, 2, 3):
        a, b = base.classes[number], renamed.classes[int(names[number])]
        for name in ("dsc", "iou", "assd", "hd95"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), nan_ok=True)
    assert renamed.pooled.assd == pytest.approx(base.pooled.assd, nan_ok=True)


def test_class_mix_up_is_seen_by_the_correct_form_only():
    truth = random_labels(0, (120, 160), width=4)
    moved = np.roll(truth, 1, axis=0)
    mixed = np.array([0, 2, 3, 1])[moved]
    assert overlap_as_published(moved, truth)[0] > 0.8
    straight, wrong = segmentation_scores(moved, truth), segmentation_scores(mixed, truth)
    assert straight.pooled.assd < 1.5
    assert wrong.pooled.assd > 20
    assert wrong.pooled.dsc < 0.05
    # In the volume the right place lies a slice or two away; against the background nothing has changed.
    assert assd_as_published(mixed, truth, reproduce="d2gpland-plus") < 2
    assert assd_as_published(mixed, truth, reproduce="srft-galore") == assd_as_published(
        moved, truth, reproduce="srft-galore"
    )


def test_overlap_as_published():
    truth, prediction = random_labels(0), random_labels(1)
    p, t = (np.stack([m == n for n in (1, 2, 3)]).astype(float) for m in (prediction, truth))
    dice = (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)
    assert overlap_as_published(prediction, truth) == pytest.approx((dice, dice / (2 - dice)), abs=1e-12)
    empty = np.zeros_like(truth)
    assert overlap_as_published(empty, empty) == (1.0, 1.0)
    assert overlap_as_published(empty, truth)[0] == pytest.approx(0, abs=1e-6)
    assert segmentation_scores(prediction, truth).pooled.dsc == pytest.approx(dice, abs=1e-6)


def test_published_volume_distance():
    truth, prediction = random_labels(2), random_labels(5)
    prediction[prediction == 3] = 0
    p, t = (np.stack([m == n for n in (1, 2, 3)]) for m in (prediction, truth))
    expected = (directed(p, t).mean() + directed(t, p).mean()) / 2
    assert assd_as_published(prediction, truth, reproduce="d2gpland-plus") == pytest.approx(expected, abs=1e-9)
    assert assd_as_published(0 * truth, truth, reproduce="d2gpland-plus") == 80.0
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(assd_as_published(truth, 0 * truth, reproduce="d2gpland-plus"))


def background_reference(prediction, truth, spacing):
    """Length elements on pixel corners, corner by corner, with the table of DeepMind's surface-distance."""
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    half, side = 0.5 * math.hypot(spacing, spacing), spacing
    table = [0, half, half, side, half, side, 2 * half, half, half, 2 * half, side, half, side, half, half, 0]
    codes = []
    for mask in (prediction, truth):
        padded = np.pad(mask, ((0, 1), (0, 1))).astype(int)
        codes.append(ndimage.correlate(padded, np.array([[8, 4], [2, 1]]), mode="constant", cval=0))
    lengths = [np.array(table)[code] for code in codes]
    borders = [(code != 0) & (code != 15) for code in codes]
    maps = [ndimage.distance_transform_edt(~border, sampling=(spacing, spacing)) for border in borders]
    there = (maps[1] * lengths[0])[borders[0]].sum() / lengths[0][borders[0]].sum()
    back = (maps[0] * lengths[1])[borders[1]].sum() / lengths[1][borders[1]].sum()
    return (there + back) / 2


@pytest.mark.parametrize("seed", range(3))
def test_published_background_distance_and_its_factor_of_ten(seed):
    truth, prediction = random_labels(seed), random_labels(seed + 7)
    prediction[:5, :9] = 1  # touches the frame, and makes corners of every kind
    prediction[20, 20] = prediction[21, 21] = 0
    found = assd_as_published(prediction, truth, reproduce="srft-galore")
    assert found == pytest.approx(background_reference(prediction == 0, truth == 0, 10.0), abs=1e-6)
    assert found == pytest.approx(10 * background_reference(prediction == 0, truth == 0, 1.0), abs=1e-6)
    with pytest.warns(EmptyMaskWarning, match="no background"):
        assert math.isnan(assd_as_published(np.ones_like(truth), truth, reproduce="srft-galore"))


def test_summary_counts_misses_and_false_alarms():
    a = np.zeros((6, 12), int)
    a[1, :], a[3, :], a[5, :] = 1, 2, 3
    two = np.where(a == 3, 0, a)
    one = np.where(a == 1, a, 0)
    images = [segmentation_scores(two, a), segmentation_scores(a, two), segmentation_scores(one, one)]
    with pytest.warns(EmptyMaskWarning, match="1 of 4"):
        found = summarise_segmentation([*images, segmentation_scores(0 * a, 0 * a)])
    third = found.classes[3]
    assert (third.miss_rate, third.images, third.dsc, third.distances) == (1.0, 1, 0.0, 0)
    assert third.false_alarm_rate == pytest.approx(1 / 3)
    assert math.isnan(third.assd)
    assert (found.classes[1].dsc, found.classes[1].miss_rate, found.classes[1].images) == (1, 0, 3)
    assert found.macro_dsc == pytest.approx(2 / 3)
    assert (found.assd, found.pairs, found.images, found.empty) == (0.0, 5, 4, 1)
    assert found.pooled_dsc == pytest.approx((0.8 + 0.8 + 1) / 3)
    # The mean of IoU is not the IoU of the mean.
    assert found.pooled_iou == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found.miss_rate == pytest.approx(1 / 6)
    assert found.false_alarm_rate == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("call", "error_id"),
    [
        (lambda: segmentation_scores(np.zeros((2, 2)), np.zeros((2, 2), int)), "metrics.labels"),
        (lambda: segmentation_scores(np.zeros((2, 2), int), np.zeros((2, 3), int)), "metrics.shape"),
        (lambda: segmentation_scores(np.zeros((2, 2), int), np.zeros((2, 2), int), classes=(0, 1)), "metrics.labels"),
        (lambda: segmentation_scores(np.zeros((2, 2), int), np.zeros((2, 2), int), classes=(1, 1)), "metrics.labels"),
        (lambda: dsc(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)), "metrics.mask"),
        (lambda: assd(np.ones((2, 2), bool), np.ones((2, 2), bool), reproduce="medpi"), "metrics.name"),
        (lambda: hd95(np.ones((2, 2), bool), np.ones((2, 2), bool), reproduce="monai"), "metrics.name"),
        (
            lambda: assd_as_published(np.ones((2, 2), int), np.ones((2, 2), int), reproduce="d2gpland"),
            "metrics.name",
        ),
        (lambda: summarise_segmentation([]), "metrics.labels"),
    ],
)
def test_refusals(call, error_id):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.error_id == error_id
