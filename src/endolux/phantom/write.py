"""Phantom frames on disk: layouts that people and readers open, shards that training maps into memory, clips.

A sequence is the unit of work. Its files are made in a hidden folder and then moved to their places, ground truth
first and pictures last, so that whatever a reader finds is whole. A marker says that a sequence is done; a run that was
killed goes on with the first one that has none, and gives the same bytes.
"""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from endolux.errors import DeviceError, EndoluxError, InputError, UsageError, from_os_error
from endolux.phantom.layouts import Layout, View, get_layout
from endolux.phantom.motion import Motion
from endolux.phantom.presets import StreamSettings, merged, settings_of
from endolux.phantom.streams import sequence
from endolux.phantom.world import WORLD_VERSION, PhantomSettings
from endolux.types import CameraModel

MANIFEST = "manifest.json"
"""Written last: settings, seed, world version, quantisation, sequences, and the SHA-256 of every file."""

SCENES = "scenes.jsonl"
"""A line a sequence: every parameter that was drawn for its scene, its motion and each of its views."""

_RECORD = "settings.json"
_HIDDEN = ".phantom"
_LIST = "files.json"

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
    with _claimed(folder, record):
        jobs = [(settings, folder, layout, number) for number in range(settings.sequences)]
        open_jobs = [job for job in jobs if not _marker(folder, job[3]).exists()]
        for number in {job[3] for job in jobs} - {job[3] for job in open_jobs}:
            # A kill may have come between the marker and the end of tidying up.
            shutil.rmtree(_stage(folder, number), ignore_errors=True)
        done = settings.frames - sum(settings.length(job[3]) for job in open_jobs)
        kept = done
        if on_progress is not None:
            on_progress(done, settings.frames)
        if open_jobs:
            for name, data in layout.root(settings):
                _write_bytes(folder / name, data)
        for number in _each(open_jobs, workers):
            done += settings.length(number)
            if on_progress is not None:
                on_progress(done, settings.frames)
        if not (folder / MANIFEST).exists() or open_jobs:
            _write_manifest(settings, folder, layout, record)
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
    with _claimed(folder, {"layout": "shards", **_identity(settings)}):
        done = 0
        for frames in _map(_write_shard, jobs, workers):
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
        raise _os_error(error, path) from error


def _as_stream(settings: PhantomSettings) -> StreamSettings:
    return settings if isinstance(settings, StreamSettings) else StreamSettings(**settings.model_dump())


def _identity(settings: StreamSettings) -> dict[str, object]:
    return {"world_version": WORLD_VERSION, "settings": settings.model_dump(mode="json")}


def _each(jobs: list[tuple[StreamSettings, Path, Layout, int]], workers: int) -> Iterator[int]:
    # A layout may hold what the registry does not know (the folder's outputs), so it travels as it is.
    return _map(_write_sequence, jobs, workers)


def _map(function: Callable[..., int], jobs: Sequence[tuple[object, ...]], workers: int) -> Iterator[int]:
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield function(*job)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DeviceError(
                "A worker process was killed",
                why="The operating system ends processes when memory runs out.",
                fix="Run the same command again with a smaller -j; what is finished is kept.",
                error_id="phantom.worker",
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _write_sequence(settings: StreamSettings, folder: Path, layout: Layout, number: int) -> int:
    stage = _stage(folder, number)
    try:
        if not (stage / _LIST).exists():
            _render_into(stage, settings, layout, number)
        _publish(stage, folder, number)
    except OSError as error:
        raise _os_error(error, folder) from error
    return number


def _render_into(stage: Path, settings: StreamSettings, layout: Layout, number: int) -> None:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    written: list[tuple[str, str]] = []
    views: list[View] = []
    record: dict[str, object] = {"scene": settings.scene(number)}
    drawn: list[dict[str, object]] = []

    def keep(name: str, data: bytes) -> tuple[str, str]:
        path = stage / name
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
    packed = layout.gather(number, stage, [name for name, _ in files], settings)
    spent = {name for names in packed.values() for name in names}
    files = [entry for entry in files if entry[0] not in spent] + [(name, _digest(stage / name)) for name in packed]
    for name in spent:
        (stage / name).unlink()
    name = layout.sequence(number, settings)
    record |= {"sequence": name, "views": drawn}
    content = {"name": name, "frames": len(views), "files": files, "record": record}
    _write_bytes(stage / _LIST, json.dumps(content, default=_plain).encode())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _publish(stage: Path, folder: Path, number: int) -> None:
    """Move what is whole to its places in order; where a kill interrupted it, the rest is moved."""
    content = json.loads((stage / _LIST).read_bytes())
    for name, _ in content["files"]:
        source, target = stage / name, folder / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    _write_bytes(_marker(folder, number), json.dumps(content, sort_keys=True).encode())
    shutil.rmtree(stage, ignore_errors=True)


def _stage(folder: Path, number: int) -> Path:
    return folder / _HIDDEN / f"stage-{number:06d}"


def _marker(folder: Path, number: int) -> Path:
    return folder / _HIDDEN / f"sequence-{number:06d}.json"


def _write_manifest(settings: StreamSettings, folder: Path, layout: Layout, record: dict[str, object]) -> None:
    files: dict[str, str] = {}
    sequences: list[dict[str, object]] = []
    scenes: list[str] = []
    try:
        for number in range(settings.sequences):
            content = json.loads(_marker(folder, number).read_bytes())
            files |= dict(content["files"])
            scenes.append(json.dumps(content.get("record"), sort_keys=True) + "\n")
            sequences.append({"name": content["name"], "frames": content["frames"], "scene": settings.scene(number)})
        for name, data in layout.root(settings):
            files[name] = hashlib.sha256(data).hexdigest()
        told = "".join(scenes).encode()
        files[SCENES] = hashlib.sha256(told).hexdigest()
        _write_bytes(folder / SCENES, told)
        manifest = {
            **record,
            "preset": settings.preset,
            "seed": settings.seed,
            "split": settings.split,
            "frames": settings.frames,
            "reader": layout.reader,
            "quantisation": layout.quantisation,
            "sequences": sequences,
            "files": files,
        }
        _write_bytes(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise _os_error(error, folder) from error


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
        _write_bytes(partial / "meta.json", json.dumps(meta, sort_keys=True).encode())
        partial.replace(folder)
    except OSError as error:
        raise _os_error(error, folder) from error
    return settings.frames


class _claimed:  # noqa: N801 - used as a function
    """A folder that holds this run and nothing else, while the block runs.

    Raises:
        UsageError: it is a file, holds other files or another run, or another process writes into it.
    """

    def __init__(self, folder: Path, record: dict[str, object]) -> None:
        self._folder = folder
        self._wanted = json.dumps(record, indent=1, sort_keys=True).encode()
        self._lock: int | None = None

    def __enter__(self) -> None:
        folder, record = self._folder, self._folder / _RECORD
        try:
            if folder.exists() and not folder.is_dir():
                raise UsageError(
                    f"'{folder}' is a file",
                    why="Frames are written into a folder.",
                    fix="Choose another -o FOLDER.",
                    error_id="output.is-file",
                )
            if record.exists():
                if record.read_bytes() != self._wanted:
                    raise UsageError(
                        f"'{folder}' holds phantom frames made with other settings",
                        why="Mixing two runs in one folder would make its manifest wrong.",
                        fix=f"Choose another -o FOLDER, or repeat the settings of {_RECORD} there.",
                        error_id="output.other-run",
                    )
            elif folder.exists() and any(not _is_ours(path) for path in folder.iterdir()):
                raise UsageError(
                    f"'{folder}' is not empty",
                    why="Endolux never overwrites files that it did not write.",
                    fix="Choose an empty or new -o FOLDER.",
                    error_id="output.foreign",
                )
            (folder / _HIDDEN).mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / _HIDDEN / "lock", folder)
            self._recorded()
        except OSError as error:
            self.__exit__()
            raise _os_error(error, folder) from error
        except BaseException:
            self.__exit__()
            raise

    def _recorded(self) -> None:
        folder, record = self._folder, self._folder / _RECORD
        for left in (*folder.glob(".*.tmp"), *(folder / _HIDDEN).glob(".*.tmp")):
            left.unlink(missing_ok=True)
        if not record.exists():
            _write_bytes(record, self._wanted)

    def __exit__(self, *_problem: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_ours(path: Path) -> bool:
    """Whether a file is what a run leaves that was killed before it could say what it is."""
    return path.name == _HIDDEN or (path.name.startswith(f".{_RECORD}.") and path.name.endswith(".tmp"))


def _lock(path: Path, folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - no such locks on this system
        return None
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return None
        raise UsageError(
            f"Another run is writing to '{folder}'",
            why="Two runs would move each other's files.",
            fix="Wait for it, or choose another -o FOLDER.",
            error_id="output.busy",
        ) from error
    return handle


def _write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _os_error(error: OSError, path: Path) -> EndoluxError:
    found = from_os_error(error, error.filename or path)
    if isinstance(found, DeviceError):
        return DeviceError(
            found.what,
            why=found.why,
            fix="Free some space and run the same command again: what is finished is kept.",
            error_id=found.error_id,
        )
    if isinstance(found, InputError):
        return InputError(found.what, why=found.why, fix="Choose another -o FOLDER.", error_id=found.error_id)
    return found
