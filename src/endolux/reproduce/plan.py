"""The runs that follow from a grid: what each is made of, where it lies, and by which key its result is known."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from endolux.errors import InputError, UsageError, from_os_error
from endolux.io.paths import printable
from endolux.io.tables import write_json_atomic
from endolux.reproduce.grid import Row, Scale

PLAN_FILE, JOB_FILE, RUN_FOLDER = "plan.json", "job.json", "run"
TEACHER_SEED = 0
"""Of the row that teaches: there is one teacher for all seeds."""
PHANTOM_PROTOCOL = "phantom"
"""Stands for the convention of :func:`endolux.reproduce.worker.phantom_protocol`, which is no registered protocol."""
SCALED_PROTOCOL = "phantom-scaled"
"""The same after median scaling."""
SHAPE_PROTOCOL, CLIP_PROTOCOL, REAL_PROTOCOL = "phantom-shape", "phantom-clips", "real-frames"
"""Rendered stills, rendered clips and loose real frames by :mod:`endolux.reproduce.measures`."""
SCALED = ":scaled"
"""Ends the role of a set that is scored after median scaling as well."""
_SCHEMA = "endolux-reproduction"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSet:
    """A set that every run is scored on.

    Attributes:
        role: whose part it plays.
        reader, path: how and where it is read.
        protocol: how it is scored.
        shape: boundaries, texture and bands are measured as well.
        scene_frames: frames in a row that show one scene; 0 where the reader's sequences say so.
    """

    role: str
    reader: str
    path: Path
    protocol: str
    shape: bool = False
    scene_frames: int = 0

    @property
    def identity(self) -> list[JsonValue]:
        """What moves its figures, without the place on disk."""
        extra: list[JsonValue] = [self.shape, self.scene_frames] if self.shape or self.scene_frames else []
        return [self.role, self.reader, self.protocol, *extra]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a reproduction is trained and tested on.

    Attributes:
        sources: of the training, as recipes name them.
        tests: sets that are scored, by role.
        titles: what each role's set is.
        sha256: of all of it; moves the key of every result.
        facts: for the report, JSON values without paths.
        more_sources: of further training sets by name, for rows that name them.
    """

    sources: tuple[str, ...]
    tests: tuple[ScoredSet, ...]
    titles: Mapping[str, str]
    sha256: str
    facts: Mapping[str, JsonValue]
    more_sources: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def sources_of(self, name: str) -> tuple[str, ...]:
        """Sources of a training set by its name."""
        return self.sources if name == "train" else self.more_sources[name]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: a recipe, trained in a folder and scored on the test sets.

    Attributes:
        row, seed: which place of the tables it fills.
        architecture: of its network.
        recipe, overrides: for :func:`endolux.train.recipe.load_recipe`.
        tests: what it is scored on.
        conversion: of ratios to depth, ``correct`` or ``reproduce``.
        threads: of the process, None for all.
        folder: of the run.
        key: hash of everything that can move its figures.
        needs: names of runs that must have a result before it can begin.
        after: names of runs that must have ended, well or badly, before it begins.
        once: one run for all seeds.
    """

    row: str
    seed: int
    architecture: str
    recipe: str
    overrides: tuple[str, ...]
    tests: tuple[ScoredSet, ...]
    conversion: str
    threads: int | None
    folder: Path
    key: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    once: bool = False

    @property
    def name(self) -> str:
        """For people and folders: ``ts-25-seed1``."""
        return f"{self.row}-seed{self.seed}"


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
    changes: Sequence[str] = (),
) -> tuple[Job, ...]:
    """All runs, in the order in which they are made: every row with the first seed, then with the next.

    A row that teaches comes before them, once, whatever the seeds; rows that learn from it wait for its result.

    Runs of one seed differ in the row alone: same number of steps, same samples in the same order.

    Args:
        rows: which.
        scale: settings of all of them.
        seeds: which.
        data: what they are trained and tested on.
        output: folder of the reproduction.
        teacher: of the distilled rows, where no row is their teacher.
        imagenet: weights of the DDRNet-23-slim encoder.
        imagenet_mobilenetv3: weights of the MobileNetV3-Small encoder.
        changes: ``key.path=value`` on top of every recipe.
    """
    jobs: list[Job] = []
    master: Job | None = None
    for row, seed in _order(rows, seeds):
        encoder = imagenet_mobilenetv3 if "mobilenet" in row.architecture else imagenet
        free = [f"data.sources={json.dumps(list(data.sources_of(row.data)))}"]
        if row.learns:
            if master is not None:
                free.append(f"teacher.model={json.dumps(str(master.folder / RUN_FOLDER))}")
            free.append(f"teacher.cache={json.dumps(str(output / 'teacher'))}")
        if encoder is not None:
            free.append(f"model.imagenet={json.dumps(str(encoder))}")
        fixed = (*_overrides(row, scale, seed, None if master is not None else teacher), *changes)
        identity: dict[str, JsonValue] = {
            "row": dataclasses.asdict(_Identity(row.name, row.recipe, row.architecture)),
            "overrides": list(fixed),
            "data": data.sha256,
            "imagenet": encoder.name if encoder else None,
            "conversion": scale.conversion,
            "tests": [test.identity for test in data.tests],
        }
        if row.learns and master is not None:
            identity["teacher"] = master.key
        if row.data != "train":
            identity["training set"] = row.data
        first = next((job.name for job in jobs if job.needs), None)
        job = Job(
            row=row.name,
            seed=seed,
            architecture=row.architecture,
            recipe=row.recipe,
            overrides=(*fixed, *free),
            tests=data.tests,
            conversion=scale.conversion,
            threads=scale.threads,
            folder=output / "runs" / f"{row.name}-seed{seed}",
            key=sha256_of(identity),
            needs=(master.name,) if row.learns and master is not None else (),
            # The first one asks the teacher about all pictures; two at once would ask twice.
            once=row.teacher,
            after=(first,) if row.learns and master is not None and first is not None else (),
        )
        jobs.append(job)
        if row.teacher:
            master = job
    return tuple(jobs)


def _order(rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[tuple[Row, int]]:
    """The teacher once, then every row with the first seed, then with the next."""
    yield from ((row, TEACHER_SEED) for row in rows if row.teacher)
    yield from ((row, seed) for seed in seeds for row in rows if not row.teacher)


@dataclasses.dataclass(frozen=True, slots=True)
class _Identity:
    name: str
    recipe: str
    architecture: str


def _overrides(row: Row, scale: Scale, seed: int, teacher: str | None) -> tuple[str, ...]:
    overrides = [*scale.overrides, f"seed={seed}"]
    size = row.size or ((scale.phantom.width, scale.phantom.height) if scale.phantom is not None else None)
    if size is not None:
        overrides.append(f"data.size={json.dumps(list(size))}")
    if row.learns:
        overrides += [f"teacher.model={json.dumps(teacher)}"] if teacher is not None else []
        overrides += [f"distillation.response.epsilon={row.epsilon}"] if row.epsilon is not None else []
        overrides += scale.distillation_overrides
    return (*overrides, *row.overrides, *scale.row_overrides.get(row.name, ()))


def claim_output(output: Path, identity: Mapping[str, JsonValue]) -> None:
    """Take the output folder, or go on in it where the same reproduction was begun there.

    Raises:
        UsageError: ``output.is-file``, ``output.foreign`` for a folder with other files, ``output.other-run`` for one
            of another reproduction, ``output.not-writable``.
    """
    wanted = {"schema": _SCHEMA, **identity}
    record = output / PLAN_FILE
    try:
        if output.exists() and not output.is_dir():
            raise UsageError(
                f"'{printable(output)}' is a file",
                why="A reproduction is a folder of runs and tables.",
                fix="Choose another -o FOLDER.",
                error_id="output.is-file",
            )
        if record.is_file():
            found = _read(record)
            differing = [
                f"{name} was {found.get(name)!r} and is {value!r}"
                for name, value in wanted.items()
                if found.get(name) != value
            ]
            if differing:
                raise UsageError(
                    f"'{printable(output)}' holds another reproduction: {'; '.join(differing)[:300]}",
                    why="Results of two reproductions in one folder would end in one table.",
                    fix="Choose another -o FOLDER, or repeat the settings of plan.json there.",
                    error_id="output.other-run",
                )
            return
        if output.exists() and any(output.iterdir()):
            raise UsageError(
                f"'{printable(output)}' is not empty",
                why="Endolux never overwrites files that it did not write.",
                fix="Choose an empty or new -o FOLDER.",
                error_id="output.foreign",
            )
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, output) from error
    write_json_atomic(record, wanted)


def write_job(job: Job) -> Path:
    """Write ``job.json`` into the run's folder.

    Raises:
        UsageError: ``output.other-run`` where that folder holds a run of another recipe or of other data.
    """
    record = job.folder / JOB_FILE
    if record.is_file():
        old = read_job(record)
        if old.key != job.key:
            changed = sorted(set(old.overrides) ^ set(job.overrides))
            raise UsageError(
                f"'{printable(job.folder)}' holds a run of another recipe or of other data",
                why=f"Its key is {old.key[:12]} and this one's is {job.key[:12]}. {' '.join(changed)[:200]}",
                fix="Choose another -o FOLDER; what was measured there is kept.",
                error_id="output.other-run",
            )
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, job.folder) from error
    document = dataclasses.asdict(job)
    document["folder"] = str(job.folder)
    document["tests"] = [{**dataclasses.asdict(test), "path": str(test.path)} for test in job.tests]
    write_json_atomic(record, document)
    return record


def read_job(path: Path) -> Job:
    """The job of a ``job.json``.

    Raises:
        InputError: ``reproduce.damaged``.
    """
    document = _read(path)
    try:
        tests = tuple(
            ScoredSet(**{**test, "path": Path(str(test["path"]))})  # type: ignore[arg-type]
            for test in cast("list[dict[str, object]]", document["tests"])
        )
        lists = {name: tuple(cast("Iterable[str]", document.get(name, ()))) for name in ("overrides", "needs", "after")}
        fields = {**document, **lists, "tests": tests, "folder": Path(str(document["folder"]))}
        return Job(**fields)  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def sha256_of(document: object) -> str:
    """Hash of JSON values, independent of the order of keys.

    Example:
        >>> sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(document, dict):
        raise _damaged(path, TypeError("no JSON object"))
    return document


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"Cannot read '{printable(path)}'",
        why=f"{type(error).__name__}: {error}",
        fix="Choose another -o FOLDER, or remove this folder if nothing in it is needed.",
        error_id="reproduce.damaged",
    )
