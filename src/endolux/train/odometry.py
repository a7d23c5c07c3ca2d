"""The path of the camera through a clip, by a network that learnt motion from video."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from endolux.errors import InputError, ModelError
from endolux.geometry.cameras import load_camera
from endolux.models import DepthNetwork
from endolux.models.odometry import POSE_FILE, Odometer, as_tensor, pose_bytes, read_pose
from endolux.prep.network_input import network_input, restore
from endolux.runtime.bundles import CARD, load_bundle, read_file
from endolux.runtime.card import Preprocessing
from endolux.runtime.licences import require_commercial
from endolux.train.checkpoints import State, load_network, newest, read_weights
from endolux.train.origins import origin_of
from endolux.train.recipe_video import Intrinsics
from endolux.train.video_networks import fresh_pose
from endolux.types import Camera, DepthMap, Frame

if TYPE_CHECKING:
    from endolux.io.sources import Failure

NETWORK = "pose"
"""Name of the pose network among those of a training on video."""
_STORED_SIZE = (320, 256)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Traveller:
    """What follows a camera and sees depth on the way.

    Attributes:
        odometer: motion from frame to frame.
        depth: depth of a frame, in the unit of the motions.
        unit: of lengths: ``mm``, or ``none`` where depth is known up to one factor.
        intrinsics: what the training took for the camera where nothing better was known.
    """

    odometer: Odometer
    depth: Callable[[Frame], DepthMap]
    unit: str
    intrinsics: Intrinsics


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Station:
    """One frame on the path.

    Attributes:
        frame: the frame.
        pose: 4 x 4 camera to world; the world is the camera of the first frame.
    """

    frame: Frame
    pose: npt.NDArray[np.float64]


def open_traveller(source: str | Path, *, commercial: bool = False) -> Traveller:
    """Open a run of the task ``video``, one of its checkpoints, or a bundle that carries a pose network.

    Args:
        source: run, checkpoint, or bundle.
        commercial: refuse a model whose licence, or that of what it was trained from, does not allow commercial use.

    Raises:
        ModelError: ``model.no-pose`` where there is no pose network; ``model.missing``, ``model.checkpoint``;
            ``model.licence`` with ``commercial``.
    """
    folder = Path(source)
    if commercial and folder.exists():
        origin = origin_of(str(source), role="model")
        if origin.licence is not None:
            require_commercial(origin.name, origin.licence)
    if (folder / "state.json").is_file() or (folder.is_dir() and any(folder.glob("step-*/state.json"))):
        return _of_run(folder)
    if not folder.exists() or (folder / CARD).is_file() or folder.name == CARD:
        return _of_bundle(source)
    raise ModelError(
        f"'{folder}' is neither a run nor a bundle",
        why="A run holds folders named step-00001000 and so on, a bundle holds card.json.",
        fix="Name the folder given to 'endolux train -o', 'endolux export -o' or 'endolux models import -o'.",
        error_id="model.missing",
    )


def travel(odometer: Odometer, frames: Iterator[Frame | Failure]) -> Iterator[Station]:
    """The pose of every frame of a clip, in its order and in constant memory.

    Raises:
        EndoluxError: what made a frame unreadable: a path has no gaps.
        InputError: ``frame.size`` for frames of different sizes; ``trajectory.short`` for fewer than two frames.
    """
    before: Frame | None = None
    pose = np.eye(4)
    count = 0
    for frame in frames:
        if not isinstance(frame, Frame):
            raise type(frame.error)(
                f"Frame '{frame.name}' cannot be used: {frame.error.what}",
                why="A path leads through every frame; " + frame.error.why,
                fix=f"{frame.error.fix} Or leave it out, or stop before it with --limit.",
                error_id=frame.error.error_id,
            )
        if before is not None:
            if frame.size != before.size:
                raise InputError(
                    f"Frame '{frame.name}' has {frame.size[0]}x{frame.size[1]} pixels, the one before "
                    f"{before.size[0]}x{before.size[1]}",
                    why="Motion lies between two pictures of one camera.",
                    fix="Give the frames of one clip.",
                    error_id="frame.size",
                )
            # From the earlier camera to the later one; its inverse carries the later camera into the world.
            pose = pose @ np.linalg.inv(odometer.motion(frame.image, before.image))
        count += 1
        yield Station(frame, pose)
        before = frame
    if count < 2:
        raise InputError(
            f"{count or 'No'} frame{'' if count == 1 else 's'} in the clip",
            why="Motion lies between two frames.",
            fix="Give a clip of two frames or more.",
            error_id="trajectory.short",
        )


def camera_of(intrinsics: Intrinsics, size: tuple[int, int]) -> Camera:
    """The camera that a training assumed, for frames of a size in pixels: its file, or else its numbers.

    Raises:
        InputError: a file that is no camera.

    Example:
        >>> camera_of(Intrinsics(), (320, 256)).fx
        262.4
    """
    width, height = size
    if intrinsics.file is not None:
        return load_camera(intrinsics.file).resize(width, height)
    return Camera(
        width=width,
        height=height,
        fx=intrinsics.fx * width,
        fy=intrinsics.fy * height,
        cx=intrinsics.cx * width,
        cy=intrinsics.cy * height,
    )


def translation_unit(unit: float | None, depth_range: tuple[float, float]) -> float:
    """What a unit of translation is in units of depth, where a recipe does not say (``video.pose.unit``).

    Example:
        >>> translation_unit(None, (0.1, 150.0)), translation_unit(None, (1.0, 400.0)), translation_unit(3.0, (1, 2))
        (1.0, 20.0, 3.0)
    """
    smallest, largest = depth_range
    return unit or (1.0 if smallest < 1.0 else (smallest * largest) ** 0.5)


def run_pose(folder: Path, state: State, network: DepthNetwork) -> tuple[nn.Module, float] | None:
    """The pose network of a checkpoint and its unit; None where the run trained none.

    Raises:
        ModelError: damaged weights.
    """
    from endolux.train.recipe import Recipe

    recipe = Recipe.model_validate(state.recipe)
    if NETWORK not in state.networks or recipe.video is None:
        return None
    pose = fresh_pose(recipe.video)
    try:
        pose.load_state_dict(read_weights(folder, NETWORK))
    except RuntimeError as error:
        raise ModelError(
            f"The pose network in '{folder}' cannot be read",
            why=" ".join(str(error).split())[:200],
            fix="Use another checkpoint of the run, or train again.",
            error_id="model.checkpoint",
        ) from error
    return pose.eval(), translation_unit(recipe.video.pose.unit, network.depth_range())


def pose_files(run: Path, *, half: bool) -> dict[str, bytes]:
    """What a bundle of a run carries besides: its pose network, where it trained one."""
    folder = newest(run)
    network, state = load_network(run)
    found = run_pose(folder, state, network)
    return {} if found is None else {POSE_FILE: pose_bytes(found[0], unit=found[1], half=half)}


def _of_run(run: Path) -> Traveller:
    from endolux.train.recipe import Recipe

    folder = newest(run)
    network, state = load_network(folder)
    found = run_pose(folder, state, network)
    if found is None:
        raise _no_pose(folder, f"The run trained {', '.join(state.networks)}.")
    recipe = Recipe.model_validate(state.recipe)
    width, height = recipe.data.size or _STORED_SIZE
    spec = Preprocessing(width=width, height=height, multiple=1, resize="stretch")
    intrinsics = recipe.video.intrinsics if recipe.video is not None else Intrinsics()

    def depth(frame: Frame) -> DepthMap:
        seen = network_input(frame.image, spec=spec)
        with torch.inference_mode():
            values = network.depth(as_tensor(frame.image, spec))[0, 0].float().numpy()
        valid = np.ones(frame.image.shape[:2], bool) if frame.valid is None else frame.valid
        restored = restore(np.ascontiguousarray(values), seen)
        return DepthMap(values=restored, kind=network.kind, valid=valid, camera=frame.camera)

    unit = "mm" if network.kind.value == "metric" else "none"
    return Traveller(Odometer(found[0], spec, unit=found[1]), depth, unit, intrinsics)


def _of_bundle(name: str | Path) -> Traveller:
    from endolux.runtime.model import load

    bundle = load_bundle(name)
    if POSE_FILE not in bundle.card.files:
        raise _no_pose(bundle.folder, f"Its card lists {', '.join(sorted(bundle.card.files))}.")
    pose, unit = read_pose(read_file(bundle, POSE_FILE))
    model = load(name)
    words = "mm" if model.kind.value == "metric" else "none"
    return Traveller(Odometer(pose, bundle.card.preprocessing, unit=unit), model.predict, words, Intrinsics())


def _no_pose(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"'{folder}' has no pose network",
        why=f"{why} Only a training on video learns how the camera moves.",
        fix="Give a run of a recipe with 'task: video' (endolux train dares), or a bundle exported from one.",
        error_id="model.no-pose",
    )
