"""What data checks say: counts, lone files, odd depth, errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from endolux.datasets.base import Finding, FrameKey, Sample, Severity
from endolux.datasets.registration import Offset
from endolux.errors import EndoluxError
from endolux.io.paths import printable


def published_count(have: int, published: int, what: str) -> Finding:
    """Information where the counts agree, a warning where they do not."""
    if have == published:
        return information("count.published", f"{have} {what}, as published.")
    return Finding(
        severity=Severity.WARNING,
        code="count.published",
        message=f"{have} {what}; {published} are published.",
        fix="Unpack the missing parts; a score over a part does not compare with published ones.",
    )


def lone_depths(paths: Sequence[Path]) -> list[Finding]:
    """A finding for depth files without a picture."""
    if not paths:
        return []
    return [
        Finding(
            severity=Severity.WARNING,
            code="image.missing",
            message=f"{len(paths)} depth file(s) have no picture, the first is '{printable(paths[0])}'.",
            fix="Unpack the pictures too.",
        )
    ]


def check_sample(sample: Sample) -> list[Finding]:
    """What is odd about the depth of one frame."""
    depth, key = sample.depth, sample.key
    if depth is None:
        return []
    found: list[Finding] = []
    values = depth.values[depth.valid]
    if not values.size:
        text = f"{key}: no pixel of the depth is valid."
        found.append(Finding(severity=Severity.ERROR, code="depth.empty", message=text, fix="Unpack the file again."))
    elif values.min() == values.max():
        text = f"{key}: every valid depth is {float(values[0]):g}."
        found.append(Finding(severity=Severity.WARNING, code="depth.constant", message=text, fix="Look at the file."))
    width, height = sample.frame.size
    if abs(width * depth.size[1] - height * depth.size[0]) > max(width, height):
        text = f"{key}: the picture is {width}x{height}, the depth {depth.size[0]}x{depth.size[1]}."
        fix = "Use files of one release; one of them was cropped or stretched."
        found.append(Finding(severity=Severity.ERROR, code="depth.aspect", message=text, fix=fix))
    if sample.excluded:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(sample.excluded.items()))
        found.append(
            information("depth.excluded", f"{key}: {counts} of {depth.values.size} reference pixels are left out.")
        )
    return found


def check_offset(offset: Offset) -> list[Finding]:
    """A warning where depth and pictures do not lie over each other."""
    if not offset.misaligned:
        return []
    text = (
        f"Edges of the pictures lie {offset.x:+.0f} px across and {offset.y:+.0f} px down from those of the depth "
        f"(correlation {offset.peak:.2f} there, {offset.here:.2f} in place, {offset.frames} frames)."
    )
    fix = (
        "The depth may belong to other frames, another camera or another crop; errors at edges will not fall below it."
    )
    return [Finding(severity=Severity.WARNING, code="depth.misaligned", message=text, fix=fix)]


def finding_of(error: EndoluxError, key: FrameKey | None = None) -> Finding:
    """An error of the reader as a finding."""
    text = f"{error.what}. {error.why}"
    text = text if key is None else f"{key}: {text}"
    return Finding(severity=Severity.ERROR, code=error.error_id, message=text, fix=error.fix)


def information(code: str, message: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(severity=Severity.INFO, code=code, message=message)
