"""The colour range of a run: one for the whole clip, from a few frames spread over it."""

from __future__ import annotations

from collections.abc import Iterator

from endolux.errors import EndoluxError
from endolux.io.colour import ColourRange, RangeEstimator
from endolux.io.sources import Failure, Source
from endolux.runtime.model import Model
from endolux.types import Frame

# A jump in a video may have to decode from a distant key frame; files of a folder cost one read each.
_SAMPLES_VIDEO = 4
_SAMPLES_FILES = 8
_SPAN_VIDEO = 1500
"""Frames of a video that are looked at (a minute): one without key frames must not delay the run for long."""


def colour_range(source: Source, model: Model) -> ColourRange | None:
    """A range that fits the depth of the source, not of its first frame alone.

    Args:
        source: where the frames come from.
        model: what predicts them.

    Returns:
        The range, or None where no sampled frame has a valid pixel.
    """
    estimator = RangeEstimator(frames=_SAMPLES_FILES)
    for frame in sample_frames(source):
        estimator.update(model.predict(frame))
    return estimator.range() if estimator.seen else None


def sample_frames(source: Source) -> Iterator[Frame]:
    """A few frames spread evenly over the source (a video: over its first minute); unreadable ones are left out."""
    wanted = _SAMPLES_VIDEO if source.kind == "video" else _SAMPLES_FILES
    count = source.count or 1
    if source.kind == "video":
        count = min(count, _SPAN_VIDEO)
    for start in sorted({round(number * (count - 1) / (wanted - 1)) for number in range(wanted)}):
        frames = source.frames(start)
        try:
            item = next(frames, None)
        except EndoluxError:
            # The run itself meets the same error where it matters, and reports it.
            continue
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
        if item is not None and not isinstance(item, Failure):
            yield item
