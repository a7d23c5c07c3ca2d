"""Split lists and protocols of SCARED.

The lists of AF-SfMLearner ("endovis") are facts that other projects ship; Endolux reads them from the file that the
user gives, and knows their sizes and checksums. A line is ``dataset3/keyframe4  390  l``: sequence, frame counted
from 1, left camera. Several of the files lack the final newline, so that line counters show one frame too few.

What every figure against this set carries: reference depth off the keyframes is interpolated with the robot's
kinematics, the calibration of data sets 4 and 5 is known to be wrong, and the AF test frames come from sequences of
the same nine animals as its training frames. ``scared-keyframes`` scores the structured-light stills alone,
``scared-c`` the poses that arXiv 2605.16628 corrected.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from endolux.datasets.base import Finding, FrameKey, Protocol, Severity, protocol
from endolux.datasets.decode import read_bytes
from endolux.datasets.splits import no_list, not_empty
from endolux.errors import InputError, UsageError
from endolux.geometry.align import Alignment
from endolux.io.paths import printable

SPLIT_SIZES: Mapping[str, int] = {
    "train_files": 15351,
    "val_files": 1705,
    "test_files": 551,
    "test_files_sequence1": 410,
    "test_files_sequence2": 833,
}
"""Published number of frames of each list, by the stem of its file."""
SPLIT_MD5: Mapping[str, str] = {
    "train_files": "a74507ced375",
    "val_files": "809662bb9c2f",
    "test_files": "494eb3ff535a",
    "test_files_sequence1": "14875b53881d",
    "test_files_sequence2": "9653c983e325",
}
"""First twelve digits of the MD5 of the published files."""
TEST_COUNTS: Mapping[str, int] = {
    "dataset1/keyframe3": 78,
    "dataset2/keyframe4": 71,
    "dataset3/keyframe4": 79,
    "dataset4/keyframe4": 76,
    "dataset5/keyframe4": 87,
    "dataset6/keyframe4": 83,
    "dataset7/keyframe4": 77,
}
"""Frames of each sequence in the published test list."""
POSE_SEQUENCES: Mapping[int, tuple[str, int]] = {1: ("dataset5/keyframe4", 410), 2: ("dataset3/keyframe4", 833)}
"""The two trajectories on which pose is scored: sequence and number of frames; the last motion needs one frame more."""

KEYFRAME = 0
"""Index of the structured-light still of a sequence; the frames of its video count from 1."""

_SIDES = {"l": "left", "left": "left"}


def read_split(path: Path) -> list[FrameKey]:
    r"""The frames of a split list, in the order of the file.

    Args:
        path: text file, one ``datasetD/keyframeK FRAME l`` a line; tabs or spaces, final newline or not.

    Raises:
        InputError: missing file, ``split.empty``, or a line of another form or a repeated frame (``split.format``).

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "test_files.txt"
        >>> _ = file.write_text("dataset3/keyframe4\t390 l")
        >>> [str(key) for key in read_split(file)]
        ['dataset3/keyframe4 390 left']
    """
    keys: list[FrameKey] = []
    seen: set[FrameKey] = set()
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig", "replace").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        side = _SIDES.get(fields[2].lower()) if len(fields) == 3 else None
        if side is None or not fields[1].isascii() or not fields[1].isdigit():
            raise _bad_line(path, number, line, "'datasetD/keyframeK FRAME l' is expected")
        key = FrameKey(sequence=fields[0].strip("/"), index=int(fields[1]), side=side)
        if key in seen:
            raise _bad_line(path, number, line, "this frame is listed twice")
        seen.add(key)
        keys.append(key)
    if not keys:
        raise InputError(
            f"The split file '{printable(path)}' lists no frame",
            why="It holds blank lines only.",
            fix="Give the original list, for example splits/endovis/test_files.txt of AF-SfMLearner.",
            error_id="split.empty",
        )
    return keys


def check_split(path: Path) -> list[Finding]:
    """Compare a split file with the published one of the same name: size, checksum, frames a sequence, final newline.

    Raises:
        InputError: as :func:`read_split`.
    """
    findings: list[Finding] = []
    keys, data, name = read_split(path), read_bytes(path), path.stem
    if not data.endswith(b"\n"):
        findings.append(
            Finding(
                severity=Severity.INFO,
                code="split.final-newline",
                message=f"'{printable(path.name)}' lacks its final newline: it lists {len(keys)} frames, and line "
                f"counters say {len(keys) - 1}.",
            )
        )
    expected = SPLIT_SIZES.get(name)
    if expected is None:
        return findings
    if len(keys) != expected:
        findings.append(
            Finding(
                severity=Severity.WARNING,
                code="split.count",
                message=f"'{printable(path.name)}' lists {len(keys)} frames, the published list {expected}.",
                fix="Use the list of AF-SfMLearner (splits/endovis); others of this name are not comparable.",
            )
        )
    elif not hashlib.md5(data, usedforsecurity=False).hexdigest().startswith(SPLIT_MD5[name]):
        findings.append(
            Finding(
                severity=Severity.INFO,
                code="split.checksum",
                message=f"'{printable(path.name)}' has the published size, but not the published bytes.",
                fix="White space may differ; compare the frame-list hash of the result.",
            )
        )
    if name == "test_files" and (counts := Counter(key.sequence for key in keys)) != Counter(TEST_COUNTS):
        odd = [f"{s}: {counts[s]} of {TEST_COUNTS.get(s, 0)}" for s in sorted({*counts, *TEST_COUNTS})]
        findings.append(
            Finding(
                severity=Severity.WARNING,
                code="split.sequences",
                message=f"Frames of the test sequences (here, published): {'; '.join(odd)}.",
                fix="Use the published list.",
            )
        )
    return findings


def pose_trajectory(number: int) -> list[FrameKey]:
    """The frames of pose trajectory 1 or 2, regenerated from their rule: the first 410 or 833 of one sequence.

    Raises:
        UsageError: another number (``scared.trajectory``).

    Example:
        >>> keys = pose_trajectory(1)
        >>> len(keys), str(keys[0]), str(keys[-1])
        (410, 'dataset5/keyframe4 1 left', 'dataset5/keyframe4 410 left')
    """
    if number not in POSE_SEQUENCES:
        raise UsageError(
            f"No pose trajectory {number}",
            why="Pose is scored on two trajectories of SCARED.",
            fix="Use 1 (dataset5/keyframe4) or 2 (dataset3/keyframe4).",
            error_id="scared.trajectory",
        )
    sequence, count = POSE_SEQUENCES[number]
    return [FrameKey(sequence=sequence, index=index, side="left") for index in range(1, count + 1)]


def listed_frames(split_name: str) -> Callable[[Sequence[FrameKey], Path | None], Sequence[FrameKey]]:
    """A selection of the frames that a split file lists, all of which must be there."""

    def select(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
        if split is None:
            raise UsageError(
                f"This protocol scores the frames of '{split_name}.txt', and no split file was given",
                why="The list follows no rule that could be applied here; it is published as a file.",
                fix=f"Give {split_name}.txt of AF-SfMLearner (splits/endovis/{split_name}.txt in its repository).",
                error_id="split.required",
            )
        wanted = read_split(split)
        missing = sorted(set(wanted) - set(keys), key=lambda key: (key.sequence, key.index))
        if missing:
            raise InputError(
                f"{len(missing)} of {len(wanted)} frames of '{printable(split)}' are not in the data set, "
                f"the first is {missing[0]}",
                why="A score over a part of the list would look like the score over all of it.",
                fix="Convert or copy the missing sequences, or write a list of your own and name it as such.",
                error_id="split.missing-frames",
            )
        return wanted

    return select


def keyframes(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
    """The structured-light stills of data sets 1 to 7."""
    no_list(split)
    stills = [key for key in keys if key.index == KEYFRAME and key.sequence[:8] in {f"dataset{d}" for d in range(1, 8)}]
    if not stills:
        raise InputError(
            "There is no keyframe still in this data set",
            why="Left_Image.png and left_depth_map.tiff of each keyframe belong to the raw release; extracted copies "
            "hold frames of the videos only.",
            fix="Open the raw release, or a folder that 'endolux data convert' made from it.",
            error_id="scared.no-keyframes",
        )
    return stills


def corrected_frames(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
    """All frames with a corrected pose, or those of them that a split lists, in its order."""
    if split is None:
        return not_empty([key for key in keys if key.index != KEYFRAME], "SCARED-C")
    present = set(keys)
    selected = [key for key in read_split(split) if key in present]
    if not selected:
        raise InputError(
            f"None of the frames of '{printable(split)}' has a corrected pose here",
            why="Structure from motion did not register them, or their sequences are missing.",
            fix="Check that the folder holds the sequences of the list.",
            error_id="split.missing-frames",
        )
    return selected


def _bad_line(path: Path, number: int, line: str, why: str) -> InputError:
    return InputError(
        f"Line {number} of '{printable(path)}' is {line[:80]!r}",
        why=f"In a split list of SCARED {why}.",
        fix="Use the original file, or correct the line.",
        error_id="split.format",
    )


_to_150_mm = partial(
    Protocol, version=1, minimum=1e-3, maximum=150.0, clamp_prediction=True, alignment=Alignment.MEDIAN
)
AFSFM_551 = protocol(
    _to_150_mm(
        name="scared-afsfm-551",
        dataset="scared",
        summary="551 test frames of AF-SfMLearner, median scaling per frame, 0.001 to 150 mm, mean over frames.",
        source="AF-SfMLearner evaluation (arXiv 2112.08122), DARES, EndoDAC, LiteNet; interpolated reference",
        select=listed_frames("test_files"),
        expected_frames=551,
        # The networks' disparity, not their depth, is resized to 1280 x 1024; and the mask is gt < 150.
        resize_prediction="bilinear-disparity",
        reproduce=("strict-maximum",),
    )
)
KEYFRAMES = protocol(
    _to_150_mm(
        name="scared-keyframes",
        dataset="scared",
        summary="The 35 structured-light keyframes of data sets 1 to 7: measured, not interpolated depth.",
        source="Allan et al. 2021 (arXiv 2101.01133); scored as scared-afsfm-551",
        select=keyframes,
        expected_frames=35,
    )
)
CORRECTED = protocol(
    _to_150_mm(
        name="scared-c",
        dataset="scared-c",
        summary="Frames with the corrected poses of SCARED-C (17,135 if no list is given), median scaling, to 150 mm.",
        source="SCARED-C (arXiv 2605.16628) for the reference; scored as scared-afsfm-551; not the corruptions",
        select=corrected_frames,
        expected_frames=17135,
    )
)
