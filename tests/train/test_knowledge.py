"""The knowledge cache: right or computed again, whatever happens to its files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pupils import Brightness, pictures

from endolux.errors import DeviceError, InputError, UsageError
from endolux.train import record_files
from endolux.train.knowledge import KnowledgeCache, check_preprocessing
from endolux.train.knowledge_codec import BYTES_PER_PIXEL, Knowledge, decode, encode, pooled
from endolux.train.record_files import RecordFiles
from endolux.types import DepthKind

SIZE = (32, 24)
IMAGES = pictures(12)


def cache(folder: Path, teacher: Brightness | None = None, **options: object) -> KnowledgeCache:
    return KnowledgeCache(folder, teacher or Brightness(), **{"size": SIZE, **options})


def same(first: Knowledge, second: Knowledge) -> bool:
    return (
        np.array_equal(first.map, second.map, equal_nan=True)
        and first.features.keys() == second.features.keys()
        and all(np.array_equal(first.features[name], second.features[name]) for name in first.features)
    )


def record_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.records")
    return path


@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    low=st.floats(-1e6, 1e6),
    span=st.sampled_from([0.0, 1e-6, 0.3, 5.0, 1e6]),
    holes=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_map_comes_back_within_half_a_step(
    seed: int, height: int, width: int, low: float, span: float, holes: float
) -> None:
    generator = np.random.default_rng(seed)
    values = (low + span * generator.random((height, width))).astype(np.float32)
    values[generator.random((height, width)) < holes] = np.nan
    found = decode(encode(Knowledge(map=values))).map
    assert found.shape == values.shape
    assert found.dtype == np.float32
    assert np.array_equal(np.isnan(found), np.isnan(values))
    known = ~np.isnan(values)
    if known.any():
        # Noise takes 8 bits at worst; float32 itself rounds as well.
        reach = float(values[known].max()) - float(values[known].min())
        half_step = reach / 255 / 2 + 4 * np.spacing(np.float32(np.abs(values[known]).max()))
        assert np.abs(found[known].astype(float) - values[known]).max() <= half_step


def test_smooth_maps_take_16_bits_and_noise_never_more_than_the_promised_bytes() -> None:
    y, x = np.mgrid[0:240, 0:320].astype(np.float32)
    smooth = 3 + np.sin(x / 40) * np.cos(y / 30)
    data = encode(Knowledge(map=smooth))
    assert len(data) < 100_000
    assert np.abs(decode(data).map - smooth).max() <= (smooth.max() - smooth.min()) / 131_070 + 1e-6
    noise = np.random.default_rng(0).random((240, 320)).astype(np.float32)
    noise[:20] = np.nan
    data = encode(Knowledge(map=noise))
    assert len(data) <= 100_000 + 100
    assert np.nanmax(np.abs(decode(data).map - noise)) < 1 / 500
    assert BYTES_PER_PIXEL * 240 * 320 == 100_000


def test_features_come_back_within_their_step() -> None:
    generator = np.random.default_rng(1)
    features = {
        "a.b": (generator.normal(size=(5, 7, 9)) * np.arange(5)[:, None, None]).astype(np.float32),
        "c": np.zeros((2, 1, 1), np.float32),
    }
    found = decode(encode(Knowledge(map=np.ones((4, 4), np.float32), features=features))).features
    assert list(found) == ["a.b", "c"]
    for name, feature in features.items():
        largest = np.abs(feature).max(axis=(1, 2), keepdims=True)
        assert (np.abs(found[name] - feature) <= largest / 254 + 1e-7).all()
    assert pooled(features["a.b"], (12, 3)).shape == (5, 7, 3)
    np.testing.assert_allclose(pooled(features["a.b"], (1, 1))[:, 0, 0], features["a.b"].mean(axis=(1, 2)), atol=1e-6)


@given(data=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_garbage_is_no_record(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        return


def test_asked_once_and_read_ever_after(tmp_path: Path) -> None:
    teacher = Brightness(hole=3)
    first = cache(tmp_path, teacher, features=["colours"], feature_grid=(4, 5))
    assert first.find(IMAGES[0]) is None
    answers = [first.get(image) for image in IMAGES]
    assert teacher.asked == len(IMAGES)
    expected = teacher.predict(IMAGES[3], size=SIZE).knowledge()
    assert np.isnan(answers[3].map[:3]).all()
    np.testing.assert_allclose(answers[3].map[3:], expected[3:], atol=255 / 131_000)
    assert answers[3].features["colours"].shape == (3, 4, 5)
    teacher.asked = 0
    # In the same process, in another one, with and without the index, the same bytes.
    for other in (first, cache(tmp_path, teacher, features=["colours"], feature_grid=(4, 5))):
        assert all(same(other.get(image), answer) for image, answer in zip(IMAGES, answers, strict=True))
    first.save_index()
    other = cache(tmp_path, teacher, features=["colours"], feature_grid=(4, 5))
    assert all(same(other.get(image), answer) for image, answer in zip(IMAGES, answers, strict=True))
    assert teacher.asked == 0
    size = other.size()
    assert size.frames == len(IMAGES)
    assert size.bytes_per_frame == size.bytes / len(IMAGES)
    assert size.bytes == record_file(tmp_path).stat().st_size


def test_nothing_is_mistaken_for_anything_else(tmp_path: Path) -> None:
    variants = [
        cache(tmp_path),
        cache(tmp_path, Brightness("1" * 64)),
        cache(tmp_path, Brightness(hole=1)),
        cache(tmp_path, Brightness(kind=DepthKind.METRIC)),
        cache(tmp_path, size=(16, 12)),
        cache(tmp_path, features=["colours"]),
        cache(tmp_path, features=["colours"], feature_grid=(2, 2)),
    ]
    for number, variant in enumerate(variants):
        assert variant.find(IMAGES[0]) is None
        variant.get(IMAGES[0])
        assert len({other.folder for other in variants[: number + 1]}) == number + 1
    turned = np.ascontiguousarray(IMAGES[0].transpose(1, 0, 2))
    assert KnowledgeCache.key(IMAGES[0].reshape(turned.shape)) != KnowledgeCache.key(IMAGES[0])
    changed = IMAGES[0].copy()
    changed[0, 0, 0] ^= 1
    assert variants[0].find(changed) is None
    with pytest.raises(UsageError, match="colour"):
        cache(tmp_path, features=["colour"])


def test_a_depth_teacher_becomes_inverse_depth(tmp_path: Path) -> None:
    teacher = Brightness(kind=DepthKind.METRIC)
    answer = cache(tmp_path, teacher).get(IMAGES[0]).map
    depth = teacher.predict(IMAGES[0], size=SIZE).map
    np.testing.assert_allclose(answer, 1 / depth, atol=(1 / depth).max() / 131_000)


@pytest.mark.parametrize("indexed", [False, True])
def test_any_flipped_bit_is_noticed(tmp_path: Path, indexed: bool) -> None:
    teacher = Brightness()
    whole = cache(tmp_path, teacher)
    answers = [whole.get(image) for image in IMAGES[:4]]
    whole.save_index()
    path, index = record_file(tmp_path), next(tmp_path.rglob("index"))
    good, good_index = path.read_bytes(), index.read_bytes()
    generator = np.random.default_rng(0)
    for number in range(60):
        bit = int(generator.integers(8 * len(good)))
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        if indexed:
            index.write_bytes(good_index)
        else:
            index.unlink(missing_ok=True)
        teacher.asked = 0
        again = cache(tmp_path, teacher)
        assert all(same(again.get(image), answer) for image, answer in zip(IMAGES[:4], answers, strict=True)), bit
        assert teacher.asked == 1, bit
        again.save_index()
        # And what was computed again is found by the next.
        teacher.asked = 0
        after = cache(tmp_path, teacher)
        assert all(same(after.get(image), answer) for image, answer in zip(IMAGES[:4], answers, strict=True))
        assert teacher.asked == 0, number
        for other in tmp_path.rglob("*.records"):
            if other != path:
                other.unlink()


def test_a_flipped_bit_in_the_index_costs_a_walk_only(tmp_path: Path) -> None:
    teacher = Brightness()
    whole = cache(tmp_path, teacher)
    answers = [whole.get(image) for image in IMAGES[:3]]
    whole.save_index()
    index = next(tmp_path.rglob("index"))
    good = index.read_bytes()
    for place in range(0, len(good), 5):
        index.write_bytes(good[:place] + bytes([good[place] ^ 64]) + good[place + 1 :])
        again = cache(tmp_path, teacher)
        assert all(same(again.get(image), answer) for image, answer in zip(IMAGES[:3], answers, strict=True))
    for end in (0, 3, 8, 20, len(good) - 1):
        index.write_bytes(good[:end])
        assert len(list(cache(tmp_path, teacher)._records.keys())) == 3
    assert teacher.asked == 3


def test_cut_off_at_any_byte(tmp_path: Path) -> None:
    teacher = Brightness()
    whole = cache(tmp_path, teacher)
    answers = [whole.get(image) for image in IMAGES[:3]]
    path = record_file(tmp_path)
    good = path.read_bytes()
    third = len(good) // 3
    for end in [*range(0, len(good), 97), len(good) - 1]:
        path.write_bytes(good[:end])
        teacher.asked = 0
        again = cache(tmp_path, teacher)
        assert all(same(again.get(image), answer) for image, answer in zip(IMAGES[:3], answers, strict=True))
        assert 3 - end // third - 1 <= teacher.asked <= 3 - (end - 60) // third
        for other in tmp_path.rglob("*.records"):
            if other != path:
                other.unlink()


def test_a_file_that_shrinks_or_vanishes_under_a_reader(tmp_path: Path) -> None:
    teacher = Brightness()
    first = cache(tmp_path, teacher)
    answer = first.get(IMAGES[0])
    first.save_index()
    record_file(tmp_path).unlink()
    assert same(cache(tmp_path, teacher).get(IMAGES[0]), answer)
    assert teacher.asked == 2


def test_records_of_another_shape_are_not_used(tmp_path: Path) -> None:
    teacher = Brightness()
    mine = cache(tmp_path, teacher)
    mine._records.put(KnowledgeCache.key(IMAGES[0]), encode(Knowledge(map=np.ones((3, 3), np.float32))))
    mine._records.put(KnowledgeCache.key(IMAGES[1]), b"no record at all")
    assert mine.get(IMAGES[0]).map.shape == (24, 32)
    assert mine.get(IMAGES[1]).map.shape == (24, 32)
    assert teacher.asked == 2
    assert mine.size().damaged == 2


def test_parts_of_a_filling_do_not_overlap(tmp_path: Path) -> None:
    reports = []
    for rank in range(3):
        teacher = Brightness()
        seen: list[tuple[int, int, int]] = []
        own = cache(tmp_path, teacher)
        reports.append(
            own.fill(12, lambda i: IMAGES[i], part=(rank, 3), on_progress=lambda *a, seen=seen: seen.append(a))
        )
        assert [done for done, _, _ in seen] == [1, 2, 3, 4]
        assert seen[-1] == (4, 4, 4)
    assert [report.computed for report in reports] == [4, 4, 4]
    assert reports[-1].size.frames == 12
    assert cache(tmp_path).fill(12, lambda i: IMAGES[i]).computed == 0


def test_one_reader_sees_what_another_process_adds(tmp_path: Path) -> None:
    early, late = cache(tmp_path, Brightness()), cache(tmp_path, Brightness())
    for image in IMAGES[:4]:
        late.get(image)
    assert early.find(IMAGES[0]) is None
    early._refreshed_s -= 10
    early.get(IMAGES[0])
    assert early.teacher.asked == 0
    late.get(IMAGES[5])
    early._refreshed_s -= 10
    early.get(IMAGES[5])
    assert early.teacher.asked == 0


def test_threads_share_a_cache(tmp_path: Path) -> None:
    teacher = Brightness()
    shared, alone = cache(tmp_path / "a", teacher), cache(tmp_path / "b")
    expected = [alone.get(image) for image in IMAGES]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(shared.get, IMAGES * 5))
    assert all(same(answer, expected[i % len(IMAGES)]) for i, answer in enumerate(found))
    assert shared.size().frames == len(IMAGES)
    assert threading.active_count() < 20


SLOW_FILL = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pupils import Brightness, pictures
from endolux.train.knowledge import KnowledgeCache
teacher = Brightness()
cache = KnowledgeCache(Path(sys.argv[1]), teacher, size=(32, 24))
def load(index, images=pictures(500)):
    time.sleep(0.002)
    return images[index]
print("ready", flush=True)
sys.stdin.readline()
print(cache.fill(500, load).computed, teacher.asked, flush=True)
"""


def test_two_processes_fill_at_once_and_one_is_killed(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SLOW_FILL, str(tmp_path), str(Path(__file__).parent)]
    fillers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with fillers[0] as victim, fillers[1] as survivor:
        assert [filler.stdout.readline() for filler in fillers] == ["ready\n"] * 2
        for filler in fillers:
            filler.stdin.write("\n")
            filler.stdin.flush()
        time.sleep(0.25)
        os.kill(victim.pid, signal.SIGKILL)
        computed, asked = map(int, survivor.stdout.read().split())
        assert survivor.wait(60) == 0
    assert computed == asked <= 500
    teacher, images = Brightness(), pictures(500)
    after, fresh = cache(tmp_path, teacher), cache(tmp_path / "fresh")
    assert after.size().frames == 500
    assert all(same(after.get(image), fresh.get(image)) for image in images[::17])
    assert len({path.name for path in tmp_path.rglob("*.records") if "fresh" not in str(path)}) == 2
    # Everything that only the survivor wrote gone, the victim's part is still good, and the rest is computed again.
    largest = max(after.folder.glob("*.records"), key=lambda path: path.stat().st_size)
    largest.unlink()
    again = cache(tmp_path, teacher)
    there = again.size().frames
    assert 10 < there < 500
    teacher.asked = 0
    assert again.fill(500, lambda index: images[index]).computed == 500 - there == teacher.asked


@pytest.mark.parametrize("room", [0, 20, 400, 3000])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    teacher = Brightness()
    mine = cache(tmp_path, teacher)
    answer = mine.get(IMAGES[0])
    left = [room]
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: left[0]]
        left[0] -= len(taken)
        return write(descriptor, taken)

    with monkeypatch.context() as patch:
        patch.setattr(record_files.os, "write", full)
        with pytest.raises(DeviceError) as caught:
            mine.fill(12, lambda index: IMAGES[index])
    assert caught.value.error_id == "knowledge.disk-full"
    assert "teacher.cache" in caught.value.fix
    # What was there before is, and the cut-off record is not.
    for reader in (mine, cache(tmp_path, teacher)):
        assert same(reader.get(IMAGES[0]), answer)
        assert reader.size().bytes == record_file(tmp_path).stat().st_size
    before = cache(tmp_path, teacher).size().frames
    assert mine.fill(12, lambda index: IMAGES[index]).computed == 12 - before


def test_a_really_full_file_system() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    files = RecordFiles(Path("/nowhere"))
    descriptor = os.open("/dev/full", os.O_WRONLY)
    files._writer = (os.getpid(), descriptor, "x.records")
    with pytest.raises(DeviceError, match="disk is full"):
        files.put(b"k" * 32, b"payload")
    assert b"k" * 32 not in files


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Brightness()
    first = cache(tmp_path, teacher)
    answers = [first.get(image) for image in IMAGES]
    open_ = os.open

    def refused(path: object, flags: int, *arguments: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, flags, *arguments)

    # A privileged user may write to any folder, so the refusal is played.
    monkeypatch.setattr(record_files.os, "open", refused)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    reader = cache(tmp_path, teacher)
    teacher.asked = 0
    assert all(same(reader.get(image), answer) for image, answer in zip(IMAGES, answers, strict=True))
    assert reader.fill(12, lambda index: IMAGES[index]).computed == 0
    with pytest.raises(UsageError) as caught:
        reader.get(pictures(1, seed=9)[0])
    assert caught.value.error_id == "knowledge.not-writable"
    assert caught.value.exit_code == 2


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError):
        cache(tmp_path / "cache").get(IMAGES[0])


def test_large_stores_roll_over_to_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_ROLL_BYTES", 4000)
    teacher = Brightness()
    mine = cache(tmp_path, teacher)
    mine.fill(12, lambda index: IMAGES[index])
    assert len(list(tmp_path.rglob("*.records"))) > 1
    again = cache(tmp_path, teacher)
    assert again.fill(12, lambda index: IMAGES[index]).computed == 0


def test_a_teacher_that_gives_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        cache(tmp_path, Brightness(hole=24)).get(IMAGES[0])
    assert caught.value.error_id == "knowledge.not-finite"
    # A bundle says nothing about a black frame, and may.
    silent = cache(tmp_path, Brightness(kind=DepthKind.METRIC, hole=24)).get(IMAGES[0])
    assert np.isnan(silent.map).all()


def test_preprocessing_that_disagrees_is_refused() -> None:
    class Square(Brightness):
        def squeezes(self, width: int, height: int) -> float:
            return height / width

    check_preprocessing(Brightness(), picture_size=(640, 480), training_size=(320, 240))
    check_preprocessing(Square(), picture_size=(640, 480), training_size=(240, 240))
    with pytest.raises(UsageError) as caught:
        check_preprocessing(Square(), picture_size=(640, 480), training_size=(320, 240))
    assert caught.value.error_id == "distillation.preprocessing"
    assert "640x480" in caught.value.what
    with pytest.raises(UsageError, match="disagree"):
        check_preprocessing(Brightness(), picture_size=(640, 480), training_size=(240, 240))
