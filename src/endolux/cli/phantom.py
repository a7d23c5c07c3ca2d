"""``endolux phantom``: synthetic endoscopy with exact depth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from pydantic import ValidationError

from endolux.errors import UsageError


def register(app: App) -> None:
    """Add the verb."""
    app.command(phantom, name="phantom")


def phantom(
    anatomy: str = "all",
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    count: Annotated[int, Parameter(name=["--count", "-n"])] = 100,
    seed: int = 0,
    first_scene: int = 0,
    views_per_scene: int = 8,
    width: int = 320,
    height: int = 256,
    even_light: float = 0.18,
    rich_texture: float = 0.0,
    shards: bool = False,
    clip: bool = False,
    fps: float = 25.0,
    jobs: Annotated[int, Parameter(name=["--jobs", "-j"])] = 1,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Render synthetic endoscopy with exact depth, poses, intrinsics and labels.

    Args:
        anatomy: colon, pouch, tube, or all of them mixed.
        output: folder for the frames; with --clip, the video file to write.
        count: number of frames.
        seed: the same seed gives the same bytes.
        first_scene: number of the first scene; ranges that do not overlap share no scene.
        views_per_scene: single views taken of each scene.
        width: image width in pixels.
        height: image height in pixels.
        even_light: share of scopes whose processor hides the fall-off of light with distance.
        rich_texture: share of scenes with strong mottling and dense vessels.
        shards: write memory-mapped shards for training instead of images.
        clip: one continuous withdrawal, written as H.264 video without ground truth.
        fps: frame rate of the clip.
        jobs: processes that render shards.
        as_json: print the answer as JSON.
    """
    from endolux.phantom.scene import ANATOMIES, build_scene
    from endolux.phantom.world import PhantomSettings
    from endolux.phantom.write import write_clip, write_folder, write_shards

    if anatomy != "all" and anatomy not in ANATOMIES:
        build_scene(anatomy, None)  # type: ignore[arg-type]  # raises the error that lists the names
    try:
        mix = {} if anatomy == "all" else {"anatomies": {anatomy: 1.0}}
        settings = PhantomSettings.model_validate(
            {
                "frames": count,
                "seed": seed,
                "first_scene": first_scene,
                "views_per_scene": views_per_scene,
                "width": width,
                "height": height,
                "even_light": even_light,
                "rich_texture": rich_texture,
                **mix,
            }
        )
    except ValidationError as problem:
        first = problem.errors()[0]
        raise UsageError(
            f"Impossible {'.'.join(map(str, first['loc']))}: {first['input']!r}",
            why=f"{first['msg']}.",
            fix="Run 'endolux phantom --help' for what each option takes.",
            error_id="phantom.settings",
        ) from problem
    started = time.perf_counter()
    if clip:
        write_clip(settings, output, fps=fps)
    elif shards:
        write_shards(settings, output, shard_frames=max(1, 240 // views_per_scene) * views_per_scene, workers=jobs)
    else:
        write_folder(settings, output)
    seconds = time.perf_counter() - started
    if as_json:
        answer = {
            "output": str(output),
            "frames": count,
            "seconds": round(seconds, 3),
            "settings": settings.model_dump(),
        }
        print(json.dumps(answer, sort_keys=True))  # noqa: T201
    else:
        print(f"{count} frames in {output} ({seconds:.1f} s)")  # noqa: T201
    return 0
