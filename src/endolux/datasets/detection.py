"""Which data set a folder holds, told from the names of its files and, where names agree, from one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from endolux.datasets.base import Dataset, Opener
from endolux.datasets.decode import decode_image, read_bytes
from endolux.errors import EndoluxError, InputError
from endolux.io.paths import input_error, printable

CANONICAL = (
    "scared", "scared-c", "servct", "hamlyn", "endoslam-unity", "simcol3d", "colondepth", "c3vd", "kitti", "nyu", "l3d",
    "llsd", "manifest", "folder",
)  # fmt: skip
"""Readers that detection considers; the others open the same files in another way."""

_OWN = ("manifest", "folder")


def detect_reader(path: Path, readers: Mapping[str, Opener]) -> str:
    """Name of the reader for what lies at ``path``; see :func:`endolux.datasets.detect`."""
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise input_error(error, path) from error
    if not path.is_dir():
        return _of_file(path)
    opened: dict[str, Dataset] = {}
    for name in CANONICAL:
        if name not in readers:
            continue
        try:
            opened[name] = readers[name](path)
        except EndoluxError:
            continue
    found = [name for name in opened if name not in _OWN] or list(opened)[:1]
    for pair, decide in _RIVALS.items():
        if set(pair) <= set(found):
            wrong = decide(opened[pair[0]])
            found = [name for name in found if name != wrong]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(
            f"No data set was recognised in '{printable(path)}'",
            why=f"Its files are not named as those of {', '.join(CANONICAL[:-2])}, nor are they pairs or a table.",
            fix="Give the folder that holds the set as it was unpacked, or name the reader to hear what it misses.",
            error_id="dataset.unknown",
        )
    raise InputError(
        f"'{printable(path)}' could be {' or '.join(found)}",
        why="More than one reader finds frames there.",
        fix="Name the reader, or give the folder of one set.",
        error_id="dataset.ambiguous",
    )


def _of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return "nyu"
    if suffix in (".csv", ".parquet"):
        return "manifest"
    raise InputError(
        f"'{printable(path)}' is a file, the folder of a data set was expected",
        why="Of single files only tables (.csv, .parquet) and the zip archive of NYU Depth V2 are read.",
        fix="Unpack the archive and give the folder.",
        error_id="input.not-a-folder",
    )


def _coarse_or_fine(dataset: Dataset) -> str:
    # SimCol3D and one arrangement of ColonDepth have the same names; 16 bits tell them apart.
    for key in dataset.keys():  # noqa: SIM118  -- a method of data sets, not of a mapping
        depth = [path for path in dataset.files(key) if path.name.startswith("Depth_")]
        if depth:
            try:
                bits = decode_image(read_bytes(depth[0]), printable(depth[0])).dtype.itemsize
            except EndoluxError:
                continue
            return "colondepth" if bits == 2 else "simcol3d"
    return "colondepth"


def _room_or_road(dataset: Dataset) -> str:
    # Archives of both sets hold the same names; a road is much wider than high.
    width, height = dataset.load(dataset.keys()[0]).frame.size
    return "nyu" if width > 2 * height else "kitti"


def _colours_only(dataset: Dataset) -> str:
    # Frames of C3VD are numbers alone, which any set's may be; masks of landmarks are no other set's.
    return dataset.name


_RIVALS: Mapping[tuple[str, str], Callable[[Dataset], str]] = {
    ("simcol3d", "colondepth"): _coarse_or_fine,
    ("kitti", "nyu"): _room_or_road,
    ("c3vd", "llsd"): _colours_only,
}
"""Pairs that open the same files, and which of the two it is not."""
