"""What a reader of a protocol's figures has to know beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from endolux.datasets.base import FrameKey, Protocol
from endolux.evaluate.quirks import DISPARITY_AS_DEPTH, INVERSE_DISPARITY_AS_DEPTH
from endolux.evaluate.scoring import Measured
from endolux.geometry.align import Alignment
from endolux.io.sources import Failure
from endolux.types import DepthKind


def run_warnings(
    protocol: Protocol,
    identity: str,
    keys: Sequence[FrameKey],
    scored: Sequence[FrameKey],
    measured: Sequence[Measured],
    failures: Sequence[Failure],
    kind: DepthKind,
) -> Iterator[str]:
    """What a reader of the figures has to know, the worst first."""
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
    unusable = sum(m.unusable for m in measured)
    if unusable:
        yield (
            f"{unusable} frames have no prediction with a positive, finite median and count as zero everywhere: "
            "AbsRel 1, deltas 0, no logarithms"
        )
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


def ratio_warnings(is_ratio: bool, *, as_published: bool) -> Iterator[str]:
    """That a network of ratios does with ratios up to 0 what its authors' code does not.

    Example:
        >>> list(ratio_warnings(True, as_published=True))
        []
    """
    if is_ratio and not as_published:
        yield (
            "ratios of 0 and below are the farthest depth in this bundle and the nearest in the original: import it "
            "with --reproduce to repeat published figures"
        )
