"""What distillation costs: an epoch without a teacher, with a teacher through a full cache, and asking it every time.

All in one run, in turns, on the same student and pictures, so that only ratios matter. The last way is that of the
published Leve, whose epochs took 40 h / 11 h = 3.6 times as long with the teacher.

    python benchmarks/distill.py --data SHARDS                          # the bundled model teaches
    python benchmarks/distill.py --data SHARDS --teacher random-depth-anything-small
    python benchmarks/distill.py --data SHARDS --trinity --student litenet-s --size 320x256

With ``--trinity``: labels alone against labels with all four terms of LiteNet (everything released, a full cache), and
each term on its own, on the same student; the teacher is a LiteNet of random weights, which costs the cache the same.

The second teacher has the shape of Depth Anything Small with random weights: it costs what the real one costs, and
its maps mean nothing, so take the bytes a frame from the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from typing_extensions import override

from endolux.models import create
from endolux.models.teachers import NetworkTeacher, Teacher
from endolux.train.data import Corpus, Samples
from endolux.train.engine import fit
from endolux.train.knowledge import KnowledgeCache, open_teacher
from endolux.train.recipe import Recipe, load_recipe
from endolux.train.task import Start, Task
from endolux.train.tasks import build_task
from endolux.train.tasks.distillation import DistillationTask
from endolux.train.tasks.trinity import TrinityTask
from endolux.types import FloatArray, ImageArray

RANDOM_SMALL = "random-depth-anything-small"


class AskedEveryTime(DistillationTask):
    """The published way: the teacher computes in the data loader, for every sample of every epoch."""

    @override
    def begin(self, start: object) -> None:
        self.size = start.size  # type: ignore[attr-defined]

    @override
    def extras(self, image: ImageArray, key: str) -> Mapping[str, FloatArray]:
        return {"teacher": self.teacher.predict(image, size=self.size).knowledge()}


def random_small(folder: Path) -> str:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(DepthAnythingConfig()).save_pretrained(folder)
    return str(folder)


class Turnstile:
    """Lets one of several trainings at a time make a step, in turns: what else the machine does meets all alike."""

    def __init__(self, names: list[str]) -> None:
        self._names, self._turn, self._condition = names, names[0], threading.Condition()

    def wait(self, name: str) -> None:
        """Until it is this one's turn."""
        with self._condition:
            self._condition.wait_for(lambda: self._turn == name)

    def pass_on(self, name: str, *, leave: bool = False) -> None:
        """The next one's turn."""
        with self._condition:
            following = self._names[(self._names.index(name) + 1) % len(self._names)]
            if leave:
                self._names.remove(name)
            self._turn = following
            self._condition.notify_all()


def seconds_a_step(ways: dict[str, tuple[Recipe, type[Task] | None]], data: list[str]) -> dict[str, list]:
    """(wall clock, processor time) of every step of each training but the first, which allocates."""
    turns, measured = Turnstile(list(ways)), {name: [] for name in ways}
    failures: list[BaseException] = []

    def run(name: str, recipe: Recipe, task: type[Task] | None, folder: Path) -> None:
        begun = [0.0, 0.0]

        def note(line: Mapping[str, object]) -> None:
            if "total" not in line:
                return
            now = [time.perf_counter(), time.process_time()]
            measured[name].append((now[0] - begun[0], now[1] - begun[1]))
            turns.pass_on(name)
            turns.wait(name)
            begun[:] = [time.perf_counter(), time.process_time()]

        turns.wait(name)
        try:
            torch.manual_seed(recipe.seed)
            chosen = build_task(recipe) if task is None else task.from_recipe(recipe)
            fit(chosen, recipe, data, folder, on_log=note)
        except BaseException as error:
            failures.append(error)
        finally:
            turns.pass_on(name, leave=True)

    with tempfile.TemporaryDirectory() as folder:
        runs = [
            threading.Thread(target=run, args=(name, recipe, task, Path(folder) / str(number)))
            for number, (name, (recipe, task)) in enumerate(ways.items())
        ]
        for one in runs:
            one.start()
        for one in runs:
            one.join()
    if failures:
        raise failures[0]
    return {name: steps[1:] for name, steps in measured.items()}


def trinity(options: argparse.Namespace) -> dict[str, object]:
    """What the terms of LiteNet add to a step, all of them and one at a time."""
    off = {
        "trinity": "distillation.trinity.weight=0", "semantic": "distillation.semantic.weight=0",
        "spatial": "distillation.trinity.spatial=0", "gradient": "distillation.trinity.gradient=0",
        "spectral": "distillation.trinity.spectral=0",
    }  # fmt: skip
    variants = {
        "labels alone": ["trinity", "semantic"],
        "all four terms": [],
        "spatial": ["gradient", "spectral", "semantic"],
        "gradient": ["spatial", "spectral", "semantic"],
        "spectral": ["spatial", "gradient", "semantic"],
        "semantic": ["trinity"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        common = [
            f"model={{name: {options.student}}}", f"data.size={options.size}", f"batch={options.batch}",
            f"steps={options.steps}", f"threads={options.threads}", f"workers={options.workers}",
            f"precision={options.precision}", "log_every=1", "checkpoint_every=1000000", "teacher.model=random",
            f"teacher.cache={scratch}/knowledge", "teacher.fill=lazy", "distillation.semantic.frames=16",
            "distillation.trinity.release.unit=none", "distillation.trinity.balance_step=null",
        ]  # fmt: skip
        torch.manual_seed(0)
        teacher = NetworkTeacher(create("litenet-t"), name="random")

        class Taught(TrinityTask):
            @classmethod
            @override
            def from_recipe(cls, recipe: Recipe) -> TrinityTask:
                assert recipe.distillation is not None
                network = create(recipe.model.name, **recipe.model.config)
                made = cls(
                    network, teacher, loss=recipe.loss, distillation=recipe.distillation, source=recipe.teacher
                )  # fmt: skip
                if not (recipe.distillation.trinity.weight or recipe.distillation.semantic.weight):
                    made.teacher = None
                return made

            @override
            def begin(self, start: Start) -> None:
                super().begin(start)
                if self._knowledge is not None:
                    # Only the pictures of the steps; the cache of one variant is another's where the layers agree.
                    order = np.random.default_rng((0, 0)).permutation(start.count)
                    for index in order[: options.steps * options.batch]:
                        self._knowledge.get(start.image(int(index)))

        ways = {
            name: (load_recipe("litenet-labels", [*common, *(off[term] for term in terms)]), Taught)
            for name, terms in variants.items()
        }
        steps = seconds_a_step(ways, options.data)
    return report(steps, "labels alone", options)


def report(steps: dict[str, list], base: str, options: argparse.Namespace) -> dict[str, object]:
    """Medians of the steps, and their ratios to those of ``base``."""
    medians = {name: statistics.median(wall for wall, _ in turns) for name, turns in steps.items()}
    busy = {name: statistics.median(work for _, work in turns) for name, turns in steps.items()}
    ratios = {name: [medians[name] / medians[base], busy[name] / busy[base]] for name in steps}
    for name in steps:
        print(
            f"{name:>16}: {medians[name]:.3f} s a step of {options.batch}, {ratios[name][0]:.3f} times; "
            f"{busy[name]:.3f} s of processor time, {ratios[name][1]:.3f} times ({len(steps[name])} steps)"
        )
    return {
        "student": options.student, "size": options.size, "batch": options.batch, "threads": options.threads,
        "precision": options.precision, "median_step_s": medians, "median_step_processor_s": busy, "steps_s": steps,
        "ratios": ratios,
    }  # fmt: skip


def speed_of_reading(cache: KnowledgeCache, images: list[ImageArray]) -> float:
    """Seconds to find, check and decode one answer."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        for image in images:
            cache.get(image)
        best = min(best, (time.perf_counter() - begun) / len(images))
    return best


def largest_error(cache: KnowledgeCache, teacher: Teacher, images: list[ImageArray]) -> float:
    """Largest difference of a stored map from the teacher's, in parts of the map's range."""
    worst = 0.0
    for image in images[:8]:
        exact, stored = teacher.predict(image, size=cache.map_size).knowledge(), cache.get(image).map
        worst = max(worst, float(np.nanmax(np.abs(exact - stored)) / (np.nanmax(exact) - np.nanmin(exact))))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--teacher", default="repdepth-colon")
    parser.add_argument("--student", default="leve")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--direct-steps", type=int, default=3, help="steps that ask the teacher every time")
    parser.add_argument("--frames", type=int, default=None, help="pictures to fill; by default those of the steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON")
    parser.add_argument("--trinity", action="store_true", help="the four terms of LiteNet")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.trinity:
        found = trinity(options)
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as scratch:
        spec = options.teacher if options.teacher != RANDOM_SMALL else random_small(Path(scratch) / "teacher")
        common = [
            f"model.name={options.student}", f"data.size={options.size}", f"batch={options.batch}", "epochs=null",
            f"threads={options.threads}", f"workers={options.workers}", f"precision={options.precision}",
            "log_every=1", "checkpoint_every=1000000",
        ]  # fmt: skip
        taught = [f"teacher.model={spec}", f"teacher.cache={scratch}/knowledge", "teacher.fill=lazy"]
        plain = load_recipe("leve", [*common, f"steps={options.steps}"])
        cached = load_recipe("leve-distilled", [*common, *taught, f"steps={options.steps}"])
        direct = load_recipe("leve-distilled", [*common, *taught, f"steps={options.direct_steps}"])

        teacher = open_teacher(spec)
        samples = Samples(Corpus(options.data).clips())
        assert cached.data.size is not None
        cache = KnowledgeCache(Path(scratch) / "knowledge", teacher, size=cached.data.size)
        order = np.random.default_rng((cached.seed, 0)).permutation(len(samples))
        frames = min(len(samples), options.frames or options.steps * options.batch)
        fill = cache.fill(frames, lambda index: samples[int(order[index])].image)
        assert fill.computed == frames, "the cache was not empty"
        print(f"fill: {frames} pictures in {fill.seconds:.1f} s, {1000 * fill.seconds / frames:.0f} ms each")
        print(f"size: {fill.size.bytes_per_frame / 1000:.1f} kB a picture at {options.size}")
        images = [samples[int(index)].image for index in order[: min(frames, 64)]]
        reading, error = speed_of_reading(cache, images), largest_error(cache, teacher, images)
        print(f"reading: {1000 * reading:.2f} ms a picture; off by at most {error:.1e} of a map's range")

        ways: dict[str, tuple[Recipe, type[Task] | None]] = {
            "without": (plain, None), "cached": (cached, None), "asked every time": (direct, AskedEveryTime),
        }  # fmt: skip
        steps = seconds_a_step(ways, options.data)
        count = len(KnowledgeCache(Path(scratch) / "knowledge", teacher, size=cached.data.size)._records)
        assert count == frames, "an answer was computed while it was timed"
    found = report(steps, "without", options)
    if options.output is not None:
        facts = {
            **found, "teacher": options.teacher, "bytes_per_frame": fill.size.bytes_per_frame,
            "fill_s_per_frame": fill.seconds / frames, "reading_s_per_frame": reading, "largest_error_of_range": error,
            "frames": frames,
        }  # fmt: skip
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
