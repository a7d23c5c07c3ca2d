"""Phantom frames on disk: layouts that people and readers open, shards that training maps into memory, clips.

A sequence is the unit of work. Its files are made in a hidden folder and then moved to their places, ground truth
first and pictures last, so that whatever a reader finds is whole. A marker says that a sequence is done; a run that was
killed goes on with the first one that has none, and gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from endolux.errors import UsageError
from endolux.phantom.claim import claimed
from endolux.phantom.disk import digest, os_error, write_bytes
from endolux.phantom.layouts import Layout, View, get_layout
from endolux.phantom.motion import Motion
from endolux.phantom.presets import StreamSettings, merged, settings_of
from endolux.phantom.staging import LIST, marker, publish, stage, write_manifest
from endolux.phantom.staging import MANIFEST as MANIFEST
from endolux.phantom.staging import SCENES as SCENES
from endolux.phantom.streams import sequence
from endolux.phantom.workers import spread
from endolux.phantom.world import WORLD_VERSION, PhantomSettings
from endolux.types import CameraModel

Progress = Callable[[int, int], None]


def layout_settings(layout: Layout, changes: Mapping[str, object], *, preset: str | None = None) -> StreamSettings:
    """Settings for a layout: those of its set, unless others are asked for.

    Args:
        layout: how files will lie.
        changes: settings by name; dictionaries are merged.
        preset: another start than the layout's own.

    Raises:
        UsageError: unknown names, impossible values, or what the layout cannot hold.

    Example:
        >>> from endolux.phantom.layouts import get_layout
        >>> settings = layout_settings(get_layout("servct"), {"width": 64, "height": 48, "frames": 9})
        >>> settings.width, settings.baseline_mm, settings.sequences
        (64, 5.0, 2)
    """
    start = merged(layout.defaults, layout.arrange(changes))
    settings = settings_of(preset or layout.preset, merged(start, changes))
    layout.check(settings)
    return settings


def write_layout(
    settings: StreamSettings,
    folder: Path,
    layout: Layout | None = None,
    *,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> int:
    """Write every frame of the settings in a layout.

    Args:
        settings: what to render.
        folder: new, empty, or left by an interrupted run of the same settings.
        layout: how files lie; Endolux's own folder by default.
        workers: processes; the bytes do not depend on it.
        on_progress: called with (frames done, frames in all).

    Returns:
        the number of frames written by this call.

    Raises:
        UsageError: the folder holds another run or foreign files, cannot be written, or the layout cannot hold the
            settings.
        DeviceError: the disk is full. Finished sequences stay, and the same command goes on from them.
    """
    layout = layout or get_layout("folder")
    layout.check(settings)
    record = {"layout": layout.name, **layout.manifest(), **_identity(settings)}
    with claimed(folder, record):
        jobs = [(settings, folder, layout, number) for number in range(settings.sequences)]
        open_jobs = [job for job in jobs if not marker(folder, job[3]).exists()]
        for number in {job[3] for job in jobs} - {job[3] for job in open_jobs}:
            # A kill may have come between the marker and the end of tidying up.
            shutil.rmtree(stage(folder, number), ignore_errors=True)
        done = settings.frames - sum(settings.length(job[3]) for job in open_jobs)
        kept = done
        if on_progress is not None:
            on_progress(done, settings.frames)
        if open_jobs:
            for name, data in layout.root(settings):
                write_bytes(folder / name, data)
        # A layout may hold what the registry does not know (the folder's outputs), so it travels as it is.
        for number in spread(_write_sequence, open_jobs, workers):
            done += settings.length(number)
            if on_progress is not None:
                on_progress(done, settings.frames)
        if not (folder / MANIFEST).exists() or open_jobs:
            write_manifest(settings, folder, layout, record)
    return done - kept


def write_folder(settings: PhantomSettings, folder: Path, *, workers: int = 1) -> int:
    """Write Endolux's own folder with every output; see :func:`write_layout`."""
    return write_layout(_as_stream(settings), folder, workers=workers)


def write_shards(
    settings: PhantomSettings,
    folder: Path,
    *,
    shard_frames: int = 480,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Write training shards: ``shard-NNNNN/{rgb,depth}.npy`` with ``meta.json`` written last.

    Shards of sequences in motion also have ``sequence.npy`` (number of the sequence of each frame), ``pose.npy`` (4 x 4
    camera-to-world in mm) and ``camera.npy`` (fx, fy, cx, cy in pixels; without distortion; NaN for a fisheye lens).

    ``rgb`` is N x H x W x 3 uint8, ``depth`` N x H x W float16 in mm with 0 where nothing is known. Shards that
    are complete are kept, so an interrupted run continues.

    Raises:
        UsageError: ``shard_frames`` is no multiple of the frames of a sequence, or the folder is another's.
        DeviceError: the disk is full.
    """
    settings = _as_stream(settings)
    if shard_frames % settings.per_sequence:
        raise UsageError(
            f"{shard_frames} frames a shard with {settings.per_sequence} views a scene",
            why="A scene is never split over two shards.",
            fix=f"Use a multiple of {settings.per_sequence}.",
            error_id="phantom.shard-size",
        )
    scenes = shard_frames // settings.per_sequence
    jobs = []
    for shard, start in enumerate(range(0, settings.frames, shard_frames)):
        part = settings.model_copy(
            update={
                "first_scene": settings.first_scene + shard * scenes,
                "frames": min(shard_frames, settings.frames - start),
            }
        )
        jobs.append((part, folder / f"shard-{part.scene(0):07d}"))
    with claimed(folder, {"layout": "shards", **_identity(settings)}):
        done = 0
        for frames in spread(_write_shard, jobs, workers):
            done += frames
            if on_progress is not None:
                on_progress(done, settings.frames)
    return [place for _, place in jobs]


def write_clip(settings: StreamSettings, path: Path, *, on_progress: Progress | None = None) -> None:
    """Encode one continuous sequence as H.264 video.

    Raises:
        UsageError: the file exists already, the frame size is odd, or the settings have no motion.
    """
    import av

    if path.exists():
        raise UsageError(
            f"'{path}' exists already",
            why="Endolux never overwrites files.",
            fix="Choose another -o FILE.mp4.",
            error_id="output.exists",
        )
    if settings.width % 2 or settings.height % 2 or settings.sequences != 1:
        raise UsageError(
            f"A clip cannot be {settings.sequences} sequence(s) of {settings.width}x{settings.height}",
            why="It is one sequence, and H.264 with 4:2:0 colour needs even sides.",
            fix="Use even --width and --height, and a motion with as many sequence frames as frames.",
            error_id="phantom.clip-size",
        )
    partial = path.with_name(f".{path.name}.partial")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=round(settings.fps))
            stream.width, stream.height = settings.width, settings.height
            stream.pix_fmt = "yuv420p"
            # With several threads, and with macroblock-tree rate control on small pictures, the encoder's decisions and
            # so the bytes differ from run to run.
            stream.options = {"crf": "23", "preset": "slow", "threads": "1", "x264-params": "mbtree=0"}
            for shot in sequence(settings, 0):
                picture = av.VideoFrame.from_ndarray(shot.frame.image, format="rgb24")
                container.mux(stream.encode(picture))
                if on_progress is not None:
                    on_progress(shot.position + 1, settings.frames)
            container.mux(stream.encode(None))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise os_error(error, path) from error


def _as_stream(settings: PhantomSettings) -> StreamSettings:
    return settings if isinstance(settings, StreamSettings) else StreamSettings(**settings.model_dump())


def _identity(settings: StreamSettings) -> dict[str, object]:
    return {"world_version": WORLD_VERSION, "settings": settings.model_dump(mode="json")}


def _write_sequence(settings: StreamSettings, folder: Path, layout: Layout, number: int) -> int:
    made = stage(folder, number)
    try:
        if not (made / LIST).exists():
            _render_into(made, settings, layout, number)
        publish(made, folder, number)
    except OSError as error:
        raise os_error(error, folder) from error
    return number


def _render_into(made: Path, settings: StreamSettings, layout: Layout, number: int) -> None:
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    written: list[tuple[str, str]] = []
    views: list[View] = []
    record: dict[str, object] = {"scene": settings.scene(number)}
    drawn: list[dict[str, object]] = []

    def keep(name: str, data: bytes) -> tuple[str, str]:
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name, hashlib.sha256(data).hexdigest()

    for shot in sequence(layout.narrowed(number, settings), number):
        written += [keep(name, data) for name, data in layout.frame(shot, settings)]
        views.append(View(shot.position, shot.pose, shot.camera, shot.baseline_mm))
        record |= shot.scene
        drawn.append({"index": shot.frame.index, "pts_s": shot.frame.pts_s, **shot.view})
    whole = [keep(name, data) for name, data in layout.whole(number, views, settings)]
    files = whole + written
    packed = layout.gather(number, made, [name for name, _ in files], settings)
    spent = {name for names in packed.values() for name in names}
    files = [entry for entry in files if entry[0] not in spent] + [(name, digest(made / name)) for name in packed]
    for name in spent:
        (made / name).unlink()
    name = layout.sequence(number, settings)
    record |= {"sequence": name, "views": drawn}
    content = {"name": name, "frames": len(views), "files": files, "record": record}
    write_bytes(made / LIST, json.dumps(content, default=_plain).encode())


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _write_shard(settings: StreamSettings, folder: Path) -> int:
    if (folder / "meta.json").exists():
        return settings.frames
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shape = (settings.frames, settings.height, settings.width)
        rgb = np.zeros((*shape, 3), np.uint8)
        depth = np.zeros(shape, np.float16)
        poses, cameras = np.zeros((settings.frames, 4, 4)), np.zeros((settings.frames, 4))
        sequences = np.zeros(settings.frames, np.int32)
        index = 0
        for number in range(settings.sequences):
            for shot in sequence(settings, number):
                rgb[index] = shot.frame.image
                depth[index] = np.where(shot.depth.valid, np.minimum(shot.depth.values, 6e4), 0)
                camera = shot.camera
                poses[index], sequences[index] = shot.pose, number
                # Four numbers are no fisheye lens.
                known = camera.model is not CameraModel.FISHEYE
                cameras[index] = (camera.fx, camera.fy, camera.cx, camera.cy) if known else np.nan
                index += 1
        # Plain writes: a full disk under a memory map ends the process instead of saying so.
        np.save(partial / "rgb.npy", rgb)
        np.save(partial / "depth.npy", depth)
        if settings.motion is not Motion.STILL:
            # What a training on video needs to know beside the pictures.
            np.save(partial / "sequence.npy", sequences)
            np.save(partial / "pose.npy", poses)
            np.save(partial / "camera.npy", cameras)
        meta = {
            "width": settings.width,
            "height": settings.height,
            "complete": settings.frames,
            **_identity(settings),
        }
        write_bytes(partial / "meta.json", json.dumps(meta, sort_keys=True).encode())
        partial.replace(folder)
    except OSError as error:
        raise os_error(error, folder) from error
    return settings.frames
