"""What a run is fed with: its samples in order, how long it lasts, and what is held out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from endolux.errors import UsageError
from endolux.train.corpus import Corpus, draw_held_out
from endolux.train.samples import Reader, Samples
from endolux.train.snippets import SnippetRule
from endolux.train.sources import Clip
from endolux.train.stream import Place, Position, Stream
from endolux.train.task import Start, Task

if TYPE_CHECKING:
    from accelerate import Accelerator

    from endolux.train.recipe import Data, Recipe


def open_data(
    data: Data, loop: Mapping[str, object], *, snippets: SnippetRule | None = None
) -> tuple[Corpus, list[Clip]]:
    """The training data of a recipe, and what it is scored on.

    Args:
        data: section of the recipe.
        snippets: makes snippets of the clips, for a training on video.
        loop: what a checkpoint keeps of the loop: what was held out when the run began stays held out.

    Raises:
        InputError, UsageError: no usable data, see :class:`Corpus`; ``train.hold-out``.
    """
    kept = loop.get("held_out")
    drawn = tuple(kept) if isinstance(kept, list) else draw_held_out(data.sources, data.validation.fraction)
    corpus = Corpus(data.sources, held_out=drawn, snippets=snippets)
    held_out = corpus.kept()
    if data.validation.sources:
        # The list names what is learnt from; what is held out in other sources is scored as it is.
        rule = None if snippets is None else dataclasses.replace(snippets, listed=None, static_below=0.0)
        held_out += Corpus(data.validation.sources, snippets=rule).clips()
    return corpus, held_out


class Feed:
    """The data of a run for one task.

    Args:
        recipe: data, batch, seed and length.
        task: may ask for maps beside each picture.
        corpus, held_out: from :func:`open_data`.
        accelerator: this process among others.
        loop: what a checkpoint keeps of the loop.
        position: where to go on.
        tell: shows a line.

    Attributes:
        corpus, reader, stream: of the training.
        held_out: clips that it is scored on.
        steps_per_epoch, steps: length of a pass and of the run.

    Raises:
        UsageError: ``train.recipe-changed`` where a step has another number of samples than before.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        corpus: Corpus,
        held_out: Sequence[Clip],
        accelerator: Accelerator,
        *,
        loop: Mapping[str, object],
        position: Position,
        tell: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._recipe, self._task, self._accelerator, self._tell = recipe, task, accelerator, tell
        self.corpus, self.held_out = corpus, tuple(held_out)
        self.reader = self.reader_anew(self._unreadable)
        unreadable = loop.get("unreadable")
        if isinstance(unreadable, Mapping):
            self.reader.unreadable.update({str(name): str(why) for name, why in unreadable.items()})
        self.stream = Stream(
            corpus,
            batch=recipe.batch,
            seed=recipe.seed,
            augmentation=recipe.data.augmentation,
            size=recipe.data.size,
            place=Place(rank=accelerator.process_index, world=accelerator.num_processes, micro=recipe.accumulate),
            workers=recipe.workers,
            position=position,
            reader=self.reader,
            extras=None if type(task).extras is Task.extras else task.extras,
            mirror_extras=recipe.distillation is None or recipe.distillation.response.mirrored,
        )
        per_epoch = loop.get("steps_per_epoch")
        self.steps_per_epoch = per_epoch if isinstance(per_epoch, int) else self.stream.steps_per_epoch()
        self.steps = recipe.steps or (recipe.epochs or 1) * self.steps_per_epoch
        self._check_world(loop)

    def reader_anew(self, on_unreadable: Callable[[str, str], None] | None = None) -> Reader:
        """A reader by the recipe's rules that has counted nothing yet."""
        limit = self._recipe.data.unreadable_limit
        return Reader(
            limit=limit,
            needs_depth=self._task.needs_depth,
            needs_labels=self._task.needs_labels,
            on_unreadable=on_unreadable,
        )

    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the first stored picture."""
        image = self.corpus.clips()[0].load(0).image
        return image.shape[1], image.shape[0]

    def start(self, output: Path, step: int) -> Start:
        """What the task may need before it goes on from ``step``."""
        samples = Samples(self.corpus.clips())
        for note in self.corpus.notes:
            self._tell({"message": note})
        return Start(
            output=output,
            count=len(samples),
            image=lambda index: self.reader.load(samples, index).image,
            size=self._recipe.data.size or self.stored_size(),
            wanted=(self.steps - step) * self.stream.step_samples,
            part=(self._accelerator.process_index, self._accelerator.num_processes),
            tell=self._tell,
        )

    def _unreadable(self, name: str, why: str) -> None:
        self._tell({"message": f"left out: {name} ({why})"})

    def _check_world(self, loop: Mapping[str, object]) -> None:
        before = loop.get("step_samples")
        if isinstance(before, int) and before != self.stream.step_samples:
            raise UsageError(
                f"A step now has {self.stream.step_samples} samples, and had {before}",
                why="The number of processes is another one than when the run began.",
                fix=f"Resume with {self._accelerator.num_processes * before // self.stream.step_samples} processes.",
                error_id="train.recipe-changed",
            )
