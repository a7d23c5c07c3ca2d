"""What is trained and tested on: phantom scenes rendered here, or data sets whose folders the user names."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from endolux.datasets import open_dataset
from endolux.errors import UsageError, missing_extra
from endolux.evaluate.hashes import write_hashes
from endolux.io.paths import printable
from endolux.reproduce.clips import clip_settings, render_moving
from endolux.reproduce.grid import Clips, Frames, Grid, Phantom, Published, Scale, Scoring
from endolux.reproduce.job import (
    CLIP_PROTOCOL,
    PHANTOM_PROTOCOL,
    REAL_PROTOCOL,
    RELATIVE_PROTOCOL,
    SCALED,
    SCALED_PROTOCOL,
    SHAPE_PROTOCOL,
    VIDEO_PROTOCOL,
    Data,
    ScoredSet,
    sha256_of,
)
from endolux.reproduce.landmark_sets import render_livers
from endolux.reproduce.real_frames import present, set_sha256

if TYPE_CHECKING:
    from endolux.phantom.presets import StreamSettings

_SHARD_SCENES = 8
Say = Callable[[str], None]


def phantom_data(
    scale: Scale,
    folder: Path,
    *,
    workers: int,
    say: Say,
    scoring: Scoring = "leve",
    real: Path | None = None,
    paths: Mapping[str, Path] | None = None,
) -> Data:
    """Render what is not there yet, and hash all of it; further test sets as they lie.

    Training frames lie in shards, test frames as pictures with depth, which ``endolux evaluate --protocol folder`` also
    reads. Sets have seeds of their own, so no scene is in two of them.

    Args:
        scale: what is rendered.
        folder: for all of it.
        workers: processes.
        say: told what happens.
        scoring: how rendered sets are scored.
        real: folder with the loose real frames of :mod:`endolux.reproduce.real_frames`.
        paths: further data sets by role, of the scale's readers.

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
    from endolux.phantom.layouts.folder import FolderLayout
    from endolux.phantom.workers import spread
    from endolux.phantom.write import write_folder, write_layout, write_shards

    folder.mkdir(parents=True, exist_ok=True)
    trained = sum(frames.frames for frames in phantom.training_sets.values())
    trained += sum(liver.frames for liver in phantom.liver.values())
    say(f"phantom data: {trained} training and {_tested(phantom)} test frames")
    for name, frames in phantom.training_sets.items():
        write_shards(
            _settings(phantom, frames),
            folder / name,
            shard_frames=_SHARD_SCENES * frames.views_per_scene,
            workers=workers,
        )
    missing = [name for name in phantom.roles if not (folder / name / "manifest.json").is_file()]
    stills = {name: _settings(phantom, frames) for name, frames in phantom.sets.items() if name in missing}
    jobs: list[tuple[object, ...]]
    if scoring == "leve":
        jobs = [(settings, folder / name) for name, settings in stills.items()]
        done = spread(write_folder, jobs, workers)
    else:
        moving = {name: clip_settings(phantom, clips) for name, clips in phantom.clips.items() if name in missing}
        bare = FolderLayout(outputs=())
        jobs = [(settings, folder / name, bare) for name, settings in (stills | moving).items()]
        done = spread(write_layout, jobs, workers)
    for _ in done:
        pass
    sets: dict[str, Frames | Clips] = {**phantom.training_sets, **phantom.sets, **phantom.clips}
    digests = {name: _hash(folder / name, folder / f"{name}.sha256") for name in sets}
    facts: dict[str, JsonValue] = {
        name: {**frames.model_dump(mode="json"), "sha256": digests[name]} for name, frames in sets.items()
    }
    titles = {role: frames.title for role, frames in sets.items() if role in phantom.roles}
    tests = [*_rendered_tests(phantom, folder, scoring)]
    livers = render_livers(phantom, folder, workers=workers)
    moving_sets = render_moving(phantom, folder, workers=workers)
    digests |= moving_sets.digests
    facts |= moving_sets.facts
    for more in (livers, _real_tests(real, say), _further_tests(scale, paths or {}, say)):
        tests += more.tests
        digests |= more.digests
        facts |= more.facts
        titles |= more.titles
    return Data(
        sources=(str(folder / "train"),),
        tests=tuple(tests),
        titles=titles,
        sha256=sha256_of(digests),
        facts={"kind": "phantom", "width": phantom.width, "height": phantom.height, "sets": facts},
        more_sources={
            **{name: (str(folder / name),) for name in phantom.more},
            **moving_sets.sources,
            **livers.sources,
        },
    )


def _rendered_tests(phantom: Phantom, folder: Path, scoring: Scoring) -> Iterator[ScoredSet]:
    for role, frames in phantom.sets.items():
        if scoring == "leve":
            yield ScoredSet(role=role, reader="folder", path=folder / role, protocol=PHANTOM_PROTOCOL)
            # A phantom's size cannot be known from one picture as a room's can: without scaling that error covers the
            # rest.
            yield ScoredSet(role=f"{role}{SCALED}", reader="folder", path=folder / role, protocol=SCALED_PROTOCOL)
        else:
            shape = scoring != "relative"
            yield ScoredSet(
                role=role,
                reader="folder",
                path=folder / role,
                protocol=SHAPE_PROTOCOL if shape else RELATIVE_PROTOCOL,
                shape=shape,
                scene_frames=frames.views_per_scene,
            )
    for role, clips in phantom.clips.items():
        yield ScoredSet(
            role=role,
            reader="folder",
            path=folder / role,
            protocol=VIDEO_PROTOCOL if scoring == "video" else CLIP_PROTOCOL,
            scene_frames=clips.frames_per_clip,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _More:
    """Test sets that lie somewhere already."""

    tests: list[ScoredSet] = dataclasses.field(default_factory=list)
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, JsonValue] = dataclasses.field(default_factory=dict)
    titles: dict[str, str] = dataclasses.field(default_factory=dict)


def _real_tests(root: Path | None, say: Say) -> _More:
    found = _More()
    if root is None:
        return found
    for name in present(root):
        found.tests.append(ScoredSet(role=name, reader=name, path=root.resolve(), protocol=REAL_PROTOCOL))
        found.digests[name] = set_sha256(name, root)
        found.facts[name] = {"reader": name, "sha256": found.digests[name]}
        found.titles[name] = name
    say(f"real frames: {', '.join(found.titles)}")
    return found


def _further_tests(scale: Scale, paths: Mapping[str, Path], say: Say) -> _More:
    found = _More()
    for role, path in paths.items():
        published = scale.readers[role]
        found.tests.append(_test(role, published, path))
        found.digests[role], count = _listing(published.reader, path)
        found.facts[role] = {"reader": published.reader, "frames": count, "listing_sha256": found.digests[role]}
        found.titles[role] = published.title
        say(f"{published.title.partition(',')[0]}: {count} frames")
    return found


def open_published(grid: Grid, scale: Scale, paths: Mapping[str, Path], *, say: Say) -> Data:
    """Data sets from the folders that the user named.

    Only names and sizes of files are hashed: the sets have tens of gigabytes.

    Raises:
        UsageError: ``reproduce.data`` where the training set was not named.
        InputError: as the readers.
    """
    domain = scale.readers[grid.domain]
    if grid.domain not in paths:
        known = "" if domain.train_frames is None else f" ({domain.train_frames} images)"
        raise UsageError(
            f"Where is {domain.title}?",
            why=f"This scale trains on it{known}, and it cannot be downloaded from here.",
            fix="Name its folder or zip archive: --data PATH, and others as --data "
            + " ".join(
                dict.fromkeys(f"{p.part_of or role}=PATH" for role, p in scale.readers.items() if role != grid.domain)
            )
            + ".",
            error_id="reproduce.data",
        )
    found = _further_tests(scale, paths, say)
    digests, facts = dict(found.digests), dict(found.facts)
    digests["train"], count = _listing(domain.train, paths[grid.domain])
    facts["train"] = {"reader": domain.train, "frames": count, "listing_sha256": digests["train"]}
    if domain.train_frames is not None and count != domain.train_frames:
        say(f"warning: {count} training images, the published run had {domain.train_frames}")
    return Data(
        sources=(f"{domain.train}:{paths[grid.domain].resolve()}",),
        tests=tuple(found.tests),
        titles=found.titles,
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
    roles: dict[str, list[str]] = {}
    for role, published in scale.readers.items():
        roles.setdefault(published.part_of or role, []).append(role)
    for text in texts:
        role, equals, rest = text.partition("=")
        if not equals or (role not in roles and Path(text).exists()):
            role, rest = grid.domain, text
        if role not in roles:
            near = difflib.get_close_matches(role, roles, n=1)
            raise _data(
                f"'{printable(text)}' is not used",
                f"This scale takes: {', '.join(roles)}." if scale.readers else "This scale renders its own data.",
                f"Did you mean '{near[0]}={rest}'?" if near else "Leave it out.",
            )
        if roles[role][0] in paths:
            raise _data(f"Two folders for '{role}'", "Each set lies in one place.", "Give one of them.")
        paths |= dict.fromkeys(roles[role], Path(rest))
    return paths


def _test(role: str, published: Published, path: Path) -> ScoredSet:
    return ScoredSet(
        role=role,
        reader=published.reader,
        path=path.resolve(),
        protocol=published.protocol,
        shape=published.shape,
        sequence=published.sequence,
    )


def _listing(reader: str, path: Path) -> tuple[str, int]:
    dataset = open_dataset(reader, path)
    digest, seen = hashlib.sha256(), dict[Path, int]()
    for key in dataset.keys():  # noqa: SIM118 -- a method, not a mapping
        sizes = [seen.setdefault(file, file.stat().st_size if file.is_file() else -1) for file in dataset.files(key)]
        digest.update(f"{key}\t{sizes}\n".encode())
    return digest.hexdigest(), len(dataset.keys())


def _settings(phantom: Phantom, frames: Frames) -> StreamSettings:
    from endolux.phantom.presets import StreamSettings

    return StreamSettings(
        anatomies=dict.fromkeys(frames.anatomies, 1.0),
        frames=frames.frames,
        width=phantom.width,
        height=phantom.height,
        views_per_scene=frames.views_per_scene,
        seed=frames.seed,
        split=frames.split,
        even_light=phantom.even_light,
        rich_texture=phantom.rich_texture,
    )


def _tested(phantom: Phantom) -> int:
    stills = sum(frames.frames for frames in phantom.sets.values())
    stills += sum(liver.frames for liver in phantom.liver_sets.values())
    return stills + sum(clips.clips * clips.frames_per_clip for clips in phantom.clips.values())


def _hash(folder: Path, manifest: Path) -> str:
    if not manifest.exists():
        write_hashes(folder, manifest)
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def _data(what: str, why: str, fix: str) -> UsageError:
    return UsageError(what, why=why, fix=fix, error_id="reproduce.data")
