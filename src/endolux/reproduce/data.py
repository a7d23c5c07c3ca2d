"""What is trained and tested on: phantom scenes rendered here, or data sets whose folders the user names."""

from __future__ import annotations

import concurrent.futures
import difflib
import hashlib
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from endolux.datasets import open_dataset
from endolux.errors import UsageError, missing_extra
from endolux.evaluate.hashes import write_hashes
from endolux.io.paths import printable
from endolux.reproduce.grid import Frames, Grid, Phantom, Published, Scale
from endolux.reproduce.plan import PHANTOM_PROTOCOL, SCALED, SCALED_PROTOCOL, Data, ScoredSet, sha256_of

if TYPE_CHECKING:
    from endolux.phantom.world import PhantomSettings

_SHARD_SCENES = 8
Say = Callable[[str], None]


def phantom_data(scale: Scale, folder: Path, *, workers: int, say: Say) -> Data:
    """Render what is not there yet, and hash all of it.

    Training frames lie in shards, test frames as pictures with depth, which ``endolux evaluate --protocol folder`` also
    reads. Sets have seeds of their own, so no scene is in two of them.

    Raises:
        MissingExtraError: without the extra ``phantom``.
        UsageError: as :func:`endolux.phantom.write.write_shards` for a folder with other settings.
    """
    phantom = scale.phantom
    if phantom is None:
        raise ValueError("this scale renders nothing")
    try:
        import embreex  # noqa: F401
        import numba  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "embreex", "phantom") from error
    from endolux.phantom.write import write_folder, write_shards

    folder.mkdir(parents=True, exist_ok=True)
    say(f"phantom data: {phantom.train.frames} training and {_tested(phantom)} test frames")
    write_shards(
        _settings(phantom, phantom.train),
        folder / "train",
        shard_frames=_SHARD_SCENES * phantom.train.views_per_scene,
        workers=workers,
    )
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(write_folder, _settings(phantom, frames), folder / name)
            for name, frames in phantom.sets.items()
            if not (folder / name / "manifest.json").is_file()
        ]
        for job in jobs:
            job.result()
    sets = {"train": phantom.train, **phantom.sets}
    digests = {name: _hash(folder / name, folder / f"{name}.sha256") for name in sets}
    tests = tuple(
        ScoredSet(role=f"{role}{ending}", reader="folder", path=folder / role, protocol=protocol)
        for role in phantom.sets
        # A phantom's size cannot be known from one picture as a room's can: without scaling that error covers the rest.
        for ending, protocol in (("", PHANTOM_PROTOCOL), (SCALED, SCALED_PROTOCOL))
    )
    facts: dict[str, JsonValue] = {
        name: {**frames.model_dump(mode="json"), "sha256": digests[name]} for name, frames in sets.items()
    }
    return Data(
        sources=(str(folder / "train"),),
        tests=tests,
        titles={role: frames.title for role, frames in phantom.sets.items()},
        sha256=sha256_of(digests),
        facts={"kind": "phantom", "width": phantom.width, "height": phantom.height, "sets": facts},
    )


def open_published(grid: Grid, scale: Scale, paths: Mapping[str, Path], *, say: Say) -> Data:
    """Data sets from the folders that the user named.

    Only names and sizes of files are hashed: the sets have tens of gigabytes.

    Raises:
        UsageError: ``reproduce.data`` where the training set was not named.
        InputError: as the readers.
    """
    domain = scale.readers[grid.domain]
    if grid.domain not in paths:
        raise UsageError(
            f"Where is {domain.title}?",
            why=f"This scale trains on it ({domain.train_frames} images), and it cannot be downloaded from here.",
            fix="Name its folder or zip archive: --data PATH, and others as --data "
            + " ".join(f"{role}=PATH" for role in scale.readers if role != grid.domain)
            + ".",
            error_id="reproduce.data",
        )
    tests, digests, facts = [], {}, dict[str, JsonValue]()
    for role, path in paths.items():
        published = scale.readers[role]
        tests.append(_test(role, published, path))
        digests[role], count = _listing(published.reader, path)
        facts[role] = {"reader": published.reader, "frames": count, "listing_sha256": digests[role]}
        say(f"{published.title.partition(',')[0]}: {count} frames")
    digests["train"], count = _listing(domain.train, paths[grid.domain])
    facts["train"] = {"reader": domain.train, "frames": count, "listing_sha256": digests["train"]}
    if domain.train_frames is not None and count != domain.train_frames:
        say(f"warning: {count} training images, the published run had {domain.train_frames}")
    return Data(
        sources=(f"{domain.train}:{paths[grid.domain].resolve()}",),
        tests=tuple(tests),
        titles={role: scale.readers[role].title for role in paths},
        sha256=sha256_of(digests),
        facts={"kind": "published", "sets": facts},
    )


def parse_paths(texts: Sequence[str], grid: Grid, scale: Scale) -> dict[str, Path]:
    """``PATH`` (the set of the training) and ``ROLE=PATH`` as paths by role.

    Raises:
        UsageError: ``reproduce.data`` for an unknown role (with the nearest name), a role given twice, or data for a
            scale that renders its own.
    """
    paths: dict[str, Path] = {}
    for text in texts:
        role, equals, rest = text.partition("=")
        if not equals or (role not in scale.readers and Path(text).exists()):
            role, rest = grid.domain, text
        if role not in scale.readers:
            near = difflib.get_close_matches(role, scale.readers, n=1)
            raise _data(
                f"'{printable(text)}' is not used",
                f"This scale takes: {', '.join(scale.readers)}."
                if scale.readers
                else "This scale renders its own data.",
                f"Did you mean '{near[0]}={rest}'?" if near else "Leave it out.",
            )
        if role in paths:
            raise _data(f"Two folders for '{role}'", "Each set lies in one place.", "Give one of them.")
        paths[role] = Path(rest)
    return paths


def _test(role: str, published: Published, path: Path) -> ScoredSet:
    return ScoredSet(role=role, reader=published.reader, path=path.resolve(), protocol=published.protocol)


def _listing(reader: str, path: Path) -> tuple[str, int]:
    dataset = open_dataset(reader, path)
    digest, seen = hashlib.sha256(), dict[Path, int]()
    for key in dataset.keys():  # noqa: SIM118 -- a method, not a mapping
        sizes = [seen.setdefault(file, file.stat().st_size if file.is_file() else -1) for file in dataset.files(key)]
        digest.update(f"{key}\t{sizes}\n".encode())
    return digest.hexdigest(), len(dataset.keys())


def _settings(phantom: Phantom, frames: Frames) -> PhantomSettings:
    from endolux.phantom.world import PhantomSettings

    return PhantomSettings(
        anatomies=dict.fromkeys(frames.anatomies, 1.0),
        frames=frames.frames,
        width=phantom.width,
        height=phantom.height,
        views_per_scene=frames.views_per_scene,
        seed=frames.seed,
        even_light=phantom.even_light,
    )


def _tested(phantom: Phantom) -> int:
    return sum(frames.frames for frames in phantom.sets.values())


def _hash(folder: Path, manifest: Path) -> str:
    if not manifest.exists():
        write_hashes(folder, manifest)
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def _data(what: str, why: str, fix: str) -> UsageError:
    return UsageError(what, why=why, fix=fix, error_id="reproduce.data")
