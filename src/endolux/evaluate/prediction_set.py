"""Predictions of any software for the frames of a protocol: a folder of depth files, or one stack."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from endolux.datasets.base import FrameKey
from endolux.datasets.planes import DEPTH_SUFFIXES
from endolux.errors import InputError, UsageError
from endolux.evaluate.predictors import FolderPredictor, Predictor, check_codes, unknown_kind
from endolux.io.paths import input_error, printable
from endolux.io.sources import natural_key
from endolux.types import DepthKind, DepthMap, Frame

_NUMBER = re.compile(r"(\d+)$")
_SEPARATORS = re.compile(r"[^0-9a-z]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StackPredictor:
    """One ``.npy`` array of N x H x W predictions in the order of the protocol's frame list.

    Attributes:
        rows: name of the frame -> row of the array.
    """

    name: str
    kind: DepthKind
    array: npt.NDArray[np.floating]
    rows: Mapping[str, int]
    provenance: Mapping[str, str | float | None]

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Read one row; the rest of the array stays on the disk."""
        values = np.array(self.array[self.rows[name]], np.float32)
        return DepthMap(values=values, kind=self.kind, valid=np.isfinite(values))


def open_prediction_set(
    path: Path,
    keys: Sequence[FrameKey],
    stems: Sequence[str],
    *,
    kind: DepthKind | None,
    scale: float | None = None,
    in_order: bool = False,
) -> Predictor:
    """Find the prediction of every frame.

    A folder (searched with its subfolders, in ``depth/`` where it has one) is matched in the first of these ways that
    finds every frame, else in the one that finds most:

    1. ``SEQUENCE[/SIDE]/...INDEX.png``: the subfolder is the sequence and the name ends in the frame's number;
    2. ``SEQUENCE_INDEX[_SIDE].npy``: sequence, number and side joined by anything but letters and digits;
    3. the stem of the frame's image, where these stems differ from each other.

    Args:
        path: a folder, or an N x H x W ``.npy`` in the order of ``keys``.
        keys: the protocol's frames.
        stems: stem of the image of each frame.
        kind: meaning of the numbers; None to take it from ``meta.json``.
        scale: codes per unit of 16-bit files.
        in_order: match the files by their natural order instead of by name; their number must be that of the frames.

    Raises:
        UsageError: ``evaluate.prediction-kind`` where the meaning is not stated.
        InputError: unreadable folder, ``evaluate.prediction-count`` for another number of predictions than frames,
            ``evaluate.no-prediction`` where not one frame has a prediction.
    """
    if path.is_file():
        return _open_stack(path, keys, kind, scale)
    if (path / "meta.json").exists():
        if kind is not None or scale is not None:
            raise UsageError(
                f"--prediction-kind and --prediction-scale were given for '{printable(path)}'",
                why="Its meta.json states both already.",
                fix="Leave them out.",
                error_id="evaluate.prediction-kind",
            )
        return _open_run(path, keys, stems, in_order=in_order)
    if kind is None:
        raise unknown_kind(printable(path))
    root = path / "depth" if (path / "depth").is_dir() else path
    files = list_files(root)
    check_codes(path, (root / name for name in files), kind, scale)
    found, naming = match_files(root, files, keys, stems, in_order=in_order)
    return FolderPredictor(
        name=str(path),
        kind=kind,
        files=found,
        codes_per_unit=scale or 1.0,
        provenance={
            "type": "folder",
            "name": printable(path.resolve().name),
            "codes_per_unit": scale,
            "matched_by": naming,
        },
    )


def _open_run(path: Path, keys: Sequence[FrameKey], stems: Sequence[str], *, in_order: bool) -> Predictor:
    from endolux.evaluate.predictors import open_predictor

    run = open_predictor(str(path))
    if not isinstance(run, FolderPredictor):
        raise TypeError("a folder with meta.json is a run")
    names = {_plain(stem): file for stem, file in run.files.items()}
    by_stem = {str(k): run.files[s] for k, s in zip(keys, stems, strict=True) if s in run.files}
    ways = [("sequence_index", {str(key): names[_flat(key)] for key in keys if _flat(key) in names})]
    if len(set(stems)) == len(stems):
        ways.append(("image stem", by_stem))
    if in_order:
        ways = [("order", _ordered(list(run.files.values()), keys, path))]
    naming, found = max(ways, key=lambda way: len(way[1]))
    if not found:
        raise _nothing(path)
    return dataclasses.replace(run, files=found, provenance={**run.provenance, "matched_by": naming})


def match_files(
    root: Path, files: Sequence[str], keys: Sequence[FrameKey], stems: Sequence[str], *, in_order: bool
) -> tuple[dict[str, Path], str]:
    """Name of each frame -> its file, and the way that found them; see :func:`open_prediction_set`.

    Args:
        root: folder of the files.
        files: their paths relative to it, from :func:`list_files`.
        keys: the protocol's frames.
        stems: stem of the image of each frame.
        in_order: match by order alone.

    Raises:
        InputError: ``evaluate.prediction-count``, ``evaluate.no-prediction``, ``evaluate.ambiguous``.
    """
    if in_order:
        return _ordered([root / name for name in files], keys, root), "order"
    folders: dict[tuple[str, int], list[Path]] = {}
    flat: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for name in files:
        file = PurePosixPath(name)
        parent, stem = "" if len(file.parts) == 1 else str(file.parent), file.stem.removesuffix("_depth")
        number = _NUMBER.search(stem)
        if number:
            folders.setdefault((_plain(parent), int(number[1])), []).append(root / name)
        flat.setdefault(_plain(f"{parent}/{stem}" if parent else stem), []).append(root / name)
        by_stem.setdefault(stem, []).append(root / name)
    candidates: list[tuple[str, dict[str, list[Path]]]] = [
        ("sequence/index", {}),
        ("sequence_index", {}),
        ("image stem", {}),
    ]
    unique_stems = Counter(stems)
    for key, stem in zip(keys, stems, strict=True):
        sides = [f"{key.sequence}/{key.side}"] if key.side else []
        for folder in [*sides, key.sequence]:
            if hits := folders.get((_plain(folder), key.index)):
                candidates[0][1][str(key)] = hits
                break
        if hits := flat.get(_flat(key)):
            candidates[1][1][str(key)] = hits
        if unique_stems[stem] == 1 and (hits := by_stem.get(stem)):
            candidates[2][1][str(key)] = hits
    naming, found = max(candidates, key=lambda way: len(way[1]))
    if not found:
        raise _nothing(root)
    for name, paths in found.items():
        if len(paths) > 1:
            raise InputError(
                f"Two predictions for '{printable(name)}': '{printable(paths[0])}' and '{printable(paths[1])}'",
                why=f"The files were matched by {naming}.",
                fix="Keep one of them.",
                error_id="evaluate.ambiguous",
            )
    return {name: paths[0] for name, paths in found.items()}, naming


def _plain(text: str) -> str:
    """Letters and digits in lower case, numbers without leading zeros: names as different tools write them.

    Example:
        >>> _plain("Dataset1/keyframe_2/000005")
        'dataset1-keyframe-2-5'
    """
    parts = [p for p in _SEPARATORS.split(text.casefold()) if p]
    return "-".join(p.lstrip("0") or "0" if p.isdigit() else p for p in parts)


def _flat(key: FrameKey) -> str:
    return _plain(f"{key.sequence}/{key.index}" + (f"/{key.side}" if key.side else ""))


def _ordered(files: Sequence[Path], keys: Sequence[FrameKey], root: Path) -> dict[str, Path]:
    if len(files) != len(keys):
        raise _wrong_count(root, len(files), len(keys))
    return {str(key): path for key, path in zip(keys, files, strict=True)}


def _open_stack(path: Path, keys: Sequence[FrameKey], kind: DepthKind | None, scale: float | None) -> Predictor:
    if kind is None:
        raise unknown_kind(printable(path))
    if scale is not None:
        raise UsageError(
            f"--prediction-scale was given for '{printable(path)}'",
            why="It holds floats, not codes.",
            fix="Leave it out.",
            error_id="evaluate.prediction-kind",
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _bad_stack(path, " ".join(str(error).split()) or "it is empty") from error
    except OSError as error:
        raise input_error(error, path) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise _bad_stack(path, "it does not hold floats")
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or 0 in array.shape:
        raise _bad_stack(path, f"its shape is {array.shape}")
    if array.shape[0] != len(keys):
        raise _wrong_count(path, array.shape[0], len(keys))
    return StackPredictor(
        name=str(path),
        kind=kind,
        array=array,
        rows={str(key): row for row, key in enumerate(keys)},
        provenance={"type": "stack", "name": printable(path.name), "matched_by": "order"},
    )


def list_files(root: Path) -> list[str]:
    """Relative paths of all depth files, in natural order."""
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise input_error(error, error.filename or root)

    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        relative = os.path.relpath(folder, root)
        found += [
            name if relative == "." else f"{relative.replace(os.sep, '/')}/{name}"
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in DEPTH_SUFFIXES
        ]
    return sorted(found, key=natural_key)


def _nothing(root: Path) -> InputError:
    return InputError(
        f"Not one frame of the protocol has a prediction in '{printable(root)}'",
        why="Files are matched as SEQUENCE/INDEX, as SEQUENCE_INDEX, or by the stem of the frame's image.",
        fix="Rename the files, or add --in-order where they lie in the order of the protocol's list.",
        error_id="evaluate.no-prediction",
    )


def _wrong_count(path: Path, found: int, frames: int) -> InputError:
    return InputError(
        f"'{printable(path)}' holds {found} predictions, the protocol scores {frames} frames",
        why="By order alone, one missing file would shift all that follow.",
        fix="Predict exactly the frames of the protocol, in its order.",
        error_id="evaluate.prediction-count",
    )


def _bad_stack(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{printable(path)}' is not a stack of predictions: {reason}",
        why="A stack is one N x H x W array of floats in the order of the protocol's frames.",
        fix="Save numpy.stack(predictions).astype('float32'), or give a folder with a file a frame.",
        error_id="evaluate.depth-array",
    )
