"""Pictures of the liver with landmarks: rendered in the layout of L3D, and hashed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from endolux.evaluate.hashes import write_hashes
from endolux.reproduce.grid_liver import Liver
from endolux.reproduce.grid_phantom import Phantom
from endolux.reproduce.job import LANDMARK_PROTOCOL, ScoredSet

if TYPE_CHECKING:
    from endolux.phantom.presets import StreamSettings

LAYOUT = "l3d"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LiverSets:
    """What was rendered.

    Attributes:
        sources: of training sets by name, as recipes name them.
        tests: sets that are scored.
        titles: what each role's set is.
        digests: hash of the files of every set.
        facts: for the report.
    """

    sources: Mapping[str, tuple[str, ...]]
    tests: tuple[ScoredSet, ...]
    titles: Mapping[str, str]
    digests: Mapping[str, str]
    facts: Mapping[str, JsonValue]


def render_livers(phantom: Phantom, folder: Path, *, workers: int) -> LiverSets:
    """Render what is not there yet.

    Every set lies in a folder of its own, so that a training reads nothing of a test set.

    Args:
        phantom: sizes, and the sets.
        folder: for all of them, one below it each.
        workers: processes; the bytes do not depend on it.

    Raises:
        UsageError: as :func:`endolux.phantom.write.write_layout` for a folder with other settings; ``phantom.preset``,
            ``phantom.setting``.
    """
    sets = {**phantom.liver, **phantom.liver_sets}
    digests: dict[str, str] = {}
    for name, liver in sets.items():
        _render(liver_settings(phantom, liver), folder / name, workers)
        digests[name] = _hash(folder / name)
    return LiverSets(
        sources={name: (f"{liver.reader}:{folder / name}",) for name, liver in phantom.liver.items()},
        tests=tuple(
            ScoredSet(
                role=role,
                reader=liver.reader,
                path=folder / role,
                protocol=LANDMARK_PROTOCOL,
                scene_frames=liver.views_per_scene,
            )
            for role, liver in phantom.liver_sets.items()
        ),
        titles={role: liver.title for role, liver in phantom.liver_sets.items()},
        # The same files drawn otherwise are another set.
        digests=digests | {f"reader of {name}": liver.reader for name, liver in sets.items() if liver.reader != LAYOUT},
        facts={name: {**liver.model_dump(mode="json"), "sha256": digests[name]} for name, liver in sets.items()},
    )


def liver_settings(phantom: Phantom, liver: Liver) -> StreamSettings:
    """The phantom's settings of a set.

    Raises:
        UsageError: ``phantom.preset``, ``phantom.setting``, ``phantom.settings``.
    """
    from endolux.phantom.presets import merged, settings_of

    width, height = liver.size or (phantom.width, phantom.height)
    own: dict[str, object] = {
        "frames": liver.frames,
        "width": width,
        "height": height,
        "views_per_scene": liver.views_per_scene,
        "seed": liver.seed,
        "split": liver.split,
        "motion": "still",
        "baseline_mm": None,
    }
    return settings_of(liver.preset, merged(own, liver.settings))


def _render(settings: StreamSettings, folder: Path, workers: int) -> None:
    from endolux.phantom.layouts import get_layout
    from endolux.phantom.write import write_layout

    # What is hashed is whole.
    if not _manifest(folder).is_file():
        write_layout(settings, folder, get_layout(LAYOUT), workers=workers)


def _manifest(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256")


def _hash(folder: Path) -> str:
    if not _manifest(folder).is_file():
        write_hashes(folder, _manifest(folder))
    return hashlib.sha256(_manifest(folder).read_bytes()).hexdigest()
