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
from endolux.evaluate.predictors import BaselinePredictor, FolderPredictor, Predictor
from endolux.evaluate.quirks import DISPARITY_AS_DEPTH, INVERSE_DISPARITY_AS_DEPTH, MIRRORED_ENTRIES, check_quirks
from endolux.evaluate.scoring import Measured, check_protocol, score
from endolux.geometry.align import Alignment
from endolux.io.paths import printable
from endolux.io.sources import Failure
from endolux.types import DepthKind, DepthMap, Frame

_AHEAD = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameScore:
    """Figures of one frame of a protocol.

    Attributes:
        key: which frame.
        mirrored: True for the left-to-right copy that some originals also score.
        measured: figures and counts.
        excluded: reference pixels that the reader left out, by reason.
    """

    key: FrameKey
    mirrored: bool
    measured: Measured
    excluded: Mapping[str, int]


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
    for index, (key, loaded) in enumerate(_read_ahead(dataset, scored)):
        try:
            sample = loaded.result()
            frames.append(score_frame(predictor, key, sample, protocol))
            if mirrored:
                frames.append(score_frame(predictor, key, mirror(sample), protocol, mirrored=True))
            for baseline in beside:
                rows[baseline.name].append(score_frame(baseline, key, sample, protocol))
        except EndoluxError as error:
            if error.error_id in ("align.kind", "protocol.settings", "protocol.task"):
                raise
            failures.append(Failure(index=index, name=str(key), error=error))
        if on_progress is not None:
            on_progress(index + 1, len(scored), len(failures))
    if not frames:
        first = failures[0].error
        raise InputError(
            f"None of {len(scored)} frames could be scored; the first: {first.what}",
            why=first.why,
            fix=first.fix,
            error_id="evaluate.all-failed",
        )
    if all(frame.measured.empty for frame in frames):
        raise InputError(
            f"Not one pixel of {len(frames)} frames could be compared",
            why="No pixel has both a prediction and a reference in the protocol's window and range "
            f"({protocol.minimum:g} to {protocol.maximum:g} {protocol.unit}).",
            fix="Run 'endolux data check' on the data: a wrong unit puts every reference out of range.",
            error_id="evaluate.empty",
        )
    identity = identity or protocol.identity
    return ProtocolResult(
        protocol=protocol,
        identity=identity,
        keys=tuple(keys),
        limit=limit if limit is not None and limit < len(keys) else None,
        predictor=dict(predictor.provenance),
        prediction_kind=predictor.kind,
        frames=tuple(frames),
        failures=tuple(failures),
        list_sha256=frame_list_sha256(scored),
        baselines={name: tuple(scores) for name, scores in rows.items()},
        warnings=tuple(_warnings(protocol, identity, keys, scored, frames, failures, predictor.kind)),
    )


def score_frame(
    predictor: Predictor, key: FrameKey, sample: Sample, protocol: Protocol, *, mirrored: bool = False
) -> FrameScore:
    """Score one sample. Raises EndoluxError where it cannot be; ``evaluate.no-reference`` without a depth."""
    depth = reference(sample, key)
    check_protocol(protocol, prediction_kind=predictor.kind, truth_kind=depth.kind)
    prediction = predictor.predict(str(key), sample.frame)
    return FrameScore(
        key=key, mirrored=mirrored, measured=score(prediction, depth, protocol), excluded=dict(sample.excluded)
    )


def reference(sample: Sample, key: FrameKey) -> DepthMap:
    """The sample's depth. Raises InputError ``evaluate.no-reference`` where it has none."""
    if sample.depth is None:
        raise InputError(
            f"'{printable(str(key))}' has no reference depth",
            why="The data set holds none for this frame, and the protocol scores it.",
            fix="Run 'endolux data check' on the folder.",
            error_id="evaluate.no-reference",
        )
    return sample.depth


def mirror(sample: Sample) -> Sample:
    """The sample seen in a mirror, left and right exchanged; its camera, pose and labels are left out."""
    frame = sample.frame
    flipped = Frame(
        image=np.ascontiguousarray(frame.image[:, ::-1]),
        index=frame.index,
        name=frame.name,
        valid=None if frame.valid is None else np.ascontiguousarray(frame.valid[:, ::-1]),
    )
    depth = sample.depth
    if depth is not None:
        depth = DepthMap(
            values=np.ascontiguousarray(depth.values[:, ::-1]),
            kind=depth.kind,
            valid=np.ascontiguousarray(depth.valid[:, ::-1]),
        )
    return Sample(key=sample.key, frame=flipped, depth=depth, excluded=sample.excluded)


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


def _warnings(
    protocol: Protocol,
    identity: str,
    keys: Sequence[FrameKey],
    scored: Sequence[FrameKey],
    frames: Sequence[FrameScore],
    failures: Sequence[Failure],
    kind: DepthKind,
) -> Iterator[str]:
    if protocol.expected_frames is not None and len(keys) != protocol.expected_frames:
        yield (
            f"{len(keys)} frames were found and the published list has {protocol.expected_frames}: "
            "these figures do not compare with published ones"
        )
    if len(scored) != len(keys):
        yield f"only the first {len(scored)} of {len(keys)} frames were scored"
    if failures:
        yield f"{len(failures)} of {len(scored)} frames failed and are left out of every figure"
    if identity != protocol.identity:
        yield f"the protocol was changed ({identity.partition('+')[2]}): these figures have a name of their own"
    if kind is DepthKind.RELATIVE_DISPARITY and {DISPARITY_AS_DEPTH, INVERSE_DISPARITY_AS_DEPTH} & set(
        protocol.reproduce
    ):
        yield (
            "affine disparity was scored as depth under one factor, a protocol error repeated on purpose: its unknown "
            "shift makes the figures compare with nothing but the same error"
        )
    if kind is DepthKind.METRIC and protocol.alignment is not Alignment.NONE:
        yield f"metric depth was aligned ({protocol.alignment.value}): the figures say nothing about its millimetres"
    if kind is not DepthKind.RELATIVE_DISPARITY and protocol.alignment is Alignment.SCALE_SHIFT_DISPARITY:
        yield "predicted depth was turned into 1/depth, and two numbers a frame were fitted"
    measured = [frame.measured for frame in frames]
    counts = {
        "frames have no pixel to compare and no figures": sum(m.empty for m in measured),
        "frames were fitted with a negative scale: there the prediction runs the wrong way": sum(
            m.scale < 0 for m in measured
        ),
        "aligned values are zero or below; frames with them have no rmse_log, log10 and silog": sum(
            m.nonpositive for m in measured
        ),
        "reference pixels have no usable prediction and were left out": sum(m.dropped for m in measured),
    }
    for text, count in counts.items():
        if count:
            yield f"{count} {text}"
