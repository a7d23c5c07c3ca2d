"""``endolux phantom``: synthetic endoscopy with exact depth."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import UsageError

_WIDEST_PINHOLE_DEG = 130.0


def register(app: App) -> None:
    """Add the verb."""
    app.command(phantom, name="phantom")


def phantom(
    anatomy: str = "all",
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    count: Annotated[int, Parameter(name=["--count", "-n"])] = 100,
    preset: str | None = None,
    layout: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    first_scene: int | None = None,
    motion: str | None = None,
    fps: float | None = None,
    sequence_frames: int | None = None,
    views_per_scene: int | None = None,
    width: int | None = None,
    height: int | None = None,
    field_of_view: float | None = None,
    baseline: float | None = None,
    even_light: float | None = None,
    rich_texture: float | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    outputs: str | None = None,
    depth_format: Literal["npy", "png"] = "npy",
    shards: Annotated[bool, Parameter(negative=())] = False,
    clip: Annotated[bool, Parameter(negative=())] = False,
    jobs: Annotated[int, Parameter(name=["--jobs", "-j"])] = 1,
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Render synthetic endoscopy with exact depth, poses, intrinsics, normals, labels and optical flow.

    An interrupted run goes on where it stopped when the same command is run again. The same settings and seed give
    the same bytes, whatever -j is.

    Args:
        anatomy: a name ('--list' prints them), several with commas between, or all that the preset has.
        output: folder for the frames; with --clip, the video file to write.
        count: number of frames.
        preset: named start of all settings (default: train, or what the layout's set is like).
        layout: how files lie: Endolux's own folder, or that of a data set (scared, c3vd, simcol3d, ...).
        split: train, validation or test: ranges of scenes that share none.
        seed: the same seed gives the same bytes.
        first_scene: number of the first scene of the split; ranges that do not overlap share no scene.
        motion: still (single views), insertion, withdrawal, hover, pan, sweep or mixed.
        fps: frame rate of moving sequences.
        sequence_frames: frames of a moving sequence; every sequence is another scene.
        views_per_scene: single views taken of each scene.
        width: image width in pixels.
        height: image height in pixels.
        field_of_view: degrees across the diagonal, 10 to 170.
        baseline: distance of a second lens to the right in mm; pairs are written.
        even_light: share of scopes whose processor hides the fall-off of light with distance.
        rich_texture: share of scenes with strong mottling and dense vessels.
        set_: KEY.PATH=VALUE of any setting, such as scope.look.shot_noise=[0,0.02]; may be given several times.
        outputs: of valid, normals, labels, lines, specular and flow, those that the folder layout writes (default:
            all), with commas between; 'none' for none.
        depth_format: of the folder layout: npy is float32 in mm, png 16-bit codes of 0.01 mm.
        shards: write memory-mapped shards for training instead of files a frame.
        clip: write one continuous sequence as H.264 video without ground truth.
        jobs: processes; 0 for all cores that this process may use.
        list_: print anatomies, presets and layouts.
        as_json: print the answer as JSON.
        quiet: no progress.
    """
    if list_:
        return _list(as_json=as_json)
    if output is None:
        raise UsageError(
            "Where to?",
            why="Frames are written into a folder.",
            fix="Add -o FOLDER.",
            error_id="usage.arguments",
        )
    if jobs < 0:
        raise UsageError(
            f"Impossible number of processes {jobs}",
            why="At least one process renders.",
            fix="Use -j 1 or more, or 0 for all cores.",
            error_id="phantom.jobs",
        )
    from endolux.phantom.layouts import get_layout
    from endolux.phantom.layouts.folder import FolderLayout
    from endolux.phantom.presets import merged
    from endolux.phantom.write import layout_settings, write_clip, write_layout, write_shards

    asked: dict[str, object] = {
        "frames": count,
        "split": split,
        "seed": seed,
        "first_scene": first_scene,
        "motion": motion,
        "fps": fps,
        "sequence_frames": sequence_frames,
        "views_per_scene": views_per_scene,
        "width": width,
        "height": height,
        "baseline_mm": baseline,
        "even_light": even_light,
        "rich_texture": rich_texture,
        "anatomies": None if anatomy == "all" else dict.fromkeys(anatomy.split(","), 1.0),
    }
    changes = {name: value for name, value in asked.items() if value is not None}
    if field_of_view is not None:
        camera: dict[str, object] = {"field_of_view_deg": field_of_view}
        # No pinhole picture is that wide.
        camera |= {"models": {"fisheye": 1.0}} if field_of_view > _WIDEST_PINHOLE_DEG else {}
        changes["scope"] = {"camera": camera}
    if clip:
        changes = {"motion": "withdrawal", "sequence_frames": count, "supersample": 2, **changes}
    for text in set_ or ():
        changes = merged(changes, _setting(text))
    chosen = get_layout(layout or "folder")
    if isinstance(chosen, FolderLayout):
        chosen = FolderLayout(depth_format, _outputs(outputs))
    elif outputs is not None or depth_format != "npy" or shards or clip:
        raise UsageError(
            f"--layout {chosen.name} with --outputs, --depth-format, --shards or --clip",
            why="The layout of a data set says by itself what is written and how.",
            fix="Leave these options out, or leave out --layout.",
            error_id="usage.arguments",
        )
    settings = layout_settings(chosen, changes, preset=preset)
    workers = jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else jobs or os.cpu_count() or 1
    started = time.perf_counter()
    line = render.ProgressLine(quiet=quiet)

    def show(done: int, total: int) -> None:
        line.update(done, total=total)

    written = settings.frames
    try:
        if clip:
            write_clip(settings, output, on_progress=show)
        elif shards:
            a_shard = max(1, 240 // settings.per_sequence) * settings.per_sequence
            write_shards(settings, output, shard_frames=a_shard, workers=workers, on_progress=show)
        else:
            written = write_layout(settings, output, chosen, workers=workers, on_progress=show)
    finally:
        line.close()
    seconds = time.perf_counter() - started
    if as_json:
        render.answer_json(
            {
                "output": str(output),
                "frames": settings.frames,
                "written": written,
                "seconds": round(seconds, 3),
                "layout": "clip" if clip else "shards" if shards else chosen.name,
                "settings": settings.model_dump(mode="json"),
            }
        )
    else:
        kept = f", {settings.frames - written} of them kept" if written < settings.frames else ""
        render.answer(f"{settings.frames} frames in {output} ({seconds:.1f} s{kept})")
    return 0


def _list(*, as_json: bool) -> int:
    from endolux.phantom.layouts import get_layout, names
    from endolux.phantom.presets import PRESETS
    from endolux.phantom.scene import ANATOMIES

    layouts = {name: get_layout(name) for name in names()}
    if as_json:
        render.answer_json(
            {
                "anatomies": sorted(ANATOMIES),
                "presets": {name: found.model_dump(mode="json") for name, found in PRESETS.items()},
                "layouts": {
                    name: {"summary": found.summary, "reader": found.reader, "quantisation": found.quantisation}
                    for name, found in layouts.items()
                },
            }
        )
        return 0
    render.answer(f"anatomies  {', '.join(sorted(ANATOMIES))}")
    render.answer("")
    render.answer(render.table([(name, found.summary) for name, found in PRESETS.items()], header=("preset", "")))
    render.answer("")
    rows = [(name, found.summary, found.quantisation) for name, found in layouts.items()]
    render.answer(render.table(rows, header=("layout", "", "difference from the truth when read back")))
    return 0


def _setting(text: str) -> dict[str, object]:
    """``a.b=value`` as nested dictionaries; values are YAML."""
    import yaml

    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    parsed: object = None
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        equals = ""
    if not equals or not all(parts):
        raise UsageError(
            f"Cannot read the setting '{text}'",
            why="A setting is KEY=VALUE, keys below keys with dots between.",
            fix="For example --set scope.look.shot_noise=[0,0.02] or --set deformation.breathing_mm=4.",
            error_id="phantom.set",
        )
    result: object = parsed
    for part in reversed(parts):
        result = {part: result}
    return dict(result) if isinstance(result, Mapping) else {}


def _outputs(text: str | None) -> tuple[str, ...] | None:
    from endolux.phantom.layouts.folder import OUTPUTS
    from endolux.phantom.presets import unknown

    if text is None:
        return None
    wanted: Sequence[str] = () if text == "none" else text.split(",")
    for name in wanted:
        if name not in OUTPUTS:
            raise unknown("output", name, OUTPUTS)
    return tuple(wanted)
