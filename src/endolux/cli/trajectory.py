"""``endolux trajectory``: the path of the camera through a clip, and point clouds along it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter, validators

from endolux.cli import render
from endolux.errors import UsageError, from_os_error, missing_extra

if TYPE_CHECKING:
    from endolux.types import Frame

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Positive = Annotated[float | None, Parameter(validator=validators.Number(gt=0))]
_EVERY = 25


def register(app: App) -> None:
    """Add the verb."""
    app.command(trajectory, name="trajectory")


def trajectory(
    model: str,
    source: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    clouds: Path | None = None,
    frames: str | None = None,
    camera: Path | None = None,
    mm_per_unit: Positive = None,
    fps: Positive = None,
    limit: Count = None,
    commercial: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Follow the camera through a clip and write its poses in the TUM format.

    The world is the camera of the first frame. Lengths are in the unit of the network's depth: millimetres only for
    metric networks, else known up to one factor.

    Args:
        model: a run of a training on video, or a bundle with a pose network.
        source: a video, a folder of images or a quoted glob.
        output: text file; must not exist.
        clouds: folder for point clouds (PLY, in the world); new or empty.
        frames: positions of the frames with a cloud, such as 0,25,50; every 25th by default.
        camera: intrinsics as JSON (width, height, fx, fy, cx, cy, model, distortion) for the clouds; without it,
            those that the training assumed.
        mm_per_unit: multiply lengths by this factor, measured at one known distance.
        fps: frames per second of a folder of images; their positions are the times without it.
        limit: stop after so many frames.
        commercial: refuse a model whose licence, or that of what it was trained from, does not allow commercial use.
        as_json: print JSON.
        quiet: no progress.
    """
    chosen = None if frames is None else _positions(frames)
    if chosen is not None and clouds is None:
        raise _needs_clouds()
    _check_outputs(output, clouds)
    try:
        from endolux.train.odometry import camera_of, open_traveller, travel
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    import numpy as np

    from endolux.geometry.cameras import load_camera
    from endolux.geometry.cloud import point_cloud
    from endolux.io.ply import write_ply
    from endolux.io.sources import open_source
    from endolux.io.trajectory import write_tum
    from endolux.types import DepthKind

    known = None if camera is None else load_camera(camera)
    traveller = open_traveller(model, commercial=commercial)
    factor = mm_per_unit or 1.0
    unit = "mm" if mm_per_unit is not None or traveller.unit == "mm" else "unknown (one factor is missing)"
    times: list[float] = []
    poses = []
    written: list[str] = []
    told = False
    line = render.ProgressLine(quiet=quiet)
    try:
        with open_source(source, limit=limit, camera=known) as clip:
            for station in travel(traveller.odometer, clip.frames()):
                pose = station.pose.copy()
                pose[:3, 3] *= factor
                poses.append(pose)
                times.append(_time(station.frame, fps))
                index = station.frame.index
                line.update(len(poses), total=clip.count, failed=0, start=0)
                if clouds is None or not (index in chosen if chosen is not None else index % _EVERY == 0):
                    continue
                seen_by = station.frame.camera
                if seen_by is None:
                    seen_by = camera_of(traveller.intrinsics, station.frame.size)
                    if not told:
                        render.note(
                            f"note: no intrinsics given; taken to be fx {seen_by.fx:.1f}, fy {seen_by.fy:.1f}, "
                            f"cx {seen_by.cx:.1f}, cy {seen_by.cy:.1f} px (--camera)"
                        )
                        told = True
                depth = traveller.depth(station.frame)
                if mm_per_unit is not None and depth.kind is DepthKind.RELATIVE_DEPTH:
                    depth = depth.to_metric(mm_per_unit)
                cloud = point_cloud(depth, seen_by, image=station.frame.image, pose=pose)
                path = clouds / f"cloud_{index:06d}.ply"
                write_ply(path, cloud.points, cloud.colours, comments=[f"unit {unit}", f"frame {index}"])
                written.append(path.name)
    finally:
        line.close()
    missing = sorted(set(chosen or ()) - {int(name[6:12]) for name in written})
    if missing:
        render.note(f"note: the clip has no frame {', '.join(map(str, missing))}")
    stack = np.stack(poses)
    write_tum(output, times, stack, comments=["camera to world; the world is the first camera", f"unit {unit}"])
    length = float(np.linalg.norm(np.diff(stack[:, :3, 3], axis=0), axis=1).sum())
    if as_json:
        document: dict[str, object] = {
            "ok": True,
            "trajectory": str(output),
            "frames": len(poses),
            "length": length,
            "unit": "mm" if unit == "mm" else None,
            "clouds": written,
        }
        render.answer_json(document)
        return 0
    render.answer(f"{output}  {len(poses)} poses, {length:.4g} {'mm' if unit == 'mm' else 'units'} long")
    if clouds is not None:
        render.answer(f"{clouds}  {len(written)} point clouds")
    return 0


def _positions(text: str) -> frozenset[int]:
    if re.fullmatch(r"\d{1,9}(,\d{1,9})*", text) is None:
        raise UsageError(
            f"'{text}' names no frames",
            why="Positions are whole numbers from 0, with commas between them.",
            fix="Write them like --frames 0,25,50.",
            error_id="trajectory.frames",
        )
    return frozenset(map(int, text.split(",")))


def _needs_clouds() -> UsageError:
    return UsageError(
        "--frames without --clouds",
        why="It chooses the frames whose points are written.",
        fix="Name a folder with --clouds FOLDER.",
        error_id="trajectory.frames",
    )


def _check_outputs(output: Path, clouds: Path | None) -> None:
    taken = output if os.path.lexists(output) else None
    if taken is None and clouds is not None and clouds.exists() and (not clouds.is_dir() or any(clouds.iterdir())):
        taken = clouds
    if taken is not None:
        raise UsageError(
            f"'{taken}' exists already",
            why="Files are never overwritten.",
            fix="Choose a new file with -o FILE, and a new or empty folder with --clouds FOLDER.",
            error_id="output.exists",
        )
    if not output.parent.is_dir():
        raise UsageError(
            f"There is no folder '{output.parent}'",
            why="The file would lie in it.",
            fix="Create it first.",
            error_id="output.missing",
        )
    if clouds is not None:
        try:
            clouds.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, clouds) from error


def _time(frame: Frame, fps: float | None) -> float:
    if fps is not None:
        return frame.index / fps
    return frame.pts_s if frame.pts_s is not None else float(frame.index)
