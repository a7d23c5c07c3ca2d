"""What is evaluated: a model, a baseline, or a folder of depth that was predicted before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from endolux.datasets.planes import CODE_SUFFIXES, DEPTH_SUFFIXES, read_plane
from endolux.errors import InputError, UsageError
from endolux.evaluate.baselines import PREFIX, Baseline, get_baseline
from endolux.evaluate.cards import model_sha256
from endolux.io.paths import printable
from endolux.prep.content_area import find_content_area
from endolux.types import DepthKind, DepthMap, Frame

if TYPE_CHECKING:
    from endolux.runtime.model import Model

_RATIO_NETWORKS = ("leve", "guidedepth")


class Predictor(Protocol):
    """Gives the depth of a frame.

    Attributes:
        name: for reports.
        kind: what its numbers mean.
        provenance: plain values that identify it (card hash, engine, precision, folder).
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> DepthKind: ...  # noqa: D102
    @property
    def provenance(self) -> Mapping[str, str | float | None]: ...  # noqa: D102

    def predict(self, name: str, frame: Frame) -> DepthMap:
        """Depth of the frame called ``name``. Raises EndoluxError for a frame that cannot be predicted."""
        ...


def open_predictor(
    name: str,
    *,
    engine: str = "onnxruntime",
    precision: str = "exact",
    threads: int | None = None,
    prediction_kind: DepthKind | None = None,
    prediction_scale: float | None = None,
) -> Predictor:
    """The predictor that ``name`` means.

    Args:
        name: ``baseline:constant``, ``baseline:brightness``; a folder without ``card.json``: predictions; otherwise a
            bundled model or a bundle's folder.
        engine: what runs a model, onnxruntime or openvino.
        precision: exact or fast.
        threads: threads of the engine, None for its default.
        prediction_kind: what the files of a prediction folder hold; only for one that ``endolux predict`` has not
            written (its ``meta.json`` says it).
        prediction_scale: codes per unit of such a folder's 16-bit files.

    Raises:
        UsageError: unknown baseline, a prediction option where it does not belong or is missing.
        InputError: the folder of predictions cannot be read.
        ModelError: no such model, or a damaged one.

    Example:
        >>> open_predictor("baseline:constant").kind
        <DepthKind.RELATIVE_DEPTH: 'relative_depth'>
    """
    folder = Path(name)
    is_folder = not name.startswith(PREFIX) and folder.is_dir() and not (folder / "card.json").exists()
    if not is_folder and not (prediction_kind is None and prediction_scale is None):
        raise UsageError(
            f"--prediction-kind and --prediction-scale do not apply to '{name}'",
            why="They describe a folder of predictions; models and baselines know their own kind.",
            fix="Leave them out.",
            error_id="evaluate.prediction-kind",
        )
    if name.startswith(PREFIX):
        return BaselinePredictor(name=name, baseline=get_baseline(name))
    if is_folder:
        return _open_folder(folder, prediction_kind, prediction_scale)
    return ModelPredictor.load(name, engine=engine, precision=precision, threads=threads)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePredictor:
    """A baseline, over the content area that a model would also see."""

    name: str
    baseline: Baseline
    kind: DepthKind = DepthKind.RELATIVE_DEPTH

    @property
    def provenance(self) -> Mapping[str, str | float | None]:
        """Its name is all there is."""
        return {"type": "baseline", "name": self.name}

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Depth of the frame."""
        return self.baseline(frame.image, find_content_area(frame.image).mask(*frame.size))


class ModelPredictor:
    """A bundle on one of the engines.

    Attributes:
        ratio_maximum_mm: largest depth that a network of ratios M / depth was trained with; None for other networks.
        ratio_as_published: whether such a network's ratios of 0 and below become the nearest depth.
    """

    def __init__(self, model: Model, *, name: str) -> None:
        self._model = model
        self.name = name
        self.kind = model.bundle.card.depth.kind
        ratios = model.bundle.card.architecture.startswith(_RATIO_NETWORKS)
        self.ratio_maximum_mm = model.bundle.card.depth.maximum if ratios else None
        # Only a bundle that was imported as published can give 0, which is its depth of a ratio of exactly 0.
        self.ratio_as_published = ratios and model.bundle.card.depth.minimum == 0
        own = {"ratio_at_or_below_0": "nearest, as published" if self.ratio_as_published else "farthest"}
        self.provenance: Mapping[str, str | float | None] = (own if ratios else {}) | {
            "type": "model",
            "name": model.bundle.name,
            "card_sha256": model.bundle.card_sha256,
            "model_sha256": model_sha256(model.bundle.card),
            "engine": model.engine.name,
            "engine_version": model.engine.version,
            "precision": model.engine.precision,
            "threads": model.engine.threads,
        }

    @classmethod
    def load(cls, name: str, *, engine: str, precision: str, threads: int | None) -> ModelPredictor:
        """Load a bundle. Raises ModelError, MissingExtraError."""
        from endolux.runtime.model import load

        return cls(load(name, engine=engine, precision=precision, threads=threads), name=name)

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Depth of the frame."""
        return self._model.predict(frame)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FolderPredictor:
    """Depth files, one for each frame.

    Attributes:
        files: name of the frame (for pairs: stem of the image) -> depth file.
        codes_per_unit: codes of a 16-bit file that make one unit.
    """

    name: str
    kind: DepthKind
    files: Mapping[str, Path]
    codes_per_unit: float
    provenance: Mapping[str, str | float | None]

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Read the depth of the frame."""
        path = self.files.get(name)
        if path is None:
            raise InputError(
                f"No prediction for '{printable(name)}' in '{printable(self.name)}'",
                why="Predictions are found by the name of the image or of the frame.",
                fix="Predict every image of the data.",
                error_id="evaluate.no-prediction",
            )
        return read_prediction(path, kind=self.kind, codes_per_unit=self.codes_per_unit)


def _open_folder(folder: Path, kind: DepthKind | None, scale: float | None) -> FolderPredictor:
    if (folder / "meta.json").exists():
        if kind is not None or scale is not None:
            raise UsageError(
                f"--prediction-kind and --prediction-scale were given for '{printable(folder)}'",
                why="Its meta.json states both already.",
                fix="Leave them out.",
                error_id="evaluate.prediction-kind",
            )
        return _open_run(folder)
    if kind is None:
        raise unknown_kind(printable(folder))
    root = folder / "depth" if (folder / "depth").is_dir() else folder
    files: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in DEPTH_SUFFIXES and not path.name.startswith("."):
            stem = path.stem.removesuffix("_depth")
            if stem in files:
                raise InputError(
                    f"Two predictions for '{printable(stem)}': '{files[stem].name}' and '{printable(path.name)}'",
                    why="Predictions are found by the stem of the image's name.",
                    fix="Keep one of them.",
                    error_id="evaluate.ambiguous",
                )
            files[stem] = path
    check_codes(folder, files.values(), kind, scale)
    provenance: dict[str, str | float | None] = {
        "type": "folder",
        "name": printable(folder.resolve().name),
        "codes_per_unit": scale,
    }
    return FolderPredictor(name=str(folder), kind=kind, files=files, codes_per_unit=scale or 1.0, provenance=provenance)


def read_prediction(path: Path, *, kind: DepthKind, codes_per_unit: float = 1.0) -> DepthMap:
    """Read one depth file of any software: floats as they are, 16-bit codes divided, 0 as "no value" in codes.

    Raises:
        InputError: as :func:`endolux.datasets.planes.read_plane`.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.full((1, 2, 3), 7.0, np.float32))
        >>> read_prediction(file, kind=DepthKind.METRIC).values.shape
        (2, 3)
    """
    values, valid = read_plane(path, squeeze=True)
    if path.suffix.lower() in CODE_SUFFIXES:
        valid &= values > 0
        values = values / codes_per_unit
    return DepthMap(values=values.astype(np.float32), kind=kind, valid=valid)


def unknown_kind(name: str) -> UsageError:
    """The error for predictions whose meaning nobody stated."""
    return UsageError(
        f"What do the predictions in '{name}' mean?",
        why="There is no meta.json, and numbers alone do not tell depth from disparity.",
        fix=f"Add --prediction-kind {' or '.join(k.value for k in DepthKind)}.",
        error_id="evaluate.prediction-kind",
    )


def check_codes(folder: Path, paths: Iterable[Path], kind: DepthKind, scale: float | None) -> None:
    """Refuse 16-bit metric predictions of unknown unit, and impossible units. Raises UsageError."""
    coded = any(path.suffix.lower() in CODE_SUFFIXES for path in paths)
    if coded and kind is DepthKind.METRIC and scale is None:
        raise UsageError(
            f"The unit of the 16-bit predictions in '{printable(folder)}' is not stated",
            why="Metric depth needs to know how many codes make a millimetre.",
            fix="Add --prediction-scale CODES_PER_MM.",
            error_id="evaluate.prediction-kind",
        )
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise UsageError(
            f"Impossible prediction scale {scale}",
            why="It is the number of codes in one unit, positive and finite.",
            fix="For example 100 for steps of 0.01 mm.",
            error_id="evaluate.prediction-kind",
        )


def _open_run(folder: Path) -> FolderPredictor:
    from endolux.io.depth_codes import read_meta
    from endolux.io.tables import read_frames_csv

    meta = read_meta(folder)
    files: dict[str, Path] = {}
    for row in read_frames_csv(folder / "frames.csv"):
        path = folder / row.file
        if not row.file:
            continue
        if path.suffix.lower() not in DEPTH_SUFFIXES:
            raise InputError(
                f"The depth of '{printable(folder)}' lies in '{printable(row.file)}'",
                why="A score needs the depth of each image, and this run stored a video.",
                fix="Predict the images again with --format png or npz.",
                error_id="evaluate.prediction-format",
            )
        files[Path(row.name).stem] = path
    provenance: dict[str, str | float | None] = {
        "type": "run",
        "name": meta.model.name if meta.model else None,
        "card_sha256": meta.model.card_sha256 if meta.model else None,
        "engine": meta.engine,
        "precision": meta.precision,
        "codes_per_unit": meta.codes_per_unit,
    }
    return FolderPredictor(
        name=str(folder), kind=meta.kind, files=files, codes_per_unit=meta.codes_per_unit, provenance=provenance
    )
