"""Snippets: which frames are neighbours, where their cameras stand, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from clips import FOCAL, write_clip

from endolux.errors import EndoluxError, InputError, UsageError
from endolux.losses.photometric import photometric_distance
from endolux.losses.visibility import masked_mean
from endolux.losses.warp import warp_by_depth
from endolux.train.corpus import Corpus
from endolux.train.recipe import LeveAugmentation, NoAugmentation, Video, VideoAugmentation, recipe_from
from endolux.train.recipe_data import EndoscopeAugmentation
from endolux.train.snippets import SnippetRule
from endolux.train.sources import ShardSource
from endolux.train.views import augmented
from endolux.types import Camera, CameraModel


def corpus(*sources: object, **video: object) -> Corpus:
    return Corpus([str(source) for source in sources], snippets=SnippetRule.of(Video(**video)))


def fails(error_id: str, *sources: object, **video: object) -> InputError:
    with pytest.raises(InputError) as caught:
        corpus(*sources, **video).clips()
    assert caught.value.error_id == error_id
    assert len(caught.value.lines()) == 3
    return caught.value


def write_video(path: Path, images: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "yuv420p"
        stream.options = {"crf": "10"}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class TestNeighbours:
    def test_cuts_are_kept(self, tmp_path: Path) -> None:
        (clip,) = corpus(write_clip(tmp_path / "a", shots=(4, 2, 5))).clips()
        # 4 - 2 and 5 - 2; a shot of two has no frame with both neighbours.
        assert clip.count == 5
        assert [clip.key(number) for number in range(5)] == ["a/1", "a/2", "a/7", "a/8", "a/9"]

    @pytest.mark.parametrize(("offsets", "count"), [((1,), 8), ((-2, 2), 3), ((-3, -1, 1), 3)])
    def test_offsets(self, tmp_path: Path, offsets: tuple[int, ...], count: int) -> None:
        source = write_clip(tmp_path / "a", shots=(4, 2, 5) if len(offsets) == 1 else (5, 6))
        assert corpus(source, offsets=offsets).clips()[0].count == count

    def test_motions_lead_to_the_neighbours(self, tmp_path: Path) -> None:
        item = corpus(write_clip(tmp_path / "a", step_mm=1.5)).clips()[0].load(0)
        assert item.snippet is not None
        assert item.snippet.motions is not None
        # The camera before stands 1.5 mm to the left: points lie 1.5 mm farther right in it.
        assert item.snippet.motions[:, 0, 3].tolist() == [1.5, -1.5]
        assert item.snippet.matrix[0, 0] == FOCAL

    def test_known_depth_and_motion_rebuild_the_picture(self, tmp_path: Path) -> None:
        item = corpus(write_clip(tmp_path / "a")).clips()[0].load(1)
        for augmentation in (NoAugmentation(), VideoAugmentation(zoom=1.4, flip=0.0, jitter=1.0)):
            row = augmented(item, {}, np.random.default_rng(3), augmentation=augmentation, size=(48, 64))
            assert rebuilt(row) < 0.25 * rebuilt(row, still=True)

    def test_mirrored_snippets_have_mirrored_cameras(self, tmp_path: Path) -> None:
        item = corpus(write_clip(tmp_path / "a")).clips()[0].load(1)
        shifted = np.array([[0, 0, 7], [0, 0, 0], [0, 0, 0]])
        item = dataclasses.replace(
            item, snippet=dataclasses.replace(item.snippet, matrix=item.snippet.matrix + shifted)
        )
        flipped = VideoAugmentation(flip=1.0, jitter=0.0)
        maps = augmented(item, {}, np.random.default_rng(3), augmentation=flipped, size=(64, 64))[3]
        assert maps["intrinsics"][0, 2] == pytest.approx(63 - (31.5 + 7))
        assert np.isnan(maps["motions"]).all()
        item = dataclasses.replace(item, snippet=dataclasses.replace(item.snippet, mirrored=False))
        maps = augmented(item, {}, np.random.default_rng(3), augmentation=flipped, size=(64, 64))[3]
        assert maps["intrinsics"][0, 2] == pytest.approx(31.5 + 7)

    def test_phantom_shards(self, tmp_path: Path) -> None:
        pytest.importorskip("numba")
        from endolux.phantom.presets import settings_of
        from endolux.phantom.write import write_shards

        changes = {"frames": 6, "sequence_frames": 3, "motion": "hover", "fps": 4, "width": 64, "height": 48}
        settings = settings_of("clean", {**changes, "anatomies": {"colon": 1.0}})
        write_shards(settings, tmp_path / "shards", shard_frames=6)
        (clip,) = corpus(tmp_path / "shards", static_below=0.0).clips()
        assert clip.count == 2
        rows = [
            augmented(clip.load(number), {}, np.random.default_rng(0), augmentation=NoAugmentation(), size=(64, 48))
            for number in range(2)
        ]
        assert sum(map(rebuilt, rows)) < 0.8 * sum(rebuilt(row, still=True) for row in rows)

    def test_a_pass_that_began_goes_on(self, tmp_path: Path) -> None:
        data = corpus(write_clip(tmp_path / "a"))
        counts = {clip.name: clip.count for clip in data.clips()}
        assert data.as_counted(counts)[0].count == 4
        with pytest.raises(InputError) as caught:
            data.as_counted({next(iter(counts)): 6})
        assert caught.value.error_id == "train.data-changed"

    def test_single_pictures_are_as_before(self, tmp_path: Path) -> None:
        item = Corpus([str(write_clip(tmp_path / "a"))]).clips()[0].load(0)
        row = augmented(item, {}, np.random.default_rng(0), augmentation=NoAugmentation(), size=None)
        assert row[3] == {}
        assert item.camera is not None
        assert item.pose is not None


def rebuilt(row: tuple, *, still: bool = False) -> float:
    _, _, depth, maps = row
    target, other = (
        torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        for picture in (maps["target"], maps["neighbours"][1])
    )
    motion = torch.eye(4)[None] if still else torch.from_numpy(maps["motions"][1:2])
    k = torch.from_numpy(maps["intrinsics"])[None]
    warped, visible = warp_by_depth(other, torch.from_numpy(depth)[None, None], k, motion)
    return float(masked_mean(photometric_distance(warped, target, kind="l1"), visible.float()))


class TestColours:
    @pytest.mark.parametrize(
        "augmentation", [VideoAugmentation(jitter=1.0), EndoscopeAugmentation(), LeveAugmentation(swap=1.0)]
    )
    def test_equal_frames_stay_equal(self, tmp_path: Path, augmentation: object) -> None:
        item = still_item(tmp_path)
        for seed in range(4):
            _, seen, _, maps = augmented(
                item, {}, np.random.default_rng(seed), augmentation=augmentation, size=(48, 48)
            )
            assert np.array_equal(maps["neighbours_seen"][0], seen)
            assert np.array_equal(maps["neighbours"][1], maps["target"])

    def test_losses_see_no_jitter(self, tmp_path: Path) -> None:
        item = still_item(tmp_path)
        row = augmented(item, {}, np.random.default_rng(1), augmentation=VideoAugmentation(flip=0, jitter=1), size=None)
        assert np.array_equal(row[3]["target"], item.image)
        assert not np.array_equal(row[1], item.image)

    def test_a_draw_for_each_frame(self, tmp_path: Path) -> None:
        settings = VideoAugmentation(jitter=1.0, draw="frame", flip=0.0)
        _, seen, _, maps = augmented(
            still_item(tmp_path), {}, np.random.default_rng(1), augmentation=settings, size=None
        )
        pictures = [seen, *maps["neighbours_seen"]]
        assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in itertools.pairwise(pictures))


def still_item(folder: Path) -> object:
    return corpus(write_clip(folder / "still", step_mm=0.0), static_below=0.0).clips()[0].load(0)


class TestRefused:
    def test_static(self, tmp_path: Path) -> None:
        still, moving = write_clip(tmp_path / "still", step_mm=0.0), write_clip(tmp_path / "moving")
        error = fails("video.static", still)
        assert "still" in error.what
        assert "0.3 grey levels" in error.why
        data = corpus(still, moving)
        assert [clip.label for clip in data.clips()] == ["moving"]
        assert data.notes == ("left out: 'still' (nothing moves)",)
        assert corpus(still, static_below=0.0).clips()[0].count == 4

    def test_too_short(self, tmp_path: Path) -> None:
        short = write_clip(tmp_path / "a", shots=(2, 2))
        assert "3 frames in a row" in fails("video.too-short", short).why
        assert "7 frames in a row" in fails("video.too-short", write_clip(tmp_path / "b"), offsets=(-3, 3)).why
        assert corpus(short, offsets=(1,)).clips()[0].count == 2

    def test_single_views(self, tmp_path: Path) -> None:
        fails("video.no-order", write_clip(tmp_path / "a", tracks=()))

    def test_intrinsics(self, tmp_path: Path) -> None:
        unknown = write_clip(tmp_path / "a", tracks=("sequence",))
        assert "video.intrinsics.file" in fails("video.intrinsics", unknown, intrinsics={"kind": "data"}).fix
        data = corpus(unknown)
        assert data.clips()[0].load(0).snippet.matrix[0].tolist() == [0.82 * 64, 0, 32]
        assert "taken to be fx=0.82" in data.notes[0]
        data = corpus(unknown, intrinsics={"kind": "learned"})
        assert data.clips()
        assert data.notes == ("the intrinsics are learnt with the motion",)
        known = write_clip(tmp_path / "b")
        data = corpus(known, intrinsics={"kind": "constant", "fx": 1.0, "fy": 1.5, "cx": 0.25, "cy": 0.75})
        assert data.clips()[0].load(0).snippet.matrix.tolist() == [[64, 0, 16], [0, 96, 48], [0, 0, 1]]
        camera = Camera(width=128, height=128, fx=90, fy=90, cx=63.5, cy=63.5)
        from endolux.geometry.cameras import save_camera

        save_camera(tmp_path / "camera.json", camera)
        given = corpus(unknown, intrinsics={"kind": "data", "file": tmp_path / "camera.json"})
        assert given.clips()[0].load(0).snippet.matrix[0].tolist() == [45, 0, 31.5]

    def test_fisheye(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fisheye = Camera(
            width=64, height=64, fx=50, fy=50, cx=32, cy=32, model=CameraModel.FISHEYE, distortion=(0.1, 0, 0, 0)
        )
        original = ShardSource.clips
        monkeypatch.setattr(
            ShardSource,
            "clips",
            lambda self: [
                dataclasses.replace(c, load=lambda i, c=c: dataclasses.replace(c.load(i), camera=fisheye))
                for c in original(self)
            ],
        )
        fails("video.camera-model", write_clip(tmp_path / "a"))
        monkeypatch.undo()

    def test_damaged_track(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "a")
        np.save(clip / "pose.npy", np.zeros((2, 4, 4)))
        with pytest.raises(InputError) as caught:
            corpus(clip).clips()
        assert caught.value.error_id == "train.shard"

    def test_offsets_are_checked(self) -> None:
        for offsets in ([], [0, 1], [1, 1]):
            with pytest.raises(UsageError) as caught:
                recipe_from({"name": "a", "steps": 1, "model": {"name": "repdepth"}, "video": {"offsets": offsets}})
            assert caught.value.error_id == "recipe.value"
        with pytest.raises(UsageError):
            recipe_from({"name": "a", "steps": 1, "model": {"name": "repdepth"}, "video": {"flow": False}})
        with pytest.raises(UsageError, match="video"):
            recipe_from({"name": "a", "steps": 1, "model": {"name": "repdepth"}, "task": "video"})

    def test_list(self, tmp_path: Path) -> None:
        listed = tmp_path / "train_files.txt"
        listed.write_text("dataset3/keyframe4\t2  l")
        fails("video.listed", write_clip(tmp_path / "a"), listed=listed)


class TestFootage:
    def images(self, tmp_path: Path, *, step_mm: float = 1.5) -> list[np.ndarray]:
        return list(np.load(write_clip(tmp_path / "made", step_mm=step_mm) / "rgb.npy"))

    def test_frames(self, tmp_path: Path) -> None:
        folder, images = tmp_path / "frames", self.images(tmp_path)
        folder.mkdir()
        for number, image in enumerate(images):
            cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
        data = corpus(f"frames:{folder}")
        item = data.clips()[0].load(2)
        assert np.array_equal(item.image, images[3])
        assert np.array_equal(item.snippet.images[1], images[4])
        assert item.depth is None
        assert data.clips()[0].count == 4
        assert len(data.sha256()) == 64
        cv2.imwrite(str(folder / "3.png"), images[3][:50])
        with pytest.raises(InputError) as caught:
            corpus(f"frames:{folder}").clips()[0].load(1)
        assert caught.value.error_id == "video.frame-sizes"
        assert fails_to_open(f"video:{folder}").error_id == "video.kind"

    def test_video(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "clip.mp4", self.images(tmp_path))
        clip = corpus(f"video:{path}").clips()[0]
        item = clip.load(0)
        assert clip.count == 4
        assert item.image.shape == (64, 64, 3)
        assert len(item.snippet.images) == 2
        assert np.abs(item.image.astype(int) - self.images(tmp_path)[1]).mean() < 6
        assert fails_to_open(f"frames:{path}").error_id == "video.kind"

    def test_paused_video(self, tmp_path: Path) -> None:
        fails("video.static", f"video:{write_video(tmp_path / 'clip.mp4', self.images(tmp_path, step_mm=0.0))}")

    def test_large_pictures_are_kept_small(self, tmp_path: Path) -> None:
        large = [cv2.resize(image, (1280, 960)) for image in self.images(tmp_path)[:3]]
        clip = corpus(f"video:{write_video(tmp_path / 'clip.mp4', large)}").clips()[0]
        assert clip.load(0).image.shape == (480, 640, 3)


def fails_to_open(source: str) -> EndoluxError:
    with pytest.raises(EndoluxError) as caught:
        corpus(source)
    return caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("numba")
    from endolux.phantom.layouts import get_layout
    from endolux.phantom.write import layout_settings, write_layout

    layout = get_layout("scared")
    camera = {"models": {"pinhole": 1}}
    changes = {
        "frames": 8,
        "sequence_frames": 4,
        "width": 80,
        "height": 64,
        "fps": 4.0,
        "scope": {"camera": camera},
    }
    target = tmp_path_factory.mktemp("scared") / "data"
    write_layout(layout_settings(layout, changes), target, layout)
    return target


class TestScared:
    """The layout that the phantom writes, read by the data set's own reader."""

    def test_snippets(self, folder: Path) -> None:
        clips = corpus(f"scared:{folder}", static_below=0.0).clips()
        assert [clip.count for clip in clips] == [2, 2]
        item = clips[0].load(0)
        assert item.key == "scared:dataset1/keyframe1 2 left"
        assert item.depth is not None
        assert item.snippet.motions is not None
        assert np.abs(item.snippet.motions[:, :3, 3]).max() > 0.05
        row = augmented(item, {}, np.random.default_rng(0), augmentation=NoAugmentation(), size=(80, 64))
        assert rebuilt(row) < 0.9 * rebuilt(row, still=True)

    def test_list(self, folder: Path, tmp_path: Path) -> None:
        listed = tmp_path / "train_files.txt"
        # No final newline, as some of the published lists; frame 1 has no neighbour before it.
        listed.write_text("dataset1/keyframe2\t3  l\ndataset1/keyframe1 2 l\ndataset1/keyframe1 1 l")
        clips = corpus(f"scared:{folder}", listed=listed, static_below=0.0).clips()
        assert [[clip.key(i) for i in range(clip.count)] for clip in clips] == [
            ["scared:dataset1/keyframe1 2 left"],
            ["scared:dataset1/keyframe2 3 left"],
        ]
