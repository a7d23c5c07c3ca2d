"""Content area: every outline, what must not fool it, and stability over a clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.prep import content_area
from endolux.prep.content_area import ContentArea, ContentAreaTracker, find_content_area, is_black


def tissue(width: int, height: int, *, seed: int = 0) -> np.ndarray:
    """Smooth reddish texture, nowhere darker than 40."""
    generator = np.random.default_rng(seed)
    noise = generator.random((height // 16 + 2, width // 16 + 2)).astype(np.float32)
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    red = 60 + 140 * np.clip(noise, 0, 1)
    return np.stack([red, 0.5 * red, 0.4 * red], axis=-1).astype(np.uint8)


def masked(mask: np.ndarray, *, black: int = 0, seed: int = 0) -> np.ndarray:
    image = tissue(mask.shape[1], mask.shape[0], seed=seed)
    noise = np.random.default_rng(seed).integers(0, 3, image.shape).astype(np.uint8)
    return np.where(mask[:, :, None], image, noise + np.uint8(black)).astype(np.uint8)


def disc(width: int, height: int, cx: float, cy: float, rx: float, ry: float | None = None) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x - cx) / rx) ** 2 + ((y - cy) / (ry or rx)) ** 2 <= 1


def octagon(width: int, height: int, box: tuple[int, int, int, int], cut: int) -> np.ndarray:
    left, top, box_width, box_height = box
    mask = np.zeros((height, width), np.uint8)
    right, bottom = left + box_width - 1, top + box_height - 1
    corners = [(left + cut, top), (right - cut, top), (right, top + cut), (right, bottom - cut)]
    corners += [(right - cut, bottom), (left + cut, bottom), (left, bottom - cut), (left, top + cut)]
    cv2.fillPoly(mask, [np.array(corners)], 1)
    return mask > 0


def overlap(area: ContentArea, mask: np.ndarray) -> float:
    found = area.mask(mask.shape[1], mask.shape[0])
    return float((found & mask).sum() / (found | mask).sum())


def outside(area: ContentArea, mask: np.ndarray) -> float:
    """Share of the surround that was called valid."""
    found = area.mask(mask.shape[1], mask.shape[0])
    return float((found & ~mask).sum() / mask.size)


SHAPES = {
    "circle": ("circle", disc(1280, 720, 640, 360, 330)),
    "circle-truncated": ("circle", disc(1280, 720, 610, 380, 560)),
    "circle-small-image": ("circle", disc(320, 240, 150, 120, 105)),
    "circle-1080": ("circle", disc(1920, 1080, 860, 560, 500)),
    "ellipse": ("circle", disc(720, 576, 360, 288, 330, 260)),
    "octagon": ("octagon", octagon(640, 528, (0, 0, 640, 528), 118)),
    "octagon-inset": ("octagon", octagon(720, 576, (60, 20, 600, 536), 100)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("black", [0, 16])
def test_finds_outline(name: str, black: int) -> None:
    shape, mask = SHAPES[name]
    area = find_content_area(masked(mask, black=black))
    assert area.shape == shape
    assert overlap(area, mask) > 0.97
    assert outside(area, mask) < 0.005


@pytest.mark.parametrize(
    "box", [(160, 0, 960, 720), (0, 90, 1280, 540), (101, 53, 1003, 607), (0, 0, 1180, 720), (0, 7, 1280, 713)]
)
def test_bars_to_the_pixel(box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    mask = np.zeros((720, 1280), bool)
    mask[top : top + height, left : left + width] = True
    area = find_content_area(masked(mask))
    assert area.shape == "rectangle"
    assert area.bbox == box
    assert area.is_plain
    assert np.array_equal(area.mask(1280, 720), mask)


@pytest.mark.parametrize("size", [(1280, 720), (320, 320), (17, 9), (4, 4), (1, 1), (1, 300), (5000, 3)])
def test_full(size: tuple[int, int]) -> None:
    area = find_content_area(np.full((size[1], size[0], 3), 90, np.uint8))
    assert area.shape == "full"
    assert area.bbox == (0, 0, *size)
    assert area.mask(*size).all()


@pytest.mark.parametrize("level", [0, 3, 16])
@pytest.mark.parametrize("size", [(1280, 720), (1, 1), (7, 300)])
def test_black_is_none(level: int, size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), level, np.uint8)
    area = find_content_area(image)
    assert area.shape == "none"
    assert is_black(image)
    assert not area.mask(*size).any()
    assert area.bbox == (0, 0, 0, 0)


def test_text_and_icons_in_the_surround() -> None:
    mask = disc(1280, 720, 720, 360, 340)
    image = masked(mask)
    for row in range(6):
        place = (20, 60 + 40 * row)
        cv2.putText(image, "ID 123456 23:59", place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    cv2.rectangle(image, (40, 600), (110, 670), (0, 200, 255), -1)
    cv2.rectangle(image, (1180, 30), (1240, 90), (255, 255, 255), -1)
    area = find_content_area(image)
    assert area.shape == "circle"
    assert overlap(area, mask) > 0.97
    assert not area.mask(1280, 720)[600:670, 40:110].any()


def test_text_over_the_edge_of_an_octagon() -> None:
    mask = octagon(622, 529, (0, 0, 622, 529), 115)
    image = masked(mask)
    for row in range(4):
        cv2.putText(image, "15/03/2012", (2, 60 + 30 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (230, 230, 230), 1)
    area = find_content_area(image)
    assert area.shape == "octagon"
    assert overlap(area, mask) > 0.97


def test_black_guide_in_the_corner_is_invalid() -> None:
    mask = octagon(622, 529, (0, 0, 622, 529), 140)
    image = masked(mask)
    image[360:, :200] = 0
    area = find_content_area(image)
    valid = area.mask(622, 529)
    assert not valid[380:, :190].any()
    assert valid[200:340, 20:600].all()


def test_dark_lumen_stays_inside() -> None:
    for cx, cy in ((640, 360), (1200, 100), (640, 715), (5, 300)):
        image = tissue(1280, 720)
        image[disc(1280, 720, cx, cy, 130)] = 1
        valid = find_content_area(image).mask(1280, 720)
        assert valid.mean() > 0.99, (cx, cy)


def test_dark_lumen_at_the_edge_of_a_circle() -> None:
    mask = disc(1280, 720, 640, 360, 330)
    image = masked(mask)
    image[disc(1280, 720, 900, 450, 110) & mask] = 2
    assert overlap(find_content_area(image), mask) > 0.97


def test_dim_irregular_edge_is_tissue() -> None:
    """A laparoscope in a dark cavity: one side is black, with a ragged border that no mask of an instrument has."""
    image = tissue(1280, 720)
    ragged = (300 + 120 * np.sin(np.arange(720) / 60.0) + 60 * np.sin(np.arange(720) / 17.0)).astype(int)
    for row, end in enumerate(ragged):
        image[row, :end] = image[row, :end] // 16
    assert find_content_area(image).mask(1280, 720).mean() > 0.98


def test_dark_exposure() -> None:
    mask = disc(1280, 720, 640, 360, 330)
    image = (masked(mask) // 5).astype(np.uint8)
    assert overlap(find_content_area(image), mask) > 0.96


def test_scaled_mask() -> None:
    area = find_content_area(masked(disc(1280, 720, 640, 360, 330)))
    small = area.mask(320, 180)
    large = area.mask(1280, 720)
    assert abs(small.mean() - large.mean()) < 0.005
    assert not large.flags.writeable


@pytest.mark.parametrize("shape", ["circle", "octagon-inset"])
def test_large_masks_are_made_in_bands(shape: str) -> None:
    area = find_content_area(masked(SHAPES[shape][1]))
    width, height = 5 * area.size[0], 5 * area.size[1]
    large = area.mask(width, height)
    assert np.array_equal(large[2::5, 2::5], area.mask(*area.size))


def test_same_image_same_area() -> None:
    image = masked(SHAPES["octagon"][1])
    assert find_content_area(image) == find_content_area(image.copy())


def test_random_images_never_fail() -> None:
    generator = np.random.default_rng(3)
    for _ in range(150):
        width, height = (int(value) for value in generator.integers(1, 400, 2))
        image = np.zeros((height, width, 3), np.uint8)
        for _ in range(int(generator.integers(0, 6))):
            x, y, radius = (int(value) for value in generator.integers(0, 400, 3))
            colour = tuple(int(value) for value in generator.integers(0, 255, 3))
            cv2.circle(image, (x, y), radius // 2 + 1, colour, -1)
        area = find_content_area(image)
        mask = area.mask(width, height)
        left, top, box_width, box_height = area.bbox
        if area.shape == "none":
            assert not mask.any()
            continue
        assert left >= 0
        assert top >= 0
        assert left + box_width <= width
        assert top + box_height <= height
        assert box_width >= 1
        assert box_height >= 1
        assert not mask[:, :left].any()
        assert not mask[top + box_height :].any()


class TestTracker:
    def test_steady_over_a_clip(self) -> None:
        mask = disc(640, 360, 320, 180, 165)
        tracker = ContentAreaTracker(every=5)
        areas = []
        for index in range(80):
            image = masked(mask, seed=index % 7)
            # A dark lumen wanders over the edge.
            image[disc(640, 360, 320 + 150 * np.cos(index / 9), 180 + 150 * np.sin(index / 9), 60) & mask] = 1
            areas.append(tracker.update(image))
        assert len(set(areas[6:])) == 1
        assert overlap(areas[-1], mask) > 0.97

    def test_black_frames_change_nothing(self) -> None:
        mask = disc(640, 360, 320, 180, 165)
        tracker = ContentAreaTracker()
        black = np.zeros((360, 640, 3), np.uint8)
        assert tracker.update(black).shape == "none"
        assert tracker.area is None
        first = tracker.update(masked(mask))
        assert tracker.update(black).shape == "none"
        assert tracker.update(masked(mask)) == first

    def test_follows_a_change_of_the_picture(self) -> None:
        wide, narrow = np.ones((360, 640), bool), disc(640, 360, 320, 180, 165)
        for first, second in ((wide, narrow), (narrow, wide)):
            tracker = ContentAreaTracker(every=3)
            for index in range(20):
                tracker.update(masked(first, seed=index))
            for index in range(60):
                area = tracker.update(masked(second, seed=index))
            assert overlap(area, second) > 0.97

    def test_one_flash_is_ignored(self) -> None:
        mask = disc(640, 360, 320, 180, 165)
        tracker = ContentAreaTracker(every=3)
        steady = [tracker.update(masked(mask, seed=index)) for index in range(30)][-1]
        tracker.update(np.full((360, 640, 3), 255, np.uint8))
        assert tracker.update(masked(mask)) == steady

    def test_new_size_starts_anew(self) -> None:
        tracker = ContentAreaTracker()
        tracker.update(tissue(640, 360))
        assert tracker.update(tissue(320, 240)).size == (320, 240)

    def test_initial_area_is_kept(self) -> None:
        mask = disc(640, 360, 320, 180, 165)
        initial = find_content_area(masked(mask))
        assert ContentAreaTracker(initial=initial).update(masked(mask, seed=4)) == initial

    def test_looks_rarely_once_it_knows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks: list[int] = []
        fit = content_area.find_in_brightness
        monkeypatch.setattr(content_area, "find_in_brightness", lambda plane: (looks.append(1), fit(plane))[1])
        image = masked(disc(320, 180, 160, 90, 82))
        tracker = ContentAreaTracker()
        for _ in range(206):
            tracker.update(image)
        assert 6 <= len(looks) < 40


REAL = {
    "c3vd_phantom/c3v4/test/ours_7000/gt/00003.png": ("full", 1.0),
    "c3vd_phantom/sigmoid/test/ours_7000/gt/00003.png": ("full", 1.0),
    "simcol3d_10frames/FrameBuffer_0004.png": ("full", 1.0),
    "endoslam_unity_stomach/eval_frame/image_0046.png": ("circle", 0.925),
    "kvasir_seg_5/images/cju0qkwl35piu0993l0dewei2.jpg": ("octagon", 0.917),
    "kvasir_seg_5/images/cju0qoxqj9q6s0835b43399p4.jpg": ("octagon", 0.924),
    "kvasir_seg_5/images/cju0qx73cjw570799j4n5cjze.jpg": ("octagon", 0.912),
    "kvasir_seg_5/images/cju0roawvklrq0799vmjorwfv.jpg": ("octagon", 0.929),
    "kvasir_seg_5/images/cju0rx1idathl0835detmsp84.jpg": ("octagon", 0.796),
    "segcol_colonoscopy_clips/Seq_003_59280/imgs/frame_0000.png": ("octagon", 0.890),
    "sinus_sfm_seq13/00004584.jpg": ("circle", 0.413),
    "sinus_sfm_seq13/00004600.jpg": ("circle", 0.415),
    "human_liver_laparoscopy_image0232/image0232.png": ("circle", 0.667),
    "p2ilf_liver_landmarks/2D_imageLabel_metrics/image_labels_GT/P2ILF22_patient1_12.jpg": ("rectangle", 0.995),
    "capsule_mirocam_checkerboard/MiroCam/pad_Mirocam_calib_2mm__7.jpg": ("circle", 0.841),
    "laparoscope_stereo_chessboard/left-1095-undistorted.png": ("full", 1.0),
    "laparoscope_stereo_chessboard/right-1095-undistorted.png": ("full", 1.0),
    "synthetic_liver_stereo_mesh/synthetic-left.png": ("full", 1.0),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_frames(name: str, shared_data: Path) -> None:
    """Outline as judged by eye on the drawn result."""
    image = cv2.imread(str(shared_data / name), cv2.IMREAD_COLOR)
    assert image is not None
    shape, share = REAL[name]
    area = find_content_area(np.ascontiguousarray(image[:, :, ::-1]))
    assert area.shape == shape
    assert area.mask(image.shape[1], image.shape[0]).mean() == pytest.approx(share, abs=0.015)
