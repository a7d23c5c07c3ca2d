"""LLSD: coloured masks as maps of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import codes, cut, is_three_lines, key, save

from endolux.datasets import get_protocol, open_dataset
from endolux.datasets.llsd import COLOURS, LlsdDataset
from endolux.errors import InputError
from endolux.train.sources import open_source

HEIGHT, WIDTH = 24, 40


def write(folder: Path, stem: str, classes: np.ndarray | None, *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    save(folder / "images" / f"{stem}.png", np.full((*size, 3), 90, np.uint8))
    (folder / "masks_gt").mkdir(exist_ok=True)
    if classes is not None:
        save(folder / "masks_gt" / f"{stem}_convert.png", np.array(COLOURS, np.uint8)[classes])


def drawn() -> np.ndarray:
    classes = np.zeros((HEIGHT, WIDTH), np.int64)
    classes[4:6], classes[10:12], classes[:, 30:32] = 1, 2, 3
    return classes


def test_colours_become_classes(tmp_path: Path) -> None:
    write(tmp_path / "patient4", "frame_12", drawn())
    write(tmp_path / "patient10", "0003", np.zeros((HEIGHT, WIDTH), np.int64))
    dataset = open_dataset("auto", tmp_path)
    assert dataset.name == "llsd"
    assert list(dataset.keys()) == [key("patient4/frame", 12), key("patient10", 3)]
    sample = dataset.load(key("patient4/frame", 12))
    np.testing.assert_array_equal(sample.labels["landmarks"], drawn())
    assert sample.depth is None
    assert [path.name for path in dataset.files(sample.key)] == ["frame_12.png", "frame_12_convert.png"]
    assert codes(dataset.check()) == {"count.frames", "label.empty"}
    assert get_protocol("llsd").task == "landmarks"
    assert list(get_protocol("llsd").select(dataset.keys(), None)) == list(dataset.keys())


def test_a_mask_of_another_size_follows_the_picture(tmp_path: Path) -> None:
    write(tmp_path, "a_1", drawn(), size=(2 * HEIGHT, 2 * WIDTH))
    landmarks = LlsdDataset(tmp_path).load(key("a", 1)).labels["landmarks"]
    np.testing.assert_array_equal(landmarks, drawn().repeat(2, 0).repeat(2, 1))


def test_missing_masks_and_pictures_are_told(tmp_path: Path) -> None:
    write(tmp_path, "a_1", None)
    write(tmp_path, "a_2", drawn())
    (tmp_path / "images/a_2.png").unlink()
    # The raw annotation beside it is no mask.
    save(tmp_path / "masks_gt/a_1.png", np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    dataset = LlsdDataset(tmp_path)
    assert dataset.load(key("a", 1)).labels == {}
    assert {"label.missing", "image.missing"} <= codes(dataset.check())


@pytest.mark.parametrize("colour", [(255, 255, 255), (254, 0, 0), (255, 255, 0)])
def test_other_colours_are_refused(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    write(tmp_path, "a_1", drawn())
    pixels = np.array(COLOURS, np.uint8)[drawn()]
    pixels[20, :5] = colour
    save(tmp_path / "masks_gt/a_1_convert.png", pixels)
    with pytest.raises(InputError, match=r"1 colours .* on 5 pixels") as caught:
        LlsdDataset(tmp_path).load(key("a", 1))
    assert caught.value.error_id == "dataset.labels"
    assert str(colour) in caught.value.what
    assert is_three_lines(caught.value)
    assert "dataset.labels" in codes(LlsdDataset(tmp_path).check())


def test_damaged_and_ambiguous(tmp_path: Path) -> None:
    write(tmp_path, "a_1", drawn())
    cut(tmp_path / "masks_gt/a_1_convert.png")
    with pytest.raises(InputError):
        LlsdDataset(tmp_path).load(key("a", 1))
    save(tmp_path / "images/a_1.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(InputError) as caught:
        LlsdDataset(tmp_path)
    assert caught.value.error_id == "dataset.ambiguous"


def test_not_there(tmp_path: Path) -> None:
    save(tmp_path / "images/a_1.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError) as caught:
        LlsdDataset(tmp_path)
    assert caught.value.error_id == "dataset.empty"
    with pytest.raises(InputError) as caught:
        LlsdDataset(tmp_path / "images/a_1.png")
    assert caught.value.error_id == "input.not-a-folder"


def test_training_reads_it(tmp_path: Path) -> None:
    write(tmp_path, "a_1", drawn())
    [clip] = open_source(f"llsd:{tmp_path}").clips()
    labels = clip.load(0).labels
    assert labels is not None
    np.testing.assert_array_equal(labels.landmarks, drawn())
