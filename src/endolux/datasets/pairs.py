"""Folders of images with true depth: which file belongs to which, and what the numbers mean.

Two layouts are read, not recursively::

    FOLDER/images/NAME.png  FOLDER/depth/NAME.png       equal stems
    FOLDER/NAME.png         FOLDER/NAME_depth.png       side by side

Depth files are 16-bit grey PNG or TIFF (codes; how many make a millimetre must be said) or ``.npy``/``.npz`` holding
floats in millimetres (for disparity: any unit). 0 and NaN mean "no value"; infinite and negative values are left out
and counted. An ``.npz`` holds one array, or ``depth`` or ``values``, and optionally a boolean ``valid``.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.datasets.planes import CODE_SUFFIXES, DEPTH_SUFFIXES, read_plane
from endolux.errors import InputError, UsageError
from endolux.io.images import IMAGE_SUFFIXES
from endolux.io.paths import input_error, printable
from endolux.io.sources import natural_key
from endolux.types import DepthKind, MaskArray

DEPTH_TAIL = "_depth"


class TruthKind(enum.StrEnum):
    """What the files hold."""

    DEPTH = "depth"
    """Depth along the optical axis."""
    DISPARITY = "disparity"
    """Inverse depth, up to a scale and a shift."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TruthFormat:
    """How to read the depth files.

    Attributes:
        kind: depth or disparity.
        codes_per_mm: codes of an integer file that make one millimetre (100 for 0.01 mm steps); needed for depth.
    """

    kind: TruthKind = TruthKind.DEPTH
    codes_per_mm: float | None = None

    def __post_init__(self) -> None:
        scale = self.codes_per_mm
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise UsageError(
                f"Impossible depth scale {scale}",
                why="It is the number of codes in one millimetre, positive and finite.",
                fix="For example 100 for steps of 0.01 mm, 1 for whole millimetres, 655.35 for 65535 = 100 mm.",
                error_id="evaluate.depth-scale",
            )

    @property
    def depth_kind(self) -> DepthKind:
        """METRIC for depth, RELATIVE_DISPARITY for disparity."""
        return DepthKind.METRIC if self.kind is TruthKind.DEPTH else DepthKind.RELATIVE_DISPARITY


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One image and its depth file.

    Attributes:
        name: the common stem.
        image: path of the image.
        depth: path of the true depth.
    """

    name: str
    image: Path
    depth: Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """True depth of one frame.

    Attributes:
        values: H x W float64, millimetres (or disparity in its own unit).
        valid: H x W bool: positive and finite.
        no_value: pixels that are 0, NaN or masked by the file.
        infinite, negative: pixels that hold such a number although it cannot be a depth.
    """

    values: npt.NDArray[np.float64]
    valid: MaskArray
    no_value: int
    infinite: int
    negative: int


def find_pairs(folder: str | Path) -> list[Pair]:
    """The image/depth pairs of a folder, sorted naturally by name.

    Args:
        folder: in one of the two layouts above.

    Raises:
        InputError: ``input.missing``, ``input.not-a-folder``, ``evaluate.unpaired`` for an image without depth or
            the reverse, ``dataset.ambiguous`` for two files of one stem, ``evaluate.no-pairs`` for an empty folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "a_depth.npy"):
        ...     (folder / name).touch()
        >>> [pair.name for pair in find_pairs(folder)]
        ['a']
    """
    root = Path(folder)
    images, depths = files_by_stem(root, DEPTH_SUFFIXES)
    alone = sorted(images.keys() ^ depths.keys(), key=natural_key)
    if not images and not depths:
        raise InputError(
            f"No image/depth pairs in '{printable(root)}'",
            why="It holds neither images/ and depth/ with equal stems, nor NAME.png beside NAME_depth.png.",
            fix="Arrange the files in one of these two ways; .npy and .npz depth is read too.",
            error_id="evaluate.no-pairs",
        )
    if alone:
        what = "has no depth file" if alone[0] in images else "has no image"
        raise InputError(
            f"'{printable(alone[0])}' {what} ({len(alone)} of {len(images | depths)} names in '{printable(root)}')",
            why="Every image needs a depth file of the same stem; a score over a part would look like the whole.",
            fix="Add the missing files, or move the lone ones elsewhere.",
            error_id="evaluate.unpaired",
        )
    return [Pair(name=stem, image=images[stem], depth=depths[stem]) for stem in sorted(images, key=natural_key)]


def files_by_stem(root: Path, depth_suffixes: Iterable[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and depth files of a folder by their common stem, in one of the two layouts; either may lack a partner.

    Args:
        root: folder.
        depth_suffixes: endings of depth files.

    Raises:
        InputError: ``input.missing``, ``input.not-a-folder``; ``dataset.ambiguous`` for two files of one stem.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "a_depth.npy", "b_depth.npy"):
        ...     (folder / name).touch()
        >>> images, depths = files_by_stem(folder, [".npy"])
        >>> sorted(images), sorted(depths)
        (['a'], ['a', 'b'])
    """
    names = _files(root)
    if (root / "images").is_dir() and (root / "depth").is_dir():
        images = _by_stem(root / "images", _files(root / "images"), IMAGE_SUFFIXES)
        return images, _by_stem(root / "depth", _files(root / "depth"), depth_suffixes)
    is_depth = {name: Path(name).stem.endswith(DEPTH_TAIL) for name in names}
    images = _by_stem(root, [name for name in names if not is_depth[name]], IMAGE_SUFFIXES)
    found = _by_stem(root, [name for name in names if is_depth[name]], depth_suffixes)
    return images, {stem.removesuffix(DEPTH_TAIL): path for stem, path in found.items()}


def check_format(pairs: Iterable[Pair], truth: TruthFormat) -> None:
    """Refuse a depth scale that is missing where codes need it, or given where no file has codes.

    Raises:
        UsageError: ``evaluate.depth-scale``.

    Example:
        >>> check_format([Pair(name="a", image=Path("a.png"), depth=Path("a_depth.npy"))], TruthFormat())
    """
    coded = [pair for pair in pairs if pair.depth.suffix.lower() in CODE_SUFFIXES]
    if coded and truth.kind is TruthKind.DEPTH and truth.codes_per_mm is None:
        raise UsageError(
            f"The unit of '{printable(coded[0].depth)}' is not stated",
            why="A 16-bit file holds codes; how many make a millimetre cannot be seen from it.",
            fix="Add --depth-scale CODES_PER_MM (100 for steps of 0.01 mm), or --depth-kind disparity.",
            error_id="evaluate.depth-scale",
        )
    if not coded and truth.codes_per_mm is not None:
        raise UsageError(
            f"A depth scale of {truth.codes_per_mm:g} was given, and no depth file holds codes",
            why=".npy and .npz files hold millimetres already; the scale would be ignored.",
            fix="Leave out --depth-scale; convert the arrays if they are not in millimetres.",
            error_id="evaluate.depth-scale",
        )


def read_truth(path: str | Path, truth: TruthFormat) -> Truth:
    """Read one depth file.

    Raises:
        InputError: missing, damaged or empty file; ``evaluate.depth-bits`` for anything but 16-bit single-channel
            codes; ``evaluate.depth-array`` for an array that is not H x W float.
        UsageError: ``evaluate.depth-scale`` for codes of unknown unit.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.array([[5.0, 0.0, -1.0, np.inf]]))
        >>> depth = read_truth(file, TruthFormat())
        >>> int(depth.valid.sum()), depth.no_value, depth.negative, depth.infinite
        (1, 1, 1, 1)
    """
    path = Path(path)
    if truth.codes_per_mm is None:
        check_format([Pair(name=path.stem, image=path, depth=path)], truth)
    values, stored = read_plane(path)
    if path.suffix.lower() in CODE_SUFFIXES and truth.codes_per_mm is not None:
        values = values / truth.codes_per_mm
    infinite = np.isinf(values) & stored
    negative = (values < 0) & stored & ~infinite
    valid = stored & np.isfinite(values) & (values > 0)
    bad = int(infinite.sum()), int(negative.sum())
    return Truth(
        values=values,
        valid=valid,
        no_value=int(values.size - valid.sum() - bad[0] - bad[1]),
        infinite=bad[0],
        negative=bad[1],
    )


def list_hash(pairs: Iterable[Pair]) -> str:
    """sha256 over names and contents of all files, in order: two evaluations with one hash saw the same data.

    A file that cannot be read enters as such; its pair is a failure of the evaluation anyway.

    Example:
        >>> list_hash([])[:8]
        'e3b0c442'
    """
    total = hashlib.sha256()
    for pair in pairs:
        parts = [pair.name]
        for path in (pair.image, pair.depth):
            try:
                with path.open("rb") as file:
                    parts.append(hashlib.file_digest(file, "sha256").hexdigest())
            except OSError:
                parts.append("unreadable")
        total.update(("\t".join(parts) + "\n").encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
    except NotADirectoryError as error:
        raise InputError(
            f"'{printable(folder)}' is a file, a folder of pairs was expected",
            why="Images and their true depth are many files.",
            fix="Give the folder that holds them; a list of files is what the reader 'manifest' takes.",
            error_id="input.not-a-folder",
        ) from error
    except (OSError, ValueError) as error:
        raise input_error(error, folder) from error


def _by_stem(folder: Path, names: Iterable[str], suffixes: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    wanted = frozenset(suffixes)
    for name in names:
        path = folder / name
        if path.suffix.lower() not in wanted:
            continue
        if path.stem in found:
            raise InputError(
                f"'{printable(path.stem)}' stands for two files: '{printable(found[path.stem].name)}' and "
                f"'{printable(name)}'",
                why="Pairs are found by the stem of the file name.",
                fix="Keep one of them in the folder.",
                error_id="dataset.ambiguous",
            )
        found[path.stem] = path
    return found
