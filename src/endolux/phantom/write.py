"""Phantom frames on disk: folders that people read and shards that training maps into memory."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError, from_os_error
from endolux.phantom.world import WORLD_VERSION, PhantomSettings, clip, frames

CODES_PER_MM = 100.0
_DONE = "manifest.json"


def write_folder(settings: PhantomSettings, folder: Path) -> int:
    """Write images, 16-bit depth, poses and cameras.

    Layout: ``images/NNNNNN.png``, ``depth/NNNNNN.png`` (0.01 mm a code, 0 where nothing is known),
    ``labels/NNNNNN.png``, ``poses.jsonl`` (camera-to-world in mm and intrinsics, a line a frame) and, last,
    ``manifest.json``. An interrupted run continues: frames that are complete are kept.

    Returns:
        the number of frames written by this call.

    Raises:
        UsageError: the folder holds another run or foreign files.
    """
    _claim(folder, settings)
    try:
        for name in ("images", "depth", "labels", "poses"):
            (folder / name).mkdir(exist_ok=True)
        written = 0
        lines = []
        for item in frames(settings):
            name = item.frame.name
            # The pose is written last, so a frame with a pose is whole.
            pose_file = folder / "poses" / f"{name}.json"
            if not pose_file.exists():
                _write_png(folder / "images" / f"{name}.png", item.frame.image[..., ::-1])
                codes = np.clip(np.rint(item.depth.values * CODES_PER_MM), 1, 65535)
                _write_png(folder / "depth" / f"{name}.png", np.where(item.depth.valid, codes, 0).astype(np.uint16))
                _write_png(folder / "labels" / f"{name}.png", item.labels)
                camera = item.camera
                record = {
                    "index": item.frame.index,
                    "camera_to_world_mm": item.pose.tolist(),
                    "camera": None
                    if camera is None
                    else {
                        "model": camera.model.value,
                        "width": camera.width,
                        "height": camera.height,
                        "fx": camera.fx,
                        "fy": camera.fy,
                        "cx": camera.cx,
                        "cy": camera.cy,
                        "distortion": list(camera.distortion),
                    },
                }
                _write_bytes(pose_file, json.dumps(record, sort_keys=True).encode())
                written += 1
            lines.append(item.frame.index)
        manifest = {
            "world_version": WORLD_VERSION,
            "settings": settings.model_dump(),
            "frames": len(lines),
            "codes_per_mm": CODES_PER_MM,
        }
        _write_bytes(folder / _DONE, json.dumps(manifest, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise from_os_error(error, folder) from error
    return written


def write_shards(settings: PhantomSettings, folder: Path, *, shard_frames: int = 480, workers: int = 1) -> list[Path]:
    """Write training shards: ``shard-NNNNN/{rgb,depth}.npy`` with ``meta.json`` written last.

    ``rgb`` is N x H x W x 3 uint8, ``depth`` N x H x W float16 in mm with 0 where nothing is known. Shards that
    are complete are kept, so an interrupted run continues.

    Raises:
        UsageError: ``shard_frames`` is no multiple of the views of a scene.
    """
    if shard_frames % settings.views_per_scene:
        raise UsageError(
            f"{shard_frames} frames a shard with {settings.views_per_scene} views a scene",
            why="A scene is never split over two shards.",
            fix=f"Use a multiple of {settings.views_per_scene}.",
            error_id="phantom.shard-size",
        )
    _claim(folder, settings)
    scenes = shard_frames // settings.views_per_scene
    jobs = []
    for shard, start in enumerate(range(0, settings.frames, shard_frames)):
        part = settings.model_copy(
            update={
                "first_scene": settings.first_scene + shard * scenes,
                "frames": min(shard_frames, settings.frames - start),
            }
        )
        jobs.append((part, folder / f"shard-{part.first_scene:07d}"))
    if workers == 1:
        return [_write_shard(*job) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(_write_shard, *zip(*jobs, strict=True)))


def _write_shard(settings: PhantomSettings, folder: Path) -> Path:
    if (folder / "meta.json").exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shape = (settings.frames, settings.height, settings.width)
        rgb = np.lib.format.open_memmap(partial / "rgb.npy", mode="w+", dtype=np.uint8, shape=(*shape, 3))
        depth = np.lib.format.open_memmap(partial / "depth.npy", mode="w+", dtype=np.float16, shape=shape)
        for index, item in enumerate(frames(settings)):
            rgb[index] = item.frame.image
            depth[index] = np.where(item.depth.valid, np.minimum(item.depth.values, 6e4), 0)
        rgb.flush()
        depth.flush()
        meta = {
            "width": settings.width,
            "height": settings.height,
            "complete": settings.frames,
            "world_version": WORLD_VERSION,
            "settings": settings.model_dump(),
        }
        _write_bytes(partial / "meta.json", json.dumps(meta, sort_keys=True).encode())
        partial.replace(folder)
    except OSError as error:
        raise from_os_error(error, folder) from error
    return folder


def _claim(folder: Path, settings: PhantomSettings) -> None:
    """Refuse a folder that holds anything but an earlier part of the same run."""
    record = folder / "settings.json"
    wanted = json.dumps({"world_version": WORLD_VERSION, **settings.model_dump()}, indent=1, sort_keys=True).encode()
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(
                f"'{folder}' is a file",
                why="Frames are written into a folder.",
                fix="Choose another -o FOLDER.",
                error_id="output.is-file",
            )
        if record.exists():
            if record.read_bytes() != wanted:
                raise UsageError(
                    f"'{folder}' holds phantom frames made with other settings",
                    why="Mixing two runs in one folder would make its manifest wrong.",
                    fix="Choose another -o FOLDER, or repeat the settings of settings.json there.",
                    error_id="output.other-run",
                )
            return
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(
                f"'{folder}' is not empty",
                why="Endolux never overwrites files that it did not write.",
                fix="Choose an empty or new -o FOLDER.",
                error_id="output.foreign",
            )
        folder.mkdir(parents=True, exist_ok=True)
        _write_bytes(record, wanted)
    except OSError as error:
        raise from_os_error(error, folder) from error


def _write_png(path: Path, image: npt.NDArray[np.generic]) -> None:
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    _write_bytes(path, data.tobytes())


def _write_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_clip(settings: PhantomSettings, path: Path, *, fps: float, supersample: int = 2) -> None:
    """Encode one continuous withdrawal as H.264 video.

    Raises:
        UsageError: the file exists already, or the frame size is odd.
    """
    import av

    if path.exists():
        raise UsageError(
            f"'{path}' exists already",
            why="Endolux never overwrites files.",
            fix="Choose another -o FILE.mp4.",
            error_id="output.exists",
        )
    if settings.width % 2 or settings.height % 2 or not fps > 0:
        raise UsageError(
            f"A clip cannot be {settings.width}x{settings.height} at {fps} frames/s",
            why="H.264 with 4:2:0 colour needs even sides and a positive rate.",
            fix="Use even --width and --height.",
            error_id="phantom.clip-size",
        )
    partial = path.with_name(f".{path.name}.partial")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=round(fps))
            stream.width, stream.height = settings.width, settings.height
            stream.pix_fmt = "yuv420p"
            # One thread: with several the encoder's decisions, and so the bytes, may differ from run to run.
            stream.options = {"crf": "23", "preset": "slow", "threads": "1"}
            for item in clip(settings, fps=fps, supersample=supersample):
                picture = av.VideoFrame.from_ndarray(item.frame.image, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise from_os_error(error, path) from error
