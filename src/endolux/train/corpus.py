"""What there is to train on: the opened sources, and what of them is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from endolux.errors import InputError
from endolux.train.snippets import SnippetRule, Snippets
from endolux.train.sources import Clip, Source, open_source


class Corpus:
    """The opened sources, and what of them is held out.

    Args:
        sources: see :func:`endolux.train.sources.open_source`.
        held_out: names of the clips that are kept out of the training.
        snippets: makes snippets of the clips; None for single pictures.

    Raises:
        InputError, UsageError: see there; ``train.no-data`` without any source.
    """

    def __init__(
        self, sources: Sequence[str], *, held_out: Collection[str] = (), snippets: SnippetRule | None = None
    ) -> None:
        if not sources:
            raise InputError(
                "No training data",
                why="Neither the command nor the recipe names any.",
                fix="Add --data FOLDER, or READER:PATH for a data set.",
                error_id="train.no-data",
            )
        self._sources: list[Source] = [open_source(source) for source in sources]
        self.held_out = frozenset(held_out)
        self._snippets = None if snippets is None else Snippets(snippets)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or assumed, for people; grows as clips are opened."""
        return () if self._snippets is None else tuple(self._snippets.notes)

    def clips(self) -> list[Clip]:
        """What is there now, without what is held out."""
        found = [clip for source in self._sources for clip in source.clips() if clip.name not in self.held_out]
        if not found:
            raise InputError(
                "Nothing is left to train on",
                why="Every sequence is held out for validation.",
                fix="Hold out a smaller share (data.validation.fraction), or give more data.",
                error_id="train.no-data",
            )
        return self._cut(found)

    def kept(self) -> list[Clip]:
        """What is held out."""
        return self._cut([clip for source in self._sources for clip in source.clips() if clip.name in self.held_out])

    def _cut(self, clips: list[Clip]) -> list[Clip]:
        return clips if self._snippets is None else self._snippets.of(clips)

    def as_counted(self, counts: Mapping[str, int]) -> list[Clip]:
        """The clips that a pass began with, even if more samples have come since.

        Raises:
            InputError: ``train.data-changed`` where some are no longer there.
        """
        clips = []
        # Snippets are counted, and not the pictures that they are made of.
        cut = {(clip.name, clip.count): clip for clip in self.clips()} if self._snippets is not None else None
        for name, count in counts.items():
            if cut is not None:
                clip = cut.get((name, count))
            else:
                clip = next((c for source in self._sources if (c := source.reopened(name, count)) is not None), None)
            if clip is None:
                raise InputError(
                    f"'{name}' no longer has the {count} samples that the interrupted run was using",
                    why="Resuming needs the samples that the run began its present pass with.",
                    fix="Put the data back, or start a new run.",
                    error_id="train.data-changed",
                )
            clips.append(clip)
        return clips

    def sha256(self) -> str:
        """Hash over names, sizes and the ends of the files of every clip; not over all their bytes."""
        lines = sorted(f"{clip.label}\t{clip.count}\t{clip.fingerprint()}" for clip in self.clips() + self.kept())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def draw_held_out(sources: Sequence[str], fraction: float) -> tuple[str, ...]:
    """Names of the clips to keep for validation: whole ones, at least one, the same for the same names.

    Raises:
        InputError: ``train.hold-out`` for fewer than two clips.
    """
    if fraction <= 0:
        return ()
    clips = Corpus(sources).clips()
    if len(clips) < 2:
        raise InputError(
            f"One sequence cannot be parted into training and validation: '{clips[0].label}'",
            why="Neighbouring frames are alike, so whole sequences are held out.",
            fix="Give data.validation.sources, or set data.validation.fraction to 0.",
            error_id="train.hold-out",
        )
    order = sorted(clips, key=lambda clip: (hashlib.sha256(clip.label.encode()).digest(), clip.name))
    return tuple(clip.name for clip in order[: min(len(clips) - 1, max(1, round(fraction * len(clips))))])
