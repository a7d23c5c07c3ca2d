"""A predictor under a protocol: frames one at a time, in bounded memory; what could not be scored is counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from endolux.datasets.base import Dataset, FrameKey, Protocol, Sample, frame_list_sha256
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.evaluate.baselines import PREFIX, get_baseline
from endolux.evaluate.failures import all_failed
from endolux.evaluate.frame_score import FrameScore, mirror, predict, ratio_factor, reference, score_frame
from endolux.evaluate.predictors import BaselinePredictor, FolderPredictor, Predictor
from endolux.evaluate.quirks import MIRRORED_ENTRIES, check_quirks
from endolux.evaluate.run_warnings import ratio_warnings, run_warnings
from endolux.evaluate.scoring import at_reference, check_protocol
from endolux.evaluate.windows import reference_mask
from endolux.geometry.align import Alignment
from endolux.io.paths import printable
from endolux.io.sources import Failure
from endolux.types import DepthKind

_AHEAD = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolResult:
    """A predictor measured under a protocol.

    Attributes:
        protocol: what was done, deviations included.
        identity: id and version of the protocol, and every deviation from it.
        keys: the frames that the protocol selected, in order.
        limit: only so many of them were scored, None for all.
        predictor: provenance of what was measured.
        prediction_kind: what its numbers mean.
        frames: scored frames in order.
        failures: frames that could not be read, predicted or scored.
        list_sha256: hash of the frame list.
        baselines: rows that the protocol wants in every table: name -> its frames.
        warnings: what a reader of the figures has to know, the worst first.
    """

    protocol: Protocol
    identity: str
    keys: tuple[FrameKey, ...]
    limit: int | None
    predictor: Mapping[str, str | float | None]
    prediction_kind: DepthKind
    frames: tuple[FrameScore, ...]
    failures: tuple[Failure, ...]
    list_sha256: str
    baselines: Mapping[str, tuple[FrameScore, ...]]
    warnings: tuple[str, ...]


def deviate(
    protocol: Protocol, *, alignment: Alignment | None = None, reproduce: Sequence[str] = ()
) -> tuple[Protocol, str]:
    """The protocol with deviations, and the identity that states them: such results never pass for the original's.

    Raises:
        UsageError: ``protocol.quirk`` for an unknown quirk, the protocol's own included.

    Example:
        >>> protocol = Protocol(name="p", version=1, dataset="d", summary="", source="", select=lambda keys, _: keys)
        >>> deviate(protocol, alignment=Alignment.NONE)[1]
        'p/1+alignment=none'
    """
    added = tuple(name for name in dict.fromkeys(reproduce) if name not in protocol.reproduce)
    check_quirks([*protocol.reproduce, *added])
    identity = protocol.identity
    if alignment is not None and alignment is not protocol.alignment:
        protocol = dataclasses.replace(protocol, alignment=alignment)
        identity += f"+alignment={alignment.value}"
    if added:
        protocol = dataclasses.replace(protocol, reproduce=(*protocol.reproduce, *added))
        identity += f"+reproduce={','.join(added)}"
    return protocol, identity


def select_frames(dataset: Dataset, protocol: Protocol, split: Path | None = None) -> tuple[FrameKey, ...]:
    """The frames that a protocol scores, in its order.

    Raises:
        InputError: ``evaluate.no-frames`` where it selects none, and what the protocol's own selection raises.
        UsageError: ``evaluate.wrong-dataset`` where the opened set is another one.
    """
    if protocol.dataset not in (dataset.name, "any", "*"):
        raise UsageError(
            f"The protocol '{protocol.name}' scores '{protocol.dataset}', and this is '{dataset.name}'",
            why="Its frame list and its valid range belong to that data set.",
            fix="Give the folder of that data set, or another protocol ('endolux data ls').",
            error_id="evaluate.wrong-dataset",
        )
    keys = tuple(protocol.select(dataset.keys(), split))
    if not keys:
        source = f"the frames that '{split.name}' names" if split else "the frames of its list"
        raise InputError(
            f"The protocol '{protocol.name}' finds none of its frames in '{printable(dataset.root.name)}'",
            why=f"{len(dataset.keys())} frames lie there, and {source} are not among them.",
            fix="Run 'endolux data check' on the folder, and check the --split file if there is one.",
            error_id="evaluate.no-frames",
        )
    return keys


def run_protocol(
    predictor: Predictor,
    dataset: Dataset,
    protocol: Protocol,
    keys: Sequence[FrameKey],
    *,
    identity: str = "",
    limit: int | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> ProtocolResult:
    """Score the frames of a protocol. Two samples and one prediction are in memory at a time, however many frames.

    Args:
        predictor: what is measured; asked for frames by ``str(key)``.
        dataset: the opened data set.
        protocol: as registered, or from :func:`deviate`.
        keys: from :func:`select_frames`.
        identity: from :func:`deviate`; default: the protocol's own.
        limit: score the first so many frames only; the result says so.
        on_progress: called with (frames done, frames in all, failures).

    Raises:
        UsageError: ``align.kind``, ``protocol.settings``, ``protocol.quirk``; ``evaluate.mirrored`` where mirrored
            frames are asked of a folder of predictions.
        InputError: ``evaluate.all-failed`` where no frame could be scored, ``evaluate.empty`` where in none a pixel
            could be compared.
    """
    check_quirks(protocol.reproduce)
    check_protocol(protocol, prediction_kind=predictor.kind)
    mirrored = MIRRORED_ENTRIES in protocol.reproduce
    if mirrored and (isinstance(predictor, FolderPredictor) or predictor.provenance.get("type") == "stack"):
        raise UsageError(
            f"'{protocol.name}' also scores mirrored frames, which a folder of predictions does not have",
            why="The original counts the prediction of every mirrored image as an entry of its own.",
            fix="Give the model as a bundle or with --command.",
            error_id="evaluate.mirrored",
        )
    scored = keys if limit is None else keys[:limit]
    beside = _baselines(protocol)
    rows: dict[str, list[FrameScore]] = {baseline.name: [] for baseline in beside}
    frames: list[FrameScore] = []
    failures: list[Failure] = []
    scales: dict[str, dict[str, float]] = {}
    if protocol.scope == "sequence":
        everyone = {predictor.name: predictor, **{baseline.name: baseline for baseline in beside}}
        scales = {name: sequence_scales(one, dataset, protocol, scored) for name, one in everyone.items()}
    for index, (key, loaded) in enumerate(_read_ahead(dataset, scored)):
        try:
            sample = loaded.result()
            scale = scales.get(predictor.name, {}).get(key.sequence)
            frames.append(score_frame(predictor, key, sample, protocol, scale=scale))
            if mirrored:
                frames.append(score_frame(predictor, key, mirror(sample), protocol, mirrored=True, scale=scale))
            for baseline in beside:
                own = scales.get(baseline.name, {}).get(key.sequence)
                rows[baseline.name].append(score_frame(baseline, key, sample, protocol, scale=own))
        except EndoluxError as error:
            if error.error_id in ("align.kind", "protocol.settings", "protocol.task"):
                raise
            failures.append(Failure(index=index, name=str(key), error=error))
        if on_progress is not None:
            on_progress(index + 1, len(scored), len(failures))
    if not frames:
        raise all_failed(failures, len(scored))
    if all(frame.measured.empty for frame in frames):
        raise InputError(
            f"Not one pixel of {len(frames)} frames could be compared",
            why="No pixel has both a prediction and a reference in the protocol's window and range "
            f"({protocol.minimum:g} to {protocol.maximum:g} {protocol.unit}).",
            fix="Run 'endolux data check' on the data: a wrong unit puts every reference out of range.",
            error_id="evaluate.empty",
        )
    identity = identity or protocol.identity
    factor = ratio_factor(predictor, protocol)
    return ProtocolResult(
        protocol=protocol,
        identity=identity,
        keys=tuple(keys),
        limit=limit if limit is not None and limit < len(keys) else None,
        predictor=dict(predictor.provenance) | ({} if factor is None else {"depth_factor": factor}),
        prediction_kind=predictor.kind,
        frames=tuple(frames),
        failures=tuple(failures),
        list_sha256=frame_list_sha256(scored),
        baselines={name: tuple(scores) for name, scores in rows.items()},
        warnings=(
            *run_warnings(protocol, identity, keys, scored, [f.measured for f in frames], failures, predictor.kind),
            *ratio_warnings(factor is not None, as_published=getattr(predictor, "ratio_as_published", True)),
        ),
    )


def sequence_scales(
    predictor: Predictor, dataset: Dataset, protocol: Protocol, keys: Sequence[FrameKey]
) -> dict[str, float]:
    """One factor a sequence, sum(m_p m_t) / sum(m_p^2) with the mean depths m of its frames (SimCol3D).

    Every frame is predicted once for it and again when it is scored, so that memory stays flat. Frames that cannot be
    read or predicted do not enter; sequences without any get NaN.
    """
    sums: dict[str, list[float]] = {}
    for key, loaded in _read_ahead(dataset, keys):
        total = sums.setdefault(key.sequence, [0.0, 0.0])
        try:
            sample = loaded.result()
            truth = reference(sample, key)
            guess = at_reference(predict(predictor, key, sample.frame, protocol), truth, protocol)
        except EndoluxError:
            continue
        counted = reference_mask(truth, protocol)[0] & guess.valid & np.isfinite(guess.values)
        if counted.any():
            m_p = float(guess.values[counted].mean(dtype=np.float64))
            m_t = float(truth.values[counted].mean(dtype=np.float64))
            total[0] += m_p * m_t
            total[1] += m_p * m_p
    return {name: top / bottom if bottom > 0 else float("nan") for name, (top, bottom) in sums.items()}


def _baselines(protocol: Protocol) -> list[BaselinePredictor]:
    found = []
    for name in protocol.baselines:
        baseline = BaselinePredictor(name=f"{PREFIX}{name}", baseline=get_baseline(name))
        check_protocol(protocol, prediction_kind=baseline.kind)
        found.append(baseline)
    return found


def _read_ahead(dataset: Dataset, keys: Sequence[FrameKey]) -> Iterator[tuple[FrameKey, Future[Sample]]]:
    # One thread decodes the next frames while this one is scored; the bound keeps memory flat.
    with ThreadPoolExecutor(1, thread_name_prefix="endolux-read") as pool:
        waiting: list[Future[Sample]] = []
        try:
            for position, key in enumerate(keys):
                while len(waiting) < _AHEAD and position + len(waiting) < len(keys):
                    waiting.append(pool.submit(dataset.load, keys[position + len(waiting)]))
                future = waiting.pop(0)
                yield key, future
        finally:
            for future in waiting:
                future.cancel()
