"""Raw SCARED to a folder of single files: left pictures, depth in millimetres, poses.

The result has AF-SfMLearner's layout, with depth instead of point maps::

    datasetD/keyframeK/image_02/data/%010d.png                left picture i; 0 is the structured-light still
    datasetD/keyframeK/image_02/data/depth/%010d.png          16-bit, 100 codes a mm, 0 = no depth (or .npy, float32 mm)
    datasetD/keyframeK/image_02/data/frame_data/frame_data%06d.json     pose and camera, number i - 1 as released
    datasetD/keyframeK/endoscope_calibration.yaml
    conversion.json

Every file appears whole or not at all, and files that are there already are left alone, so that an interrupted
conversion goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

import endolux
from endolux.datasets.base import FrameKey
from endolux.datasets.decode import read_bytes
from endolux.datasets.scared import CODES_PER_MM, CONVERSION_FILE, Scared
from endolux.datasets.scared_files import same_file
from endolux.datasets.scared_splits import KEYFRAME, read_split
from endolux.errors import InputError, UsageError
from endolux.io.paths import printable
from endolux.io.tables import atomic_path, make_output_folder, write_bytes_atomic, write_json_atomic
from endolux.types import DepthMap

DepthFormat = Literal["png", "npy", "none"]
_LARGEST_CODE = 65535


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConversionFailure:
    """A frame that could not be converted.

    Attributes:
        frame: which one.
        error: why; its ``error_id``, ``what``, ``why`` and ``fix`` tell.
    """

    frame: FrameKey
    error: InputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion did.

    Attributes:
        output: the converted folder.
        frames: frames that are complete now.
        written: files written by this run.
        kept: files that were there already.
        failures: frames that could not be converted; they are tried again by the next run.
        excluded: depth values left out by reason: ``infinite``, ``negative``, ``too-far`` (beyond 655.35 mm, which a
            16-bit code cannot hold), over the frames whose depth was written by this run.
    """

    output: Path
    frames: int
    written: int
    kept: int
    failures: tuple[ConversionFailure, ...]
    excluded: Mapping[str, int]


def convert_scared(
    source: Path,
    output: Path,
    *,
    sequences: Iterable[str] | None = None,
    split: Path | None = None,
    neighbours: int = 1,
    depth_format: DepthFormat = "png",
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Convert SCARED, in any layout that is read, to single files.

    Args:
        source: folder of the raw release, as downloaded: archives are read in place and need not be unpacked.
        output: folder to create or to continue.
        sequences: only these (``dataset3/keyframe4``); all by default.
        split: only the frames that this list names, with ``neighbours`` frames before and after each.
        neighbours: frames kept around each listed one, pictures and poses and depth.
        depth_format: ``png`` (0.01 mm steps), ``npy`` (float32, exact, four times larger) or ``none``.
        progress: called with frames done and frames in all.

    Returns:
        Counts and failures. A damaged or missing file fails its frame, not the conversion.

    Raises:
        InputError: no SCARED data in ``source``, an unknown sequence (``scared.sequence``), a bad split file.
        UsageError: output inside the source (``output.is-source``), not writable, or converted in another depth
            format (``output.format``); a negative ``neighbours``.
        DeviceError: the disk is full.
    """
    if depth_format not in ("png", "npy", "none") or neighbours < 0:
        raise UsageError(
            f"Impossible depth format {depth_format!r} or number of neighbours {neighbours}",
            why="Depth is written as png or npy, or not at all; a negative number of frames cannot be kept.",
            fix="Use depth_format='png' and neighbours=1, or leave both out.",
            error_id="scared.convert",
        )
    source, output = Path(source), Path(output)
    data = Scared(source)
    if same_file(source, output):
        raise UsageError(
            f"The output '{printable(output)}' lies in the source",
            why="A converted folder inside the release would be read as part of it.",
            fix="Choose a folder elsewhere.",
            error_id="output.is-source",
        )
    keys = _selected(data, sequences, split, neighbours)
    make_output_folder(output)
    run = _Run(data, output, depth_format)
    for done, key in enumerate(keys, 1):
        run.frame(key)
        if progress is not None:
            progress(done, len(keys))
    result = run.result(len(keys))
    layouts = {data.sequences[key.sequence].layout for key in keys}
    write_json_atomic(
        output / CONVERSION_FILE,
        {
            "dataset": "scared",
            "endolux_version": endolux.__version__,
            "source": printable(source.name),
            "layout": layouts.pop() if len(layouts) == 1 else "mixed",
            "frames": result.frames,
            "depth_format": depth_format,
            "codes_per_mm": CODES_PER_MM if depth_format == "png" else None,
            "unit": "mm",
            "failures": [{"frame": str(f.frame), "error": f.error.error_id} for f in result.failures],
            "excluded_in_last_run": dict(result.excluded),
        },
    )
    return result


class _Run:
    """One pass over frames in order, so that archives and videos are read once."""

    def __init__(self, data: Scared, output: Path, depth_format: DepthFormat) -> None:
        self._data, self._output, self._format = data, output, depth_format
        self._written = self._kept = 0
        self._failures: list[ConversionFailure] = []
        self._excluded: Counter[str] = Counter()
        self._prepared: set[str] = set()

    def frame(self, key: FrameKey) -> None:
        """Write the parts of one frame that are missing."""
        folder = self._folder(key.sequence)
        try:
            # The picture comes last: where it lies, the frame is complete.
            self._depth(key, folder)
            self._pose(key, folder)
            self._write(folder / f"{key.index:010d}.png", lambda: _png_of_rgb(self._data.image(key)))
        except InputError as error:
            self._failures.append(ConversionFailure(frame=key, error=error))

    def result(self, frames: int) -> Conversion:
        """The counts so far."""
        return Conversion(
            output=self._output,
            frames=frames - len(self._failures),
            written=self._written,
            kept=self._kept,
            failures=tuple(self._failures),
            excluded=dict(self._excluded),
        )

    def _depth(self, key: FrameKey, folder: Path) -> None:
        sequence = self._data.sequences[key.sequence]
        if self._format == "none" or (sequence.depth_files is None and key.index != KEYFRAME):
            return
        path = folder / "depth" / f"{key.index:010d}.{self._format}"
        if path.exists():
            self._kept += 1
            return
        depth, excluded = self._data.depth(key)
        if depth is None:
            return
        self._excluded.update(excluded)
        if self._format == "png":
            codes, too_far = _codes(depth)
            self._excluded.update({"too-far": too_far} if too_far else {})
            write_bytes_atomic(path, _encoded(codes))
        else:
            values = np.where(depth.valid, depth.values, np.float32(np.nan))
            with atomic_path(path, durable=False) as temporary, temporary.open("wb") as file:
                np.save(file, values)
        self._written += 1

    def _pose(self, key: FrameKey, folder: Path) -> None:
        path = folder / "frame_data" / f"frame_data{key.index - 1:06d}.json"
        if self._data.sequences[key.sequence].layout == "rectified":
            self._write(path, lambda: self._rectified_camera(key))
            return
        files = self._data.sequences[key.sequence].frame_data
        if files is None or key.index == KEYFRAME:
            return
        number = key.index - self._data.sequences[key.sequence].first
        self._write(path, lambda: files.read(number))

    def _rectified_camera(self, key: FrameKey) -> bytes:
        # The released calibration describes the pictures before rectification.
        camera = self._data.load(key).frame.camera
        matrix = None if camera is None else camera.matrix.tolist()
        return json.dumps({"camera-calibration": {} if matrix is None else {"KL": matrix}}).encode()

    def _write(self, path: Path, content: Callable[[], bytes]) -> None:
        if path.exists():
            self._kept += 1
            return
        write_bytes_atomic(path, content())
        self._written += 1

    def _folder(self, name: str) -> Path:
        folder = self._output / name / "image_02" / "data"
        if name not in self._prepared:
            others = {"png", "npy"} - {self._format} if self._format != "none" else set()
            if (folder / "depth").is_dir() and any(
                entry.name.endswith(tuple(f".{other}" for other in others)) for entry in os.scandir(folder / "depth")
            ):
                raise UsageError(
                    f"'{printable(folder / 'depth')}' holds depth in another format",
                    why="Two files for one frame would contradict each other.",
                    fix=f"Choose another output folder, or the format {', '.join(sorted(others))}.",
                    error_id="output.format",
                )
            for inner in (folder, *([folder / "depth"] if self._format != "none" else []), folder / "frame_data"):
                make_output_folder(inner)
            sequence = self._data.sequences[name]
            calibration = sequence.calibration
            if calibration is not None and sequence.layout != "rectified":
                self._write(self._output / name / calibration.name, lambda: read_bytes(calibration))
            self._prepared.add(name)
        return folder


def _selected(data: Scared, sequences: Iterable[str] | None, split: Path | None, neighbours: int) -> list[FrameKey]:
    names = set(data.sequences)
    if sequences is not None:
        wanted = set(sequences)
        if unknown := sorted(wanted - names):
            raise InputError(
                f"No sequence '{unknown[0]}' in '{printable(data.root)}'",
                why=f"It holds {', '.join(sorted(names)[:6])}{', ...' if len(names) > 6 else ''}.",
                fix="Write sequences as the published lists do: dataset3/keyframe4.",
                error_id="scared.sequence",
            )
        names = wanted
    listed: set[tuple[str, int]] | None = None
    if split is not None:
        keys = read_split(split)
        offsets = range(-neighbours, neighbours + 1)
        # Frame 0 is the still, no neighbour of the video's frames.
        listed = {
            (k.sequence, i) for k in keys for i in (k.index + offset for offset in offsets) if i > 0 or not k.index
        }
        names &= {key.sequence for key in keys}
    selected = [
        FrameKey(sequence=name, index=index, side="left")
        for name in sorted(names)
        for index in data.sequences[name].indices()
        if (listed is None or (name, index) in listed)
        # A still is not rectified; among rectified frames it would be the odd one out.
        and not (index == KEYFRAME and data.sequences[name].layout == "rectified")
    ]
    if not selected:
        raise InputError(
            f"Nothing to convert in '{printable(data.root)}'",
            why="None of the chosen sequences or listed frames is there.",
            fix="Check the sequences and the split file.",
            error_id="scared.nothing",
        )
    return selected


def _codes(depth: DepthMap) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.uint16]], int]:
    scaled = np.where(depth.valid, np.rint(depth.values.astype(np.float64) * CODES_PER_MM), 0.0)
    too_far = scaled > _LARGEST_CODE
    scaled[too_far] = 0.0
    # A depth below half a step still is a depth.
    scaled[depth.valid & ~too_far & (scaled < 1.0)] = 1.0
    return scaled.astype(np.uint16), int(np.count_nonzero(too_far))


def _png_of_rgb(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return _encoded(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _encoded(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    return bytes(cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
