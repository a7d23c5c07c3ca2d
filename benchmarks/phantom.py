"""Speed of the phantom: ``python benchmarks/phantom.py [--frames 24] [--json out.json]``, one process, one thread.

For every preset: frames a second with all outputs (image, depth, normals, labels, optical flow), the time of each
stage, scene build and peak memory. Seconds are CPU seconds of this process, so that a busy machine disturbs less; wall
seconds stand beside them. The last table casts the same rays by embree and by the phantom's own raster, interleaved:
that ratio is what can be compared between machines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

STAGES = (
    ("endolux.phantom.world", "build_scene"),
    ("endolux.phantom.raster:Raster", "__init__"),
    ("endolux.phantom.render", "pack"),
    ("endolux.phantom.streams", "usable_view"),
    ("endolux.phantom.render:Renderer", "probe"),
    ("endolux.phantom.render:Renderer", "_surface"),
    ("endolux.phantom.render", "pencil"),
    ("endolux.phantom.raster:Raster", "cast"),
    ("endolux.phantom.shadows:Arrivals", "of"),
    ("endolux.phantom.render", "find_points"),
    ("endolux.phantom.render", "_gather"),
    ("endolux.phantom.render", "develop"),
    ("endolux.phantom.streams", "flow"),
    ("endolux.phantom.landmarks", "draw"),
)


def _clocked(call: Callable[..., object], into: list[float]) -> Callable[..., object]:
    def wrapper(*args: object, **more: object) -> object:
        start = time.process_time()
        try:
            return call(*args, **more)
        finally:
            into.append(time.process_time() - start)

    return wrapper


@contextlib.contextmanager
def timed() -> Iterator[dict[str, list[float]]]:
    """Measure the calls of every stage; stages contain each other."""
    import importlib

    seconds: dict[str, list[float]] = {}
    saved = []
    for place, name in STAGES:
        module, _, inner = place.partition(":")
        owner = importlib.import_module(module)
        owner = getattr(owner, inner) if inner else owner
        original = getattr(owner, name, None)
        if original is None:
            continue
        label = f"{inner}.{name}" if inner else name
        seconds[label] = []
        saved.append((owner, name, original))
        setattr(owner, name, _clocked(original, seconds[label]))
    try:
        yield seconds
    finally:
        for owner, name, original in saved:
            setattr(owner, name, original)


def measure(preset: str, frames: int, seed: int, size: tuple[int, int]) -> dict[str, object]:
    """One preset in this process."""
    from endolux.phantom.presets import settings_of
    from endolux.phantom.render import flow
    from endolux.phantom.streams import shots

    cv2.setNumThreads(1)
    common = {"width": size[0], "height": size[1], "seed": seed, "baseline_mm": None, "sequence_frames": 25}
    # Everything is compiled, or read from the cache of compiled code, before the clock starts.
    small = {"width": 64, "height": 48, "views_per_scene": 2, "sequence_frames": 2, "frames": 40}
    list(shots(settings_of(preset, {**common, **small, "seed": seed + 1000})))
    list(shots(settings_of(preset, {**common, "frames": 2, "views_per_scene": 1, "sequence_frames": 1})))
    settings = settings_of(preset, {**common, "frames": frames, "seed": seed + 1})
    with timed() as stages:
        start, wall = time.process_time(), time.perf_counter()
        count = 0
        for shot in shots(settings):
            if shot.flow is None:
                # Stills have no next frame: the flow of a small move, so that every preset pays for all outputs.
                onward = shot.pose.copy()
                onward[:3, 3] += 0.5 * onward[:3, 2]
                seen = shot.truth
                flow(_surface_of(seen), shot.pose, onward, shot.camera)
            count += 1
        used, passed = time.process_time() - start, time.perf_counter() - wall
    builds = stages["build_scene"]
    return {
        "preset": preset,
        "frames": count,
        "frames_per_cpu_s": count / used,
        "frames_per_s": count / passed,
        "scene_build_s_median": statistics.median(builds),
        "scene_build_s_max": max(builds),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stage_ms": {
            name: {
                "calls": len(values),
                "median": 1e3 * statistics.median(values),
                "a_frame": 1e3 * sum(values) / count,
            }
            for name, values in stages.items()
            if values
        },
    }


def _surface_of(item: object) -> object:
    from endolux.phantom.render import PhantomFrame, Surface

    if not isinstance(item, PhantomFrame):
        raise TypeError(item)
    return Surface(item.depth.values, item.normals, item.labels, np.zeros_like(item.normals), 1.0)


def against_embree(seed: int, size: tuple[int, int], rounds: int = 7) -> dict[str, float] | None:
    """Primary rays of the same views by embree and by the raster; median milliseconds, and the medians' ratio."""
    try:
        from endolux.phantom.raycast import RayCaster
    except ImportError:
        return None
    from endolux.phantom.anatomy import ANATOMIES
    from endolux.phantom.lens import pencil, rays_of
    from endolux.phantom.presets import settings_of
    from endolux.phantom.raster import Raster
    from endolux.phantom.render import Renderer
    from endolux.phantom.scene import build_scene
    from endolux.phantom.world import usable_view

    times: dict[str, list[float]] = {"embree": [], "raster": [], "embree_build": [], "raster_build": []}

    def clock(name: str, call: Callable[[], object]) -> object:
        start = time.process_time()
        result = call()
        times[name].append(1e3 * (time.process_time() - start))
        return result

    settings = settings_of("train", {"width": size[0], "height": size[1]})
    rng = np.random.default_rng(seed)
    for name in sorted(ANATOMIES):
        scene = build_scene(name, rng)
        scope, pose, *_ = usable_view(rng, Renderer(scene), settings)
        rays = rays_of(scope.camera)
        directions = np.nan_to_num(rays) @ pose[:3, :3].T.astype(np.float32)
        directions[~np.isfinite(rays).all(axis=1)] = pose[:3, 2]
        origins = np.broadcast_to(pose[:3, 3].astype(np.float32), directions.shape)
        caster = clock("embree_build", lambda mesh=scene.mesh: RayCaster(mesh))
        raster = clock("raster_build", lambda mesh=scene.mesh: Raster(mesh))
        grid = pencil(scope.camera)
        count = len(rays)
        for _ in range(rounds):
            clock("embree", lambda a=caster, b=origins, c=directions: a.nearest(b, c))
            clock("raster", lambda a=raster, b=grid, c=pose, d=count: a.cast(b, c, rays=d))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians | {"ratio": medians["embree"] / medians["raster"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", default="320x256", help="WIDTHxHEIGHT")
    parser.add_argument("--presets", nargs="*", default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    from endolux.phantom.presets import PRESETS

    results = []
    context = multiprocessing.get_context("spawn")
    for preset in arguments.presets or list(PRESETS):
        # A process of its own: peak memory is a process's.
        with context.Pool(1) as pool:
            result = pool.apply(measure, (preset, arguments.frames, arguments.seed, (width, height)))
        results.append(result)
        print(
            f"{preset:14s} {result['frames_per_cpu_s']:6.1f} frames/CPU s  {result['frames_per_s']:6.1f} frames/s  "
            f"scene {result['scene_build_s_median']:.3f} s (max {result['scene_build_s_max']:.3f})  "
            f"{result['peak_memory_mb']:.0f} MB"
        )
        for name, row in result["stage_ms"].items():
            print(f"    {name:22s} {row['calls']:4d} calls  {row['median']:7.2f} ms  {row['a_frame']:7.2f} ms a frame")
    speeds = [result["frames_per_cpu_s"] for result in results]
    mean = len(speeds) / sum(1 / speed for speed in speeds)
    print(f"{'all presets':14s} {mean:6.1f} frames/CPU s (harmonic mean)")
    rays = against_embree(arguments.seed, (width, height))
    if rays is not None:
        print("primary rays, median ms: " + ", ".join(f"{name} {value:.2f}" for name, value in rays.items()))
    if arguments.json is not None:
        answer = {"size": [width, height], "presets": results, "frames_per_cpu_s": mean, "rays": rays}
        arguments.json.write_text(json.dumps(answer, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
