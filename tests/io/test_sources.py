"""Sources: what is found where, in which order, and what one bad file does to the rest."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endolux.errors import InputError, UsageError
from endolux.io import sources
from endolux.io.sources import Failure, Source, natural_key, open_source
from endolux.types import Camera, Frame


def write(path: Path, value: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
    image = np.full((size[1], size[0], 3), value, np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def names(source: Source, start: int = 0) -> list[str]:
    return [item.name for item in source.frames(start)]


def refused(source: str | Path, error_id: str) -> InputError:
    with pytest.raises(InputError) as caught:
        open_source(source)
    assert caught.value.error_id == error_id, str(caught.value)
    assert caught.value.exit_code == 3
    return caught.value


def test_one_image(tmp_path: Path) -> None:
    with open_source(write(tmp_path / "a.png", 7)) as source:
        assert (source.kind, source.name, source.count, source.fps) == ("image", "a.png", 1, None)
        (frame,) = source.frames()
        assert isinstance(frame, Frame)
        assert (frame.index, frame.name, frame.pts_s) == (0, "a.png", None)
        assert source.size == (6, 4)
        assert list(source.frames(1)) == []


def test_folder_is_sorted_by_number(tmp_path: Path) -> None:
    for name in ("f10.png", "f9.png", "f010.png", "F2.PNG", "g1.png"):
        write(tmp_path / name)
    source = open_source(tmp_path)
    assert (source.kind, source.name, source.count, source.size) == ("folder", tmp_path.name, 5, None)
    assert names(source) == ["F2.PNG", "f9.png", "f010.png", "f10.png", "g1.png"]
    assert [item.index for item in source.frames()] == [0, 1, 2, 3, 4]


def test_folder_leaves_other_things_out(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "clip.mp4").write_text("x")
    (tmp_path / "folder.png").mkdir()
    write(tmp_path / "folder.png" / "inner.png")
    assert names(open_source(tmp_path)) == ["a.png"]


def test_a_bad_image_is_a_failure_and_counts(tmp_path: Path) -> None:
    for number in (0, 2, 4, 7):
        write(tmp_path / f"{number}.png", number)
    (tmp_path / "1.png").write_text("not a picture")
    (tmp_path / "3.png").touch()
    (tmp_path / "5.png").symlink_to("5.png")
    (tmp_path / "6.png").symlink_to("nowhere")
    items = list(open_source(tmp_path).frames())
    assert [item.index for item in items] == list(range(8))
    failures = {item.index: item.error.error_id for item in items if isinstance(item, Failure)}
    assert failures == {1: "input.not-image", 3: "input.zero-bytes", 5: "input.link-loop", 6: "input.missing"}
    assert [int(item.image[0, 0, 0]) for item in items if isinstance(item, Frame)] == [0, 2, 4, 7]
    assert [item.index for item in open_source(tmp_path).frames(3)] == [3, 4, 5, 6, 7]


def test_a_file_that_vanishes_is_a_failure(tmp_path: Path) -> None:
    write(tmp_path / "0.png")
    write(tmp_path / "1.png")
    source = open_source(tmp_path)
    (tmp_path / "0.png").unlink()
    first, second = source.frames()
    assert isinstance(first, Failure)
    assert isinstance(second, Frame)


def test_one_bad_image_alone_is_raised(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    source = open_source(tmp_path / "a.png")
    with pytest.raises(InputError) as caught:
        list(source.frames())
    assert caught.value.error_id == "input.not-image"


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "input.empty")
    (tmp_path / "empty" / ".hidden.png").touch()
    refused(tmp_path / "empty", "input.empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("x")
    assert "notes.txt" in refused(tmp_path / "texts", "input.no-images").why
    refused(tmp_path / "missing", "input.missing")
    refused(tmp_path / "missing" / "a.mp4", "input.missing")
    refused(f"{tmp_path}/texts/*.png", "input.empty")
    refused(f"{tmp_path}/texts/*", "input.no-images")
    refused("a\0b", "input.missing")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "input.link-loop")
    (tmp_path / "file.txt").write_text("just a text, neither image nor video\n" * 20)
    refused(tmp_path / "file.txt", "input.not-video")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "input.not-a-file")


def test_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(_path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", forbid)
    refused(tmp_path, "input.unreadable")


def test_glob(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in (2, 10):
            write(tmp_path / folder / f"{number}.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    source = open_source(f"{tmp_path}/a/*.png")
    assert (source.kind, source.count) == ("glob", 2)
    assert names(source) == ["2.png", "10.png"]
    assert names(open_source(f"{tmp_path}/a/*")) == ["2.png", "10.png"]
    assert names(open_source(f"{tmp_path}/*/*.png")) == ["a/2.png", "a/10.png", "b/2.png", "b/10.png"]
    assert names(open_source(f"{tmp_path}/**/1?.png")) == ["a/10.png", "b/10.png"]
    assert [item.index for item in open_source(f"{tmp_path}/*/*.png").frames(2)] == [2, 3]


def test_relative_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (2, 10):
        write(tmp_path / f"-{number}.png")
    assert names(open_source("*.png")) == ["-2.png", "-10.png"]
    assert all(isinstance(item, Frame) for item in open_source("*.png").frames())


@pytest.mark.parametrize("name", ["a[1].png", "what?.png", "*.png", "two words.png", "Größe 胃.png", "-o.png"])
def test_a_name_that_exists_is_taken_literally(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    write(tmp_path / "other.png")
    assert names(open_source(name)) == [name]
    (tmp_path / "in [brackets]").mkdir()
    write(tmp_path / "in [brackets]" / name)
    assert names(open_source("in [brackets]")) == [name]


def test_the_content_decides(tmp_path: Path) -> None:
    write(tmp_path / "a.png").rename(tmp_path / "clip.mp4")
    assert open_source(tmp_path / "clip.mp4").kind == "image"


def test_names_that_break_lines_are_escaped(tmp_path: Path) -> None:
    write(tmp_path / "two\nlines\t.png")
    (name,) = names(open_source(tmp_path))
    assert name == "two\\nlines\\t.png"


@pytest.mark.parametrize("address", ["http://host/clip.mp4", "rtsp://host/1", "s3://b/k"])
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(address)
    assert (caught.value.error_id, caught.value.exit_code) == ("input.url", 2)


def test_impossible_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    for limit in (0, -1):
        with pytest.raises(UsageError):
            open_source(tmp_path, limit=limit)
    for source in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(UsageError):
            list(open_source(source).frames(-1))
    with pytest.raises(UsageError):
        open_source("")


def test_limit(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.png")
    source = open_source(tmp_path, limit=3)
    assert source.count == 3
    assert [item.index for item in source.frames(2)] == [2]
    assert open_source(tmp_path, limit=30).count == 5


def test_camera_reaches_every_frame(tmp_path: Path) -> None:
    camera = Camera(width=6, height=4, fx=5, fy=5, cx=2.5, cy=1.5)
    write(tmp_path / "0.png")
    write(tmp_path / "1.png", size=(8, 8))
    first, second = open_source(tmp_path, camera=camera).frames()
    assert isinstance(first, Frame)
    assert first.camera == camera
    assert isinstance(second, Failure)
    assert second.error.error_id == "frame.camera-size"


def test_a_hundred_thousand_files_are_listed_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            assert not follow_symlinks, "following links costs a system call a file"
            return False

    class Listing(list[Entry]):
        def __enter__(self) -> Listing:
            return self

        def __exit__(self, *_: object) -> None:
            return

    order = np.random.default_rng(0).permutation(100_000)
    listing = Listing(Entry(f"frame_{number}.png") for number in order)
    monkeypatch.setattr(sources.os, "scandir", lambda _path: listing)
    source = open_source(tmp_path)
    assert source.count == 100_000
    assert [item.name for item in open_source(tmp_path, limit=3).frames()] == [f"frame_{i}.png" for i in range(3)]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="/\0"), max_size=8), unique=True))
def test_natural_order_is_total_and_independent_of_the_listing(texts: list[str]) -> None:
    expected = sorted(texts, key=natural_key)
    texts.reverse()
    assert sorted(texts, key=natural_key) == expected
    keys = [natural_key(text) for text in expected]
    assert all(a < b for a, b in itertools.pairwise(keys))


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_natural_order_follows_numbers(a: int, b: int) -> None:
    assert (natural_key(f"f{a}.png") < natural_key(f"f{b}.png")) == (a < b)
