"""What is missing or odd in a copy of SCARED."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from endolux.datasets import scared_splits
from endolux.datasets.base import Finding, FrameKey, Sample, Severity
from endolux.datasets.decode import read_bytes
from endolux.datasets.scared_files import TarFiles, path_exists
from endolux.datasets.scared_layouts import SequenceFiles
from endolux.datasets.scared_points import left_view, read_points
from endolux.datasets.scared_splits import KEYFRAME
from endolux.errors import EndoluxError
from endolux.geometry.cameras import project
from endolux.io.paths import printable

if TYPE_CHECKING:
    from endolux.datasets.scared import Scared

_REPROJECTION_LIMIT_PX = 2.0


def check_scared(data: Scared) -> Iterator[Finding]:
    """Findings over counts, pairs, calibration and split files, and over one or two decoded frames a sequence."""
    layouts = Counter(sequence.layout for sequence in data.sequences.values())
    yield Finding(
        severity=Severity.INFO,
        code="scared.layout",
        message=f"{len(data.sequences)} sequences, layout "
        + ", ".join(f"{layout} ({count})" for layout, count in sorted(layouts.items())),
    )
    yield from _check_counts(data)
    for name, sequence in sorted(data.sequences.items()):
        if name.startswith(("dataset4/", "dataset5/")) and sequence.layout != "scared-c":
            yield Finding(
                severity=Severity.INFO,
                code="calibration.known-wrong",
                message=f"{name}: the released calibration of data sets 4 and 5 is known to be wrong.",
            )
        yield from _check_sequence(data, sequence)
    # Not the whole tree: it may hold a hundred thousand pictures.
    places = [data.root / place for place in ("", "splits", "splits/endovis", "endovis")]
    for path in [place / f"{stem}.txt" for place in places for stem in scared_splits.SPLIT_SIZES]:
        if not path_exists(path):
            continue
        yield from _caught(functools.partial(scared_splits.check_split, path), path.name)


def _check_counts(data: Scared) -> Iterator[Finding]:
    if data.name == "scared-c" or all(s.layout == "scared-c" for s in data.sequences.values()):
        if (count := len(data.keys())) != 17135:
            yield Finding(
                severity=Severity.WARNING,
                code="count.frames",
                message=f"{count} corrected frames; 17135 are published.",
                fix="Download the missing sequences if you mean to score all of them.",
            )
        return
    published = {f"dataset{d}/keyframe{k}" for d in range(1, 8) for k in range(1, 6)}
    if absent := sorted(published - set(data.sequences)):
        needed = sorted(set(scared_splits.TEST_COUNTS) & set(absent))
        yield Finding(
            severity=Severity.WARNING if needed else Severity.INFO,
            code="count.sequences",
            message=f"{35 - len(absent)} of the 35 sequences of data sets 1 to 7 are here"
            + (f"; scared-afsfm-551 needs {', '.join(needed)}." if needed else "."),
            fix="Add the missing sequences before scoring that protocol." if needed else "",
        )


def _check_sequence(data: Scared, sequence: SequenceFiles) -> Iterator[Finding]:
    name = sequence.name
    try:
        indices = sequence.indices()
    except EndoluxError as error:
        yield _error(error, name)
        return
    frames = [index for index in indices if index != KEYFRAME]
    if not indices:
        yield _finding(Severity.ERROR, "count.frames", f"{name}: no frame.", "Copy the sequence again.")
        return
    if sequence.depth_files is None and frames:
        yield _finding(
            Severity.WARNING,
            "pair.no-depth",
            f"{name}: {len(frames)} pictures and no depth.",
            "Unpack scene_points or groundtruth beside them.",
        )
    packed = [files for files in (sequence.points, sequence.images) if isinstance(files, TarFiles)]
    if packed:
        yield _finding(
            Severity.INFO,
            "scared.packed",
            f"{name}: {', '.join(sorted(files.path.name for files in packed))} is read in place, which is one pass in "
            "order and slow otherwise.",
            "Run 'endolux data convert' once.",
        )
    elif sequence.depth_files is not None and sequence.images is not None:
        depths = {number + sequence.first_points for number in sequence.depth_files.numbers()} - {KEYFRAME}
        for what, lone in (("depth", set(frames) - depths), ("a picture", depths - set(frames))):
            if lone:
                yield _finding(
                    Severity.WARNING,
                    "pair.missing",
                    f"{name}: {len(lone)} frames have no {what}, the first is {min(lone)}.".replace("no a", "no"),
                    "Copy them again, or leave them out of the list.",
                )
    if sequence.calibration is None and sequence.frame_data is None and sequence.reprojections is None:
        yield _finding(Severity.INFO, "camera.missing", f"{name}: no calibration, so frames carry no camera.")
    for index in {KEYFRAME} & set(indices) | set(frames[:1]):
        key = FrameKey(sequence=name, index=index, side="left")
        yield from _caught(functools.partial(_check_frame, data, key), str(key))


def _check_frame(data: Scared, key: FrameKey) -> Iterator[Finding]:
    sample = data.load(key)
    if sample.excluded:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(sample.excluded.items()))
        yield _finding(Severity.WARNING, "depth.impossible", f"{key}: {counts} depth values are left out.")
    if sample.pose is not None:
        rotation = sample.pose[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2:
            yield _finding(Severity.WARNING, "pose.not-rigid", f"{key}: the pose is no rotation and translation.")
    if sample.depth is None:
        return
    valid = sample.depth.values[sample.depth.valid]
    if not valid.size:
        yield _finding(Severity.WARNING, "depth.empty", f"{key}: no pixel has a depth.")
        return
    middle = float(np.median(valid))
    if not 5.0 <= middle <= 500.0:
        yield _finding(
            Severity.ERROR,
            "depth.unit",
            f"{key}: the median depth is {middle:.4g}, which is no distance in mm inside an abdomen.",
            "Depth of SCARED is in mm; use the original files.",
        )
    elif (error := _reprojection_error(data, key, sample)) > _REPROJECTION_LIMIT_PX:
        yield _finding(
            Severity.WARNING,
            "depth.misaligned",
            f"{key}: points project {error:.1f} px (median) away from their pixels.",
            "The calibration does not belong to these points, or their channels are not X, Y, Z.",
        )


def _reprojection_error(data: Scared, key: FrameKey, sample: Sample) -> float:
    """Median distance in pixels between a point's projection and its pixel; 0 where that cannot be told."""
    sequence, camera = data.sequences[key.sequence], sample.frame.camera
    if camera is None or sample.depth is None:
        return 0.0
    if key.index == KEYFRAME and sequence.still_files:
        path = sequence.folder / "left_depth_map.tiff"
        points = read_points(read_bytes(path), printable(path))
    elif sequence.points is not None:
        number = key.index - sequence.first_points
        points = read_points(sequence.points.read(number), sequence.points.name(number))
    else:
        return 0.0
    rows, columns = np.nonzero(sample.depth.valid)
    step = max(1, rows.size // 5000)
    rows, columns = rows[::step], columns[::step]
    offsets = project(left_view(points)[rows, columns].astype(np.float64), camera) - np.stack([columns, rows], axis=1)
    return float(np.nanmedian(np.hypot(offsets[:, 0], offsets[:, 1])))


def _caught(produce: Callable[[], Iterable[Finding]], what: str) -> Iterator[Finding]:
    try:
        yield from produce()
    except EndoluxError as error:
        yield _error(error, what)


def _error(error: EndoluxError, what: str) -> Finding:
    return _finding(Severity.ERROR, error.error_id, f"{what}: {error.what}. {error.why}", error.fix)


def _finding(severity: Severity, code: str, message: str, fix: str = "") -> Finding:
    return Finding(severity=severity, code=code, message=message, fix=fix)
