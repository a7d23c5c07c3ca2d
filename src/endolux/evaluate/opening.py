"""The predictor that a name, a folder or a command means, ready for the frames of a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from endolux.datasets.base import Dataset, FrameKey
from endolux.errors import EndoluxError, UsageError
from endolux.evaluate.baselines import PREFIX
from endolux.evaluate.command import TIMEOUT_S, CommandPredictor
from endolux.evaluate.prediction_set import open_prediction_set
from endolux.evaluate.predictors import Predictor, open_predictor, unknown_kind
from endolux.runtime.bundles import CARD
from endolux.types import DepthKind


def open_for_frames(
    model: str,
    dataset: Dataset,
    keys: Sequence[FrameKey],
    *,
    engine: str = "onnxruntime",
    precision: str = "exact",
    threads: int | None = None,
    prediction_kind: DepthKind | None = None,
    prediction_scale: float | None = None,
    in_order: bool = False,
    command: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Predictor:
    """The predictor that ``model`` means, ready to be asked for the frames ``str(key)``.

    Args:
        model: bundle, baseline, folder or ``.npy`` stack of predictions; with ``command`` only a name for the report.
        dataset: the opened data set, whose file names predictions may carry.
        keys: the protocol's frames.
        engine: what runs a bundle.
        precision: of a bundle.
        threads: of a bundle.
        prediction_kind: meaning of predictions, for folders without ``meta.json`` and for commands.
        prediction_scale: codes per unit of 16-bit predictions.
        in_order: match the files of a folder by their order.
        command: command line with ``{image}`` and ``{output}``.
        timeout_s: time limit of the command in seconds a frame.

    Raises:
        UsageError, InputError, ModelError: as :func:`endolux.evaluate.predictors.open_predictor` and
            :func:`endolux.evaluate.prediction_set.open_prediction_set`.
    """
    if command is not None:
        return open_command(model, command, kind=prediction_kind, scale=prediction_scale, timeout_s=timeout_s)
    path = Path(model)
    is_predictions = not model.startswith(PREFIX) and (
        (path.is_dir() and not (path / CARD).exists()) or (path.is_file() and path.suffix.lower() == ".npy")
    )
    if is_predictions:
        return open_prediction_set(
            path,
            keys,
            [stem_of(dataset, key) for key in keys],
            kind=prediction_kind,
            scale=prediction_scale,
            in_order=in_order,
        )
    if in_order:
        raise UsageError(
            f"--in-order does not apply to '{model}'",
            why="It says how the files of a folder of predictions belong to frames.",
            fix="Leave it out.",
            error_id="evaluate.in-order",
        )
    return open_predictor(
        model,
        engine=engine,
        precision=precision,
        threads=threads,
        prediction_kind=prediction_kind,
        prediction_scale=prediction_scale,
    )


def open_command(
    name: str, command: str, *, kind: DepthKind | None, scale: float | None, timeout_s: float
) -> CommandPredictor:
    """A command as predictor. Raises UsageError where its output's meaning is not stated, or it cannot be run."""
    if kind is None:
        raise unknown_kind(name)
    return CommandPredictor(command, name=name, kind=kind, scale=scale, timeout_s=timeout_s)


def stem_of(dataset: Dataset, key: FrameKey) -> str:
    """Stem of the frame's first file; empty where its files cannot be told."""
    try:
        files = dataset.files(key)
    except EndoluxError:
        return ""  # the frame will fail with its own error when it is read
    return files[0].stem if files else ""
