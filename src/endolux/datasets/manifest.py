"""Users' own data as a table: CSV, or Parquet where pyarrow is installed; a line a frame.

Columns (only ``image`` must be there; unknown ones are refused; paths are relative to the table)::

    image          picture
    depth          16-bit PNG/TIFF, float TIFF, .npy, .npz or .pfm; empty for none
    kind           depth (default), relative-depth or disparity
    mm_per_unit    millimetres that one stored number means; needed for whole-number depth, 1 for floats
    no_value       stored number that means "none" beside 0 and NaN (65535 in some sets)
    valid          8-bit mask, 0 = leave the pixel out
    camera         JSON file with width, height, fx, fy, cx, cy and if any model and distortion
    pose           text file with the 16 numbers of camera-to-world, row by row
    pose_mm        millimetres in a unit of the pose, 1 by default (1000 for metres)
    sequence, index, side      identity; by default from the name of the picture
    label:NAME     8-bit mask of that name

The identity of frames is what the hash of a frame list is taken over, so give ``sequence`` and ``index`` where results
are to be compared.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.decode import damaged, decode_image, matrix_of, metric_depth, read_bytes, read_text, wrong_size
from endolux.datasets.findings import information
from endolux.datasets.folder import KINDS, key_of
from endolux.datasets.listing import DepthDataset, Entry, memo, unique
from endolux.datasets.manifest_table import COLUMNS, LABEL, bad_value, check_columns, find_table, table_rows
from endolux.datasets.splits import every_frame
from endolux.datasets.stored import read_values
from endolux.errors import InputError
from endolux.geometry.cameras import load_camera
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.types import Camera, DepthKind, DepthMap, Frame


@dataclasses.dataclass(frozen=True, slots=True)
class _Row(Entry):
    kind: DepthKind = DepthKind.METRIC
    mm_per_unit: float | None = None
    no_value: float | None = None
    valid: Path | None = None
    camera: Path | None = None
    pose: Path | None = None
    pose_mm: float = 1.0
    labels: tuple[tuple[str, Path], ...] = ()


class ManifestDataset(DepthDataset[_Row]):
    """Frames listed in a table.

    Args:
        root: the table, or a folder that holds it as ``manifest.csv`` or ``manifest.parquet``.

    Raises:
        InputError: ``dataset.empty``, ``dataset.ambiguous``; ``manifest.column`` and ``manifest.value`` for a table
            that cannot be understood; from ``load``, what is wrong with the files.
        MissingExtraError: a Parquet table without pyarrow.
    """

    def __init__(self, root: Path) -> None:
        self._table = find_table(root)
        self._read_camera = memo(_camera)
        entries: dict[FrameKey, _Row] = {}
        for number, cells in table_rows(self._table):
            key, entry = _parse(cells, self._table, number)
            unique(entries, key, entry)
        super().__init__(name="manifest", root=root, entries=entries, layout="a table with the column 'image'")

    @override
    def read(self, key: FrameKey, entry: _Row) -> Sample:
        image = read_pixels(entry.image)
        height, width = image.shape[:2]
        camera = None if entry.camera is None else self._read_camera(entry.camera)
        if camera is not None and (camera.width, camera.height) != (width, height):
            size = (camera.width, camera.height)
            raise wrong_size(printable(entry.camera or ""), size, (width, height), "its picture")
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        depth, excluded = self._depth(entry, camera)
        pose = None
        if entry.pose is not None:
            text = read_text(entry.pose).replace(",", " ").split()
            pose = matrix_of(text, (4, 4), f"'{printable(entry.pose)}'")
            pose[:3, 3] *= entry.pose_mm
        labels = {name: _mask(path, (width, height), "its picture") for name, path in entry.labels}
        return Sample(key=key, frame=frame, depth=depth, pose=pose, labels=labels, excluded=excluded)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        entry = self.entry(key)
        more = (entry.valid, entry.camera, entry.pose, *(path for _, path in entry.labels))
        return [*super().files(key), *(path for path in more if path is not None)]

    @override
    def check_set(self) -> list[Finding]:
        data = self._table.read_bytes() if self._table.suffix == ".csv" else b"\n"
        odd = not data.endswith(b"\n")
        return [information("manifest.final-newline", "The table ends without a line break.")] if odd else []

    # Whether the light is at the camera is not known of users' data.
    lit_by_camera = False

    @staticmethod
    def _depth(entry: _Row, camera: Camera | None) -> tuple[DepthMap | None, dict[str, int]]:
        if entry.depth is None:
            return None, {}
        values, stored, whole = read_values(entry.depth)
        if entry.no_value is not None:
            stored &= values != entry.no_value
        if entry.kind is DepthKind.METRIC:
            if entry.mm_per_unit is None and whole:
                raise InputError(
                    f"The unit of '{printable(entry.depth)}' is not stated",
                    why="It holds whole numbers; how many millimetres each means cannot be seen from it.",
                    fix="Fill the column 'mm_per_unit' (0.01 for steps of 0.01 mm, 3.90625 for KITTI).",
                    error_id="dataset.depth-scale",
                )
            values = values * (entry.mm_per_unit or 1.0)
        if entry.valid is not None:
            stored &= _mask(entry.valid, (values.shape[1], values.shape[0]), "its depth") > 0
        values[~stored] = np.nan
        depth, excluded = metric_depth(values, camera=camera)
        return dataclasses.replace(depth, kind=entry.kind), excluded


def write_manifest(path: Path, rows: Iterable[Mapping[str, str | int | float]]) -> int:
    """Write a CSV table that this reader reads.

    Args:
        path: ``.csv`` file; replaced if it exists.
        rows: values by column; missing ones are left empty.

    Returns:
        the number of rows.

    Raises:
        InputError: ``manifest.column`` for a column without a meaning.
        EndoluxError: not writable or disk full.

    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp()) / "manifest.csv"
        >>> write_manifest(table, [{"image": "a.png", "depth": "a.npy", "sequence": "mine", "index": 3}])
        1
        >>> [str(key) for key in ManifestDataset(table).keys()]
        ['mine 3']
    """
    from endolux.io.tables import write_bytes_atomic

    listed = [dict(row) for row in rows]
    used = {name for row in listed for name in row}
    check_columns(sorted(used), path)
    columns = [name for name in COLUMNS if name in used] + sorted(used - set(COLUMNS))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    write_bytes_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return len(listed)


def _parse(cells: Mapping[str, str], table: Path, number: int) -> tuple[FrameKey, _Row]:
    def path(name: str) -> Path | None:
        text = cells.get(name, "")
        if "\0" in text:
            raise bad_value(table, number, f"'{name}' is no path")
        return table.parent / text if text else None

    def real(name: str) -> float | None:
        text = cells.get(name, "")
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise bad_value(table, number, f"'{name}' is {text!r}, not a number")
        return value

    image = path("image")
    if image is None:
        raise bad_value(table, number, "'image' is empty")
    kind = cells.get("kind") or "depth"
    if kind not in KINDS:
        raise bad_value(table, number, f"'kind' is {kind!r}, not one of {', '.join(KINDS)}")
    scale, pose_mm, index = real("mm_per_unit"), real("pose_mm"), real("index")
    for name, value in (("mm_per_unit", scale), ("pose_mm", pose_mm)):
        if value is not None and value <= 0:
            raise bad_value(table, number, f"'{name}' is {value:g}, not positive")
    if index is not None and (index != int(index) or index < 0):
        raise bad_value(table, number, f"'index' is {index:g}, not a whole number")
    named = key_of(image.name.split(".")[0])
    key = FrameKey(
        sequence=cells.get("sequence") or named.sequence,
        index=named.index if index is None else int(index),
        side=cells.get("side", ""),
    )
    labels = [(name.removeprefix(LABEL), path(name)) for name in cells if name.startswith(LABEL)]
    row = _Row(
        image,
        path("depth"),
        kind=KINDS[kind],
        mm_per_unit=scale,
        no_value=real("no_value"),
        valid=path("valid"),
        camera=path("camera"),
        pose=path("pose"),
        pose_mm=pose_mm or 1.0,
        labels=tuple((name, file) for name, file in labels if file is not None),
    )
    return key, row


def _mask(path: Path, size: tuple[int, int], what: str) -> npt.NDArray[np.uint8]:
    plane = decode_image(read_bytes(path), printable(path))
    if plane.ndim != 2 or plane.dtype != np.uint8:
        raise damaged(printable(path), "a mask is 8-bit grey")
    if plane.shape != (size[1], size[0]):
        raise wrong_size(printable(path), (plane.shape[1], plane.shape[0]), size, what)
    return np.asarray(plane, np.uint8)


def _camera(path: Path) -> Camera | None:
    return load_camera(path)


@reader("manifest")
def open_manifest(root: Path) -> ManifestDataset:
    """Open a table of frames."""
    return ManifestDataset(root)


protocol(
    Protocol(
        name="manifest",
        version=1,
        dataset="manifest",
        summary="Every frame of a table of one's own, median scaling",
        source="This package; compares with nothing published",
        select=every_frame,
    )
)
