"""When the network is scored in a run, on what, and whether it is the best so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from endolux.errors import ModelError
from endolux.models import DepthNetwork
from endolux.train.batches import held_out_batches
from endolux.train.parallel import share
from endolux.train.validation import Best, run_protocols, validate

if TYPE_CHECKING:
    from accelerate import Accelerator

    from endolux.models.landmark_network import ExportedNetwork
    from endolux.train.feed import Feed
    from endolux.train.recipe import Recipe
    from endolux.train.stream import Position
    from endolux.train.task import Task


class Examiner:
    """Scores of the exported network on held-out data and by named protocols.

    Args:
        recipe: its ``evaluation`` and ``data.validation`` decide.
        task: may add scalars of its own.
        feed: where the held-out samples come from.
        accelerator: from :func:`endolux.train.parallel.open_accelerator`; the main process scores.
        best: what :meth:`Best.state` gave when the run was interrupted.

    Attributes:
        best: the best scores so far.
    """

    def __init__(
        self, recipe: Recipe, task: Task, feed: Feed, accelerator: Accelerator, best: Mapping[str, object] | None
    ) -> None:
        self._recipe, self._task, self._feed, self._accelerator = recipe, task, feed, accelerator
        self.best = Best(recipe.evaluation, best)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to score on."""
        return bool(self._feed.held_out or self._recipe.evaluation.protocols)

    def due(self, step: int, position: Position) -> bool:
        """Whether the network is scored after ``step`` steps."""
        samples = self._feed.stream.step_samples
        every, published = self._recipe.evaluation.every, self._recipe.batchnorm == "reproduce"
        if self._recipe.epochs is not None:
            number = position.taken // samples
            # As published: after batch 1000, counted from 0.
            inside = every is not None and (number - published) > 0 and (number - published) % every == 0
            return inside or position.ends(samples) or step == self._feed.steps
        return step == self._feed.steps or (every is not None and step % every == 0)

    def examine(self, network: ExportedNetwork) -> Mapping[str, float]:
        """Scores by name, the same in every process. A collective call.

        Raises:
            ModelError: ``train.validation`` in the other processes, where the main one failed.
        """
        scores: dict[str, float] = {}
        failure: Exception | None = None
        if self._accelerator.is_main_process:
            try:
                scores = self._scores(network)
            except Exception as error:
                # The others wait for the scores: tell them first.
                failure = error
        shared = share(None if failure is not None else scores, self._accelerator)
        if failure is not None:
            raise failure
        if not isinstance(shared, dict):
            raise ModelError(
                "The validation failed on the main process",
                why="Its message stands in the output of that process.",
                fix="Mend what it says.",
                error_id="train.validation",
            )
        return cast("Mapping[str, float]", shared)

    def _scores(self, network: ExportedNetwork) -> dict[str, float]:
        recipe, device = self._recipe, self._accelerator.device
        scores: dict[str, float] = {}
        size = recipe.data.size
        if self._feed.held_out:
            batches = held_out_batches(
                self._feed.held_out,
                batch=recipe.batch,
                size=size,
                limit=recipe.data.validation.limit,
                reader=self._feed.reader_anew(),
            )
            mean = recipe.evaluation.mean == "reproduce"
            measured = validate(self._task, network, batches, device=device, reproduce_mean=mean)
            scores = {f"validation/{name}": value for name, value in measured.items()}
        if recipe.evaluation.protocols and isinstance(network, DepthNetwork):
            scores |= run_protocols(
                recipe.evaluation.protocols,
                network,
                size=size or self._feed.stored_size(),
                device=device,
                # As the augmentation does: the endoscope's varies the aspect, the others stretch.
                stretch=recipe.data.augmentation.kind != "endoscope",
            )
        return scores
