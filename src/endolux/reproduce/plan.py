"""The runs that follow from a grid: in which order, from what, and by which key their results are known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from endolux.reproduce.grid import Row, Scale
from endolux.reproduce.job import LANDMARK_PROTOCOL, RUN_FOLDER, Data, Job, ScoredSet, sha256_of

INITIAL = "model.initial"
"""Key of a recipe: what its network starts from."""
ONCE_SEED = 0
"""Of rows with one run for all seeds: who teaches, what others start from, what is not trained."""


def plan_jobs(
    rows: Sequence[Row],
    scale: Scale,
    *,
    seeds: Sequence[int],
    data: Data,
    output: Path,
    teacher: str,
    imagenet: Path | None = None,
    imagenet_mobilenetv3: Path | None = None,
    pretrained: Mapping[str, str] | None = None,
    changes: Sequence[str] = (),
) -> tuple[Job, ...]:
    """All runs, in the order in which they are made: every row with the first seed, then with the next.

    Rows with one run for all seeds come before them; rows that learn from one of them or start from it wait for it.

    Runs of one seed differ in the row alone: same number of steps, same samples in the same order.

    Args:
        rows: which.
        scale: settings of all of them.
        seeds: which.
        data: what they are trained and tested on.
        output: folder of the reproduction.
        teacher: of the distilled rows, where no row that is trained is their teacher.
        imagenet: weights of the DDRNet-23-slim encoder.
        imagenet_mobilenetv3: weights of the MobileNetV3-Small encoder.
        pretrained: keys of recipes -> pretrained models, for rows that have no prior there.
        changes: ``key.path=value`` on top of every recipe.
    """
    jobs: list[Job] = []
    master: Job | None = None
    first: str | None = None
    priors: dict[str, Job] = {}
    for row, seed in _order(rows, seeds):
        if row.model:
            jobs.append(_scored(row, scale, data=data, output=output, pretrained=pretrained or {}))
            if row.prior:
                priors[row.name] = jobs[-1]
            continue
        tests = sets_of(row, data.tests)
        encoder = imagenet_mobilenetv3 if "mobilenet" in row.architecture else imagenet
        free = [f"data.sources={json.dumps(list(data.sources_of(row.data)))}"]
        if row.learns:
            if master is not None:
                free.append(f"teacher.model={json.dumps(str(master.folder / RUN_FOLDER))}")
            free.append(f"teacher.cache={json.dumps(str(output / 'teacher'))}")
        prior = priors[row.start] if row.start else None
        if prior is not None:
            free.append(f"model.initial={json.dumps(prior.model or str(prior.folder / RUN_FOLDER))}")
        elif encoder is not None:
            free.append(f"model.imagenet={json.dumps(str(encoder))}")
        free += start_overrides(row, {name: job.folder / RUN_FOLDER for name, job in priors.items()}, pretrained or {})
        fixed = (*row_overrides(row, scale, seed, None if master is not None else teacher), *changes)
        identity: dict[str, JsonValue] = {
            "row": dataclasses.asdict(_Identity(row.name, row.recipe, row.architecture)),
            "overrides": list(fixed),
            "data": data.sha256,
            "imagenet": encoder.name if encoder else None,
            "conversion": scale.conversion,
            "tests": [test.identity for test in tests],
        }
        if row.learns and master is not None:
            identity["teacher"] = master.key
        if row.data != "train":
            identity["training set"] = row.data
        if prior is not None:
            identity["start"] = prior.key
        if row.starts:
            identity["starts"] = {key: priors[name].key for key, name in row.starts.items() if name}
        if pretrained:
            identity["pretrained"] = {key: Path(spec).name for key, spec in sorted(pretrained.items())}
        pupil = row.learns and master is not None
        job = Job(
            row=row.name,
            seed=seed,
            architecture=row.architecture,
            recipe=row.recipe,
            overrides=(*fixed, *free),
            tests=tests,
            conversion=scale.conversion,
            threads=scale.threads,
            folder=output / "runs" / f"{row.name}-seed{seed}",
            key=sha256_of(identity),
            needs=(
                *((master.name,) if pupil and master is not None else ()),
                *(priors[name].name for name in sorted(row.begins_from) if not priors[name].model),
            ),
            once=row.once,
            # The first one asks the teacher about all pictures; two at once would ask twice.
            after=(first,) if pupil and first is not None else (),
        )
        jobs.append(job)
        first = first or (job.name if pupil else None)
        if row.teacher:
            master = job
        if row.prior:
            priors[row.name] = job
    return tuple(jobs)


def sets_of(row: Row, tests: tuple[ScoredSet, ...]) -> tuple[ScoredSet, ...]:
    """The sets that a row's network has an answer for: a network of landmarks gives no depth, and the reverse."""
    if not any(test.protocol == LANDMARK_PROTOCOL for test in tests):
        return tests
    from endolux.train.recipe import load_recipe

    marks = bool(row.recipe) and load_recipe(row.recipe).task == "segmentation"
    return tuple(test for test in tests if (test.protocol == LANDMARK_PROTOCOL) is marks)


def start_overrides(row: Row, priors: Mapping[str, Path], pretrained: Mapping[str, str]) -> list[str]:
    """What a row's recipe says of the weights that parts of its network start from.

    Args:
        row: with ``starts``.
        priors: their runs by row.
        pretrained: keys of the recipe -> pretrained models, for parts without a prior.

    Example:
        >>> starts = {"segmentation.image_encoder": "prior", "segmentation.depth_encoder": ""}
        >>> row = Row(name="a", recipe="r", architecture="n", starts=starts)
        >>> start_overrides(row, {"prior": Path("runs/prior")}, {"segmentation.depth_encoder": "small"})
        ['segmentation.image_encoder="runs/prior"', 'segmentation.depth_encoder="small"']
    """
    found = {key: priors[name].as_posix() if name else pretrained.get(key, "") for key, name in row.starts.items()}
    return [f"{key}={json.dumps(value)}" for key, value in found.items() if value]


def _scored(row: Row, scale: Scale, *, data: Data, output: Path, pretrained: Mapping[str, str]) -> Job:
    """The run of a row that is not trained; what others start from is what the user says, where he says it."""
    model = pretrained.get(INITIAL, row.model) if row.prior else row.model
    identity: dict[str, JsonValue] = {
        "row": row.name,
        "model": model,
        "data": data.sha256,
        "tests": [test.identity for test in data.tests],
    }
    return Job(
        row=row.name,
        seed=ONCE_SEED,
        architecture="",
        recipe="",
        overrides=(),
        tests=data.tests,
        conversion=scale.conversion,
        threads=scale.threads,
        folder=output / "runs" / f"{row.name}-seed{ONCE_SEED}",
        key=sha256_of(identity),
        once=True,
        model=model,
    )


def _order(rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[tuple[Row, int]]:
    """Rows of one run, then every other row with the first seed, then with the next."""
    yield from ((row, ONCE_SEED) for row in rows if row.once)
    yield from ((row, seed) for seed in seeds for row in rows if not row.once)


@dataclasses.dataclass(frozen=True, slots=True)
class _Identity:
    name: str
    recipe: str
    architecture: str


def row_overrides(row: Row, scale: Scale, seed: int, teacher: str | None) -> tuple[str, ...]:
    """What the grid says of a row's recipe, without folders; ``teacher`` is None where a run teaches or nobody."""
    overrides = [*scale.overrides, f"seed={seed}"]
    size = row.size or ((scale.phantom.width, scale.phantom.height) if scale.phantom is not None else None)
    if size is not None:
        overrides.append(f"data.size={json.dumps(list(size))}")
    if row.learns:
        overrides += [f"teacher.model={json.dumps(teacher)}"] if teacher is not None else []
        overrides += [f"distillation.response.epsilon={row.epsilon}"] if row.epsilon is not None else []
        overrides += scale.distillation_overrides
    return (*overrides, *row.overrides, *scale.row_overrides.get(row.name, ()))
