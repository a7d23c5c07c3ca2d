"""The runner: predict every pair, align it, measure it; what could not be measured is counted, never dropped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from endolux.datasets.pairs import Pair, Truth, TruthFormat, TruthKind, check_format, list_hash, read_truth
from endolux.errors import EndoluxError, InputError
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.scoring import median_is_unusable
from endolux.geometry.align import Alignment, align, check_alignment
from endolux.io.images import read
from endolux.io.paths import printable
from endolux.io.sources import Failure
from endolux.metrics.depth import depth_metrics
from endolux.types import DepthKind, DepthMap, MaskArray

_Float64 = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """Figures of one frame.

    Attributes:
        name: stem of the pair.
        metrics: as :func:`endolux.metrics.depth_metrics` gives them; all NaN where no pixel could be compared.
        pixels: pixels of the frame.
        truth_pixels: pixels with a true value.
        compared: pixels with a true value and a prediction.
        infinite, negative: pixels of the truth left out because they hold such a number.
        dropped: pixels with a true value and no usable prediction.
        floored: pixels whose aligned disparity had to be raised to the smallest true one.
        nonpositive: compared pixels whose aligned value is zero or below (their logarithms do not exist).
        scale, shift: what the alignment fitted.
        unusable: whether the median prediction was not finite and positive, so that the frame counts as a prediction
            of zero everywhere: AbsRel 1, deltas 0, no logarithms.
    """

    name: str
    metrics: Mapping[str, float]
    pixels: int
    truth_pixels: int
    compared: int
    infinite: int
    negative: int
    dropped: int
    floored: int
    nonpositive: int
    scale: float
    shift: float
    unusable: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing could be compared."""
        return self.compared == 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A predictor measured on a list of pairs.

    Attributes:
        predictor: provenance of what was measured.
        prediction_kind: what its numbers mean.
        truth: how the depth files were read.
        alignment: what was fitted per frame.
        inverted: True where a predicted depth was turned into 1/depth for the alignment.
        frames: measured frames in the order of the list.
        failures: frames that could not be read, predicted or compared.
        list_sha256: hash over names and contents of all files.
    """

    predictor: Mapping[str, str | float | None]
    prediction_kind: DepthKind
    truth: TruthFormat
    alignment: Alignment
    inverted: bool
    frames: tuple[FrameResult, ...]
    failures: tuple[Failure, ...]
    list_sha256: str


def default_alignment(prediction_kind: DepthKind, truth: TruthFormat) -> Alignment:
    """The alignment that fits exactly what a prediction leaves open.

    Example:
        >>> default_alignment(DepthKind.RELATIVE_DEPTH, TruthFormat())
        <Alignment.MEDIAN: 'median'>
    """
    if truth.kind is TruthKind.DISPARITY or prediction_kind is DepthKind.RELATIVE_DISPARITY:
        return Alignment.SCALE_SHIFT_DISPARITY
    return Alignment.NONE if prediction_kind is DepthKind.METRIC else Alignment.MEDIAN


def evaluate(
    predictor: Predictor,
    pairs: Sequence[Pair],
    *,
    truth: TruthFormat,
    alignment: Alignment | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> Evaluation:
    """Measure a predictor on pairs.

    Args:
        predictor: what is measured.
        pairs: images and their true depth.
        truth: how the depth files are read.
        alignment: what is fitted per frame; None for :func:`default_alignment`.
        on_progress: called with (frames done, frames in all, failures).

    Returns:
        Frames and failures in the order of the list. A damaged or wrongly sized file is a failure of its frame.

    Raises:
        UsageError: ``align.kind`` for an alignment that does not fit, ``evaluate.depth-scale``.
        InputError: ``evaluate.all-failed`` if no frame could be measured, ``evaluate.empty`` if in no frame a single
            pixel could be compared.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from endolux.evaluate import find_pairs, open_predictor
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "a.npy", np.full((64, 64, 3), 90, np.uint8))
        >>> np.save(folder / "a_depth.npy", np.full((64, 64), 40.0))
        >>> result = evaluate(open_predictor("baseline:constant"), find_pairs(folder), truth=TruthFormat())
        >>> result.frames[0].metrics["abs_rel"], result.frames[0].scale
        (0.0, 40.0)
    """
    alignment = default_alignment(predictor.kind, truth) if alignment is None else alignment
    check_alignment(alignment, prediction_kind=predictor.kind, truth_kind=truth.depth_kind)
    check_format(pairs, truth)
    frames: list[FrameResult] = []
    failures: list[Failure] = []
    for index, pair in enumerate(pairs):
        try:
            frames.append(measure(predictor, pair, truth=truth, alignment=alignment))
        except EndoluxError as error:
            failures.append(Failure(index=index, name=pair.name, error=error))
        if on_progress is not None:
            on_progress(index + 1, len(pairs), len(failures))
    if not frames:
        first = failures[0].error.what if failures else "the list is empty"
        raise InputError(
            f"None of {len(pairs)} frames could be measured; the first: {first}",
            why=failures[0].error.why if failures else "There are no pairs.",
            fix=failures[0].error.fix if failures else "Give a folder with pairs.",
            error_id="evaluate.all-failed",
        )
    if all(frame.empty for frame in frames):
        raise InputError(
            f"Not one pixel of {len(frames)} frames could be compared",
            why="No pixel has both a true depth and a prediction.",
            fix="Check --depth-kind and --depth-scale, and that the truth covers the content area of the images.",
            error_id="evaluate.empty",
        )
    return Evaluation(
        predictor=dict(predictor.provenance),
        prediction_kind=predictor.kind,
        truth=truth,
        alignment=alignment,
        inverted=alignment is Alignment.SCALE_SHIFT_DISPARITY and predictor.kind is not DepthKind.RELATIVE_DISPARITY,
        frames=tuple(frames),
        failures=tuple(failures),
        list_sha256=list_hash(pairs),
    )


def measure(predictor: Predictor, pair: Pair, *, truth: TruthFormat, alignment: Alignment) -> FrameResult:
    """Measure one pair. Raises EndoluxError where it cannot be read, predicted or compared."""
    frame = read(pair.image)
    true = read_truth(pair.depth, truth)
    height, width = true.values.shape
    if frame.size != (width, height):
        raise _wrong_size(pair, "image", frame.size, (width, height))
    depth = predictor.predict(pair.name, frame)
    if depth.size != (width, height):
        raise _wrong_size(pair, "prediction", depth.size, (width, height))
    return compare(pair.name, depth, true.values, true.valid, truth=truth, alignment=alignment, bad=true)


def compare(
    name: str,
    depth: DepthMap,
    values: _Float64,
    valid: MaskArray,
    *,
    truth: TruthFormat,
    alignment: Alignment,
    bad: Truth | None = None,
) -> FrameResult:
    """Align and measure arrays that are in memory. Arguments as in :func:`endolux.geometry.align.align`."""
    if valid.any() and median_is_unusable(depth, valid):
        return FrameResult(
            name=name,
            metrics=depth_metrics(np.zeros_like(values), values, valid),
            pixels=values.size,
            truth_pixels=int(valid.sum()),
            compared=int(valid.sum()),
            infinite=bad.infinite if bad else 0,
            negative=bad.negative if bad else 0,
            dropped=0,
            floored=0,
            nonpositive=int(valid.sum()),
            scale=math.nan,
            shift=math.nan,
            unusable=True,
        )
    aligned = align(depth, values, valid, alignment=alignment, truth_kind=truth.depth_kind)
    compared = aligned.values[aligned.valid]
    return FrameResult(
        name=name,
        metrics=depth_metrics(aligned.values, values, aligned.valid),
        pixels=values.size,
        truth_pixels=int(valid.sum()),
        compared=compared.size,
        infinite=bad.infinite if bad else 0,
        negative=bad.negative if bad else 0,
        dropped=aligned.dropped,
        floored=aligned.floored,
        nonpositive=int((compared <= 0).sum()),
        scale=aligned.scale,
        shift=aligned.shift,
    )


def _wrong_size(pair: Pair, what: str, size: tuple[int, int], truth_size: tuple[int, int]) -> InputError:
    return InputError(
        f"The {what} of '{printable(pair.name)}' has {size[0]}x{size[1]} pixels, "
        f"its truth {truth_size[0]}x{truth_size[1]}",
        why="Depth is compared pixel by pixel, and the truth is never resampled.",
        fix=f"Resize the {what} to the size of the truth.",
        error_id="evaluate.size",
    )
