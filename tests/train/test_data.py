"""Shards and batches."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from shards import write_shard

from endolux.errors import InputError
from endolux.train.augment import Augmentation
from endolux.train.data import Position, Samples, Stream, list_shards


def take(data: Path, count: int, **options: object) -> list[tuple[np.ndarray, np.ndarray, Position]]:
    first_step = options.pop("first_step", 0)
    stream = Stream([data], **{"batch": 4, "seed": 3, "augmentation": Augmentation(), **options})
    batches = itertools.islice(stream.batches(first_step=first_step), count)
    return [(batch.images, batch.depths, position) for batch, position in batches]


def test_only_complete_samples_count(data: Path) -> None:
    shards = list_shards([data])
    assert [(shard.folder.name, shard.count) for shard in shards] == [("shard-0", 6), ("shard-1", 5)]
    samples = Samples(shards)
    assert len(samples) == 11
    assert all(samples[index][0].any() for index in range(11))
    expected = np.load(data / "shard-1" / "rgb.npy")[0]
    assert np.array_equal(samples[6][0], expected)
    assert samples[6][1].dtype == np.float32


def test_a_folder_that_is_a_shard_itself(data: Path) -> None:
    assert [shard.count for shard in list_shards([data / "shard-1"])] == [5]


def test_shards_being_written_are_left_alone(data: Path) -> None:
    write_shard(data / ".shard-2.partial", count=3)
    write_shard(data / "shard-3", count=0, room=3)
    assert len(list_shards([data])) == 2


def test_batches_are_the_same_whatever_the_workers(data: Path) -> None:
    for (images, depths, position), (others, other_depths, other) in zip(
        take(data, 7), take(data, 7, workers=2), strict=True
    ):
        assert np.array_equal(images, others)
        assert np.array_equal(depths, other_depths)
        assert position == other


def test_a_pass_takes_each_sample_once(data: Path) -> None:
    truth = np.concatenate([np.load(data / f"shard-{i}" / "rgb.npy")[:n] for i, n in ((0, 6), (1, 5))])
    batches = take(data, 4, augmentation=None)
    for first in (0, 2):
        images = np.concatenate([batches[first][0], batches[first + 1][0]])
        found = [int(np.flatnonzero((truth == image).all(axis=(1, 2, 3)))[0]) for image in images]
        assert len(set(found)) == 8
    assert [position.epoch for *_, position in batches] == [0, 0, 1, 1]


def test_going_on_gives_the_batches_of_an_uninterrupted_run(data: Path) -> None:
    whole = take(data, 7)
    rest = take(data, 4, first_step=3, position=whole[2][2])
    for (images, depths, _), (others, other_depths, _) in zip(whole[3:], rest, strict=True):
        assert np.array_equal(images, others)
        assert np.array_equal(depths, other_depths)


def test_growth_is_seen_after_the_pass_and_not_within(data: Path) -> None:
    stream = Stream([data], batch=4, seed=0, augmentation=None)
    batches = stream.batches()
    _, position = next(batches)
    write_shard(data / "shard-2", count=9, seed=3)
    _, position = next(batches)
    assert sum(position.counts.values()) == 11
    resumed = Stream([data], batch=4, seed=0, augmentation=None, position=position).batches()
    for _ in range(2):
        batch, position = next(batches)
        assert sum(position.counts.values()) == 20
        assert np.array_equal(batch.images, next(resumed)[0].images)


def test_fewer_samples_than_a_batch(data: Path) -> None:
    assert take(data, 2, batch=16)[1][0].shape == (16, 64, 96, 3)


def test_size(data: Path) -> None:
    images, depths, _ = take(data, 1, size=(64, 32))[0]
    assert images.shape == (4, 32, 64, 3)
    assert depths.shape == (4, 32, 64)


def test_resuming_without_the_samples_is_refused(data: Path) -> None:
    stream = Stream([data], batch=4, seed=0, augmentation=None, position=Position(counts={"elsewhere": 4}))
    with pytest.raises(InputError) as caught:
        next(stream.batches())
    assert caught.value.error_id == "train.data-changed"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"complete": "all"}', '{"complete": null}'])
def test_damaged_meta(data: Path, text: str) -> None:
    (data / "shard-0" / "meta.json").write_text(text)
    with pytest.raises(InputError) as caught:
        list_shards([data])
    assert caught.value.error_id == "train.shard"


def _truncate(folder: Path) -> None:
    (folder / "rgb.npy").write_bytes((folder / "rgb.npy").read_bytes()[:3000])


def _remove(folder: Path) -> None:
    (folder / "depth.npy").unlink()


def _pickle(folder: Path) -> None:
    np.save(folder / "depth.npy", np.array([{}], object), allow_pickle=True)


def _wrong_type(folder: Path) -> None:
    np.save(folder / "depth.npy", np.load(folder / "depth.npy").astype(np.float32))


def _overcount(folder: Path) -> None:
    (folder / "meta.json").write_text(json.dumps({"complete": 900}))


@pytest.mark.parametrize("damage", [_truncate, _remove, _pickle, _wrong_type, _overcount])
def test_damaged_arrays(data: Path, damage) -> None:
    damage(data / "shard-0")
    with pytest.raises(InputError) as caught:
        Samples(list_shards([data]))
    assert caught.value.error_id == "train.shard"


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Stream([tmp_path, tmp_path / "absent"], batch=1, seed=0, augmentation=None)
    assert caught.value.error_id == "train.no-data"
