"""Sources, batches, and what is held out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from shards import write_shard

from endolux.errors import EndoluxError, InputError, UsageError
from endolux.train.data import Corpus, Place, Position, Reader, Samples, Stream, draw_held_out, held_out_batches
from endolux.train.recipe import EndoscopeAugmentation, LeveAugmentation, NoAugmentation
from endolux.train.sources import list_shards, open_source


def stream(data: Path, **options: object) -> Stream:
    return Stream(Corpus([str(data)]), **{"batch": 4, "seed": 3, "augmentation": EndoscopeAugmentation(), **options})


def take(data: Path, count: int, **options: object) -> list[tuple[np.ndarray, np.ndarray, Position]]:
    first_step = options.pop("first_step", 0)
    batches = itertools.islice(stream(data, **options).batches(first_step=first_step), count)
    return [(batch.images, batch.depths, position) for (batch,), position in batches]


def write_images(folder: Path, count: int, *, size: tuple[int, int] = (96, 64), sequence: str = "a") -> Path:
    generator = np.random.default_rng(count)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = generator.integers(20, 230, (size[1], size[0], 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{sequence}_{index}.png"), image)
        np.save(folder / f"{sequence}_{index}_depth.npy", generator.uniform(10, 90, (size[1], size[0])).astype("f4"))
    return folder


def test_only_complete_samples_count(data: Path) -> None:
    shards = list_shards([data])
    assert [(shard.folder.name, shard.count) for shard in shards] == [("shard-0", 6), ("shard-1", 5)]
    samples = Samples([shard.clip() for shard in shards])
    assert len(samples) == 11
    assert all(samples[index].image.any() for index in range(11))
    assert np.array_equal(samples[6].image, np.load(data / "shard-1" / "rgb.npy")[0])
    assert samples[6].depth.dtype == np.float32
    assert [samples.key(index) for index in (5, 6)] == ["shard-0/5", "shard-1/0"]


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
    batches = take(data, 4, augmentation=NoAugmentation())
    for first in (0, 2):
        images = np.concatenate([batches[first][0], batches[first + 1][0]])
        found = [int(np.flatnonzero((truth == image).all(axis=(1, 2, 3)))[0]) for image in images]
        assert len(set(found)) == 8
    assert [position.epoch for *_, position in batches] == [0, 0, 1, 1]
    assert [position.ends(4) for *_, position in batches] == [False, True, False, True]
    assert stream(data).steps_per_epoch() == 2


@pytest.mark.parametrize("augmentation", [EndoscopeAugmentation(), LeveAugmentation(), NoAugmentation()])
@pytest.mark.parametrize(("world", "micro"), [(2, 1), (1, 2), (2, 2)])
def test_processes_and_micro_batches_share_one_big_batch(
    data: Path, augmentation: EndoscopeAugmentation | LeveAugmentation | NoAugmentation, world: int, micro: int
) -> None:
    total = 2 * world * micro
    ((whole, position),) = itertools.islice(stream(data, batch=total, augmentation=augmentation).batches(), 1)
    rows = []
    for rank in range(world):
        place = Place(rank=rank, world=world, micro=micro)
        ((parts, other),) = itertools.islice(stream(data, batch=2, place=place, augmentation=augmentation).batches(), 1)
        assert len(parts) == micro
        assert other == position
        rows.append(parts)
    joined = np.concatenate([rows[rank][number].images for number in range(micro) for rank in range(world)])
    assert np.array_equal(joined, whole[0].images)
    keys = [key for number in range(micro) for rank in range(world) for key in rows[rank][number].keys]
    assert tuple(keys) == whole[0].keys


def test_going_on_gives_the_batches_of_an_uninterrupted_run(data: Path) -> None:
    whole = take(data, 7)
    rest = take(data, 4, first_step=3, position=whole[2][2])
    for (images, depths, _), (others, other_depths, _) in zip(whole[3:], rest, strict=True):
        assert np.array_equal(images, others)
        assert np.array_equal(depths, other_depths)


def test_growth_is_seen_after_the_pass_and_not_within(data: Path) -> None:
    batches = stream(data, seed=0, augmentation=NoAugmentation()).batches()
    _, position = next(batches)
    write_shard(data / "shard-2", count=9, seed=3)
    _, position = next(batches)
    assert sum(position.counts.values()) == 11
    resumed = stream(data, seed=0, augmentation=NoAugmentation(), position=position).batches()
    for _ in range(2):
        (batch,), position = next(batches)
        assert sum(position.counts.values()) == 20
        assert np.array_equal(batch.images, next(resumed)[0][0].images)


def test_fewer_samples_than_a_batch(data: Path) -> None:
    assert take(data, 2, batch=16)[1][0].shape == (16, 64, 96, 3)


@pytest.mark.parametrize("augmentation", [EndoscopeAugmentation(), LeveAugmentation(), NoAugmentation()])
def test_size(data: Path, augmentation: EndoscopeAugmentation | LeveAugmentation | NoAugmentation) -> None:
    images, depths, _ = take(data, 1, size=(64, 32), augmentation=augmentation)[0]
    assert images.shape == (4, 32, 64, 3)
    assert depths.shape == (4, 32, 64)


def test_extras_follow_the_picture(data: Path) -> None:
    def extras(image: np.ndarray, _key: str) -> dict[str, np.ndarray]:
        return {"red": image[..., 0].astype(np.float32), "small": image[::8, ::8].transpose(2, 0, 1).astype("f4")}

    calm = LeveAugmentation(flip=0.5, swap=0.0)
    for mirror in (True, False):
        opened = stream(data, augmentation=calm, extras=extras, mirror_extras=mirror)
        ((batch,), _), ((other,), _) = itertools.islice(opened.batches(), 2)
        same = [
            np.array_equal(red, image[..., 0])
            for part in (batch, other)
            for red, image in zip(part.extras["red"], part.images, strict=True)
        ]
        assert all(same) is mirror
        assert any(same)
        assert batch.extras["small"].shape == (4, 3, 8, 12)


def test_resuming_without_the_samples_is_refused(data: Path) -> None:
    with pytest.raises(InputError) as caught:
        next(stream(data, position=Position(counts={"elsewhere": 4})).batches())
    assert caught.value.error_id == "train.data-changed"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"complete": "all"}', '{"complete": null}'])
def test_damaged_meta(data: Path, text: str) -> None:
    (data / "shard-0" / "meta.json").write_text(text)
    with pytest.raises(InputError) as caught:
        Corpus([str(data)]).clips()
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
        Corpus([str(data)]).clips()
    assert caught.value.error_id == "train.shard"


def test_no_data(tmp_path: Path) -> None:
    for sources in ([], [str(tmp_path)], [str(tmp_path / "absent")]):
        with pytest.raises(InputError) as caught:
            Corpus(sources)
        assert caught.value.error_id == "train.no-data"


def test_an_unknown_reader() -> None:
    with pytest.raises(UsageError) as caught:
        open_source("scard:/data")
    assert caught.value.error_id == "dataset.name"
    assert "'scared'" in caught.value.fix


@pytest.mark.parametrize("source", ["folder:{}", "auto:{}", "{}"])
def test_any_data_set(tmp_path: Path, source: str) -> None:
    folder = write_images(tmp_path / "pictures", 5)
    clips = Corpus([source.format(folder)]).clips()
    assert sum(clip.count for clip in clips) == 5
    item = clips[0].load(0)
    assert item.image.shape == (64, 96, 3)
    assert item.key.startswith("folder:")
    assert item.depth.min() >= 10
    truth = cv2.imread(str(folder / "a_0.png"))[..., ::-1]
    assert any(np.array_equal(Samples(clips)[index].image, truth) for index in range(5))


def test_data_sets_and_shards_together(data: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pictures", 5)
    corpus = Corpus([str(data), f"folder:{folder}"])
    opened = Stream(corpus, batch=16, seed=0, augmentation=LeveAugmentation(), size=(64, 32))
    ((batch,), _) = next(opened.batches())
    assert len(set(batch.keys)) == 16
    assert sum(key.startswith("folder:") for key in batch.keys) == 5
    assert len(corpus.sha256()) == 64
    before = corpus.sha256()
    assert before == Corpus([f"folder:{folder}", str(data)]).sha256()
    write_shard(data / "shard-0", count=6, seed=9)
    assert before != corpus.sha256()


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pictures", 2)
    write_images(folder, 2, size=(64, 32), sequence="b")
    corpus = Corpus([f"folder:{folder}"])
    with pytest.raises(InputError) as caught:
        next(Stream(corpus, batch=4, seed=0, augmentation=NoAugmentation()).batches())
    assert caught.value.error_id == "train.size"


def test_unreadable_pictures_are_named_counted_and_limited(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pictures", 6)
    for name in ("a_1.png", "a_4.png"):
        (folder / name).write_bytes(b"nothing")
    corpus = Corpus([f"folder:{folder}"])
    told: list[str] = []
    reader = Reader(limit=2, needs_depth=True, on_unreadable=lambda name, _why: told.append(name))
    opened = Stream(corpus, batch=6, seed=0, augmentation=NoAugmentation(), reader=reader)
    batches = list(itertools.islice(opened.batches(), 3))
    assert all(len(batch.images) == 6 for (batch,), _ in batches)
    assert len(told) == 2
    assert set(told) == set(reader.unreadable)
    assert not set(told) & {key for (batch,), _ in batches for key in batch.keys}
    again = Stream(corpus, batch=6, seed=0, augmentation=NoAugmentation(), reader=Reader(limit=2, needs_depth=True))
    assert [b.keys for (b,), _ in itertools.islice(again.batches(), 3)] == [b.keys for (b,), _ in batches]
    strict = Stream(corpus, batch=6, seed=0, augmentation=NoAugmentation(), reader=Reader(limit=1, needs_depth=True))
    with pytest.raises(InputError) as caught:
        next(strict.batches())
    assert caught.value.error_id == "train.unreadable"
    assert caught.value.what.startswith("2 samples")
    assert "a_1.png" in caught.value.what or "a_4.png" in caught.value.what


def test_held_out_sequences_are_whole_and_the_same(tmp_path: Path) -> None:
    for number in range(8):
        write_shard(tmp_path / f"shard-{number}", count=2, seed=number)
    drawn = draw_held_out([str(tmp_path)], 0.25)
    assert len(drawn) == 2
    assert drawn == draw_held_out([str(tmp_path)], 0.25)
    corpus = Corpus([str(tmp_path)], held_out=drawn)
    kept, trained = corpus.kept(), corpus.clips()
    assert {clip.name for clip in kept} == set(drawn)
    assert len(trained) == 6
    assert not {clip.name for clip in kept} & {clip.name for clip in trained}
    ((batch,), _) = next(Stream(corpus, batch=12, seed=0, augmentation=NoAugmentation()).batches())
    assert not any(key.split("/")[0] in {clip.label for clip in kept} for key in batch.keys)
    reader = Reader(limit=0, needs_depth=True)
    batches = list(held_out_batches(kept, batch=3, size=(32, 32), limit=None, reader=reader))
    assert [len(b.images) for b in batches] == [3, 1]
    limited = list(held_out_batches(kept, batch=3, size=None, limit=2, reader=reader))
    assert [key for b in limited for key in b.keys] == [f"{kept[0].label}/0", f"{kept[1].label}/0"]


def test_one_sequence_cannot_be_parted(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", count=2)
    with pytest.raises(InputError) as caught:
        draw_held_out([str(tmp_path)], 0.5)
    assert caught.value.error_id == "train.hold-out"
    with pytest.raises(EndoluxError) as caught:
        Corpus([str(tmp_path)], held_out=[str(tmp_path / "shard")]).clips()
    assert caught.value.error_id == "train.no-data"
