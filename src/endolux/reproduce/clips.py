"""Moving pictures of the phantom world: how they are rendered, and those that are trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from endolux.evaluate.hashes import write_hashes
from endolux.reproduce.grid_phantom import Clips, Phantom

if TYPE_CHECKING:
    from endolux.phantom.presets import StreamSettings

_SHARD_CLIPS = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MovingSets:
    """What was rendered.

    Attributes:
        sources: of training sets by name, as recipes name them.
        digests: hash of the files of every set.
        facts: for the report.
    """

    sources: Mapping[str, tuple[str, ...]]
    digests: Mapping[str, str]
    facts: Mapping[str, JsonValue]


def render_moving(phantom: Phantom, folder: Path, *, workers: int) -> MovingSets:
    """Render the training sets of clips that are not there yet, as shards with poses and intrinsics.

    Args:
        phantom: sizes, and the sets.
        folder: for all of them, one below it each.
        workers: processes; the bytes do not depend on it.

    Raises:
        UsageError: as :func:`endolux.phantom.write.write_shards` for a folder with other settings; ``phantom.preset``,
            ``phantom.setting``.
    """
    if not phantom.moving:
        return MovingSets(sources={}, digests={}, facts={})
    from endolux.phantom.write import write_shards

    digests: dict[str, str] = {}
    for name, clips in phantom.moving.items():
        write_shards(
            clip_settings(phantom, clips),
            folder / name,
            shard_frames=_SHARD_CLIPS * clips.frames_per_clip,
            workers=workers,
        )
        manifest = folder / f"{name}.sha256"
        if not manifest.is_file():
            write_hashes(folder / name, manifest)
        digests[name] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return MovingSets(
        sources={name: (str(folder / name),) for name in phantom.moving},
        digests=digests,
        facts={
            name: {**clips.model_dump(mode="json"), "sha256": digests[name]} for name, clips in phantom.moving.items()
        },
    )


def clip_settings(phantom: Phantom, clips: Clips) -> StreamSettings:
    """The phantom's settings of a set of clips.

    Raises:
        UsageError: ``phantom.preset``, ``phantom.setting``, ``phantom.settings``.

    Example:
        >>> clips = Clips(anatomies=("colon",), clips=2, frames_per_clip=3, seed=1, fps=5.0)
        >>> still = {"anatomies": ("colon",), "frames": 1, "views_per_scene": 1, "seed": 0}
        >>> phantom = Phantom(width=64, height=64, even_light=0.0, train=still, sets={})
        >>> found = clip_settings(phantom, clips)
        >>> found.frames, found.sequence_frames, found.fps, found.motion.value
        (6, 3, 5.0, 'mixed')
    """
    from endolux.phantom.presets import merged, settings_of, validated

    own: dict[str, object] = {
        "anatomies": dict.fromkeys(clips.anatomies, 1.0),
        "frames": clips.clips * clips.frames_per_clip,
        "sequence_frames": clips.frames_per_clip,
        "motion": clips.motion,
        "fps": clips.fps,
        "width": phantom.width,
        "height": phantom.height,
        "seed": clips.seed,
        "split": clips.split,
        "even_light": phantom.even_light,
        "rich_texture": phantom.rich_texture,
        # The scene must not move: what is held does, and so does smoke.
        "held": 0.0,
        "smoke": 0.0,
        "baseline_mm": None,
    }
    changes = merged(own, clips.settings)
    return settings_of(clips.preset, changes) if clips.preset else validated(changes)
