"""What the 16-bit numbers of a depth file mean: ``meta.json`` and the coding itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import endolux
from endolux.errors import InputError, UsageError
from endolux.types import Camera, DepthKind, DepthMap, FloatArray, MaskArray, Unit

if TYPE_CHECKING:
    from endolux.runtime.card import Output

META_SCHEMA_VERSION = 1
INVALID_CODE = 0
MAXIMUM_CODE = 65535

DepthFormat = Literal["png", "mkv", "npz"]
CodeArray = npt.NDArray[np.uint16]
"""H x W, 0 where invalid."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ContentAreaMeta(_Strict):
    """Where the endoscope's picture lies in the frame (pixels of the input)."""

    shape: str
    left: int
    top: int
    width: int
    height: int


class ModelMeta(_Strict):
    """Which bundle made the depth: its name and the hash of its card, which holds the hash of every other file."""

    name: str
    card_sha256: str


class DepthMeta(_Strict):
    """Contents of ``meta.json``: everything needed to read the depth files of one run.

    A code ``c`` > 0 stands for the value ``c / codes_per_unit``; 0 means no depth. NPZ files hold float32
    values instead.

    Attributes:
        kind, unit: meaning of the values; the unit follows from the kind.
        codes_per_unit: codes for one unit of depth (100 for 0.01 mm steps).
        saturated_pixels: valid pixels whose value lay outside the codes and was moved to the nearest one.
        nonfinite_pixels: pixels that the network called valid with a value that is no number; stored as invalid.
        size: (width, height) in pixels if all frames have the same.
        frames: frames written so far, those without depth included.

    Example:
        >>> meta = DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0)
        >>> meta.unit.value, meta.invalid_code
        ('mm', 0)
    """

    schema_version: Literal[1] = 1
    endolux_version: str = Field(default_factory=lambda: endolux.__version__)
    format: DepthFormat = "png"
    kind: DepthKind
    unit: Unit = Unit.NONE
    codes_per_unit: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    invalid_code: Literal[0] = 0
    saturated_pixels: int = Field(default=0, ge=0)
    nonfinite_pixels: int = Field(default=0, ge=0)
    frames: int = Field(default=0, ge=0)
    size: tuple[int, int] | None = None
    camera: Camera | None = None
    content_area: ContentAreaMeta | None = None
    model: ModelMeta | None = None
    engine: str | None = None
    precision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _unit_follows_kind(cls, data: object) -> object:
        if isinstance(data, dict) and "unit" not in data and "kind" in data:
            return {**data, "unit": Unit.MM if data["kind"] == DepthKind.METRIC else Unit.NONE}
        return data

    @model_validator(mode="after")
    def _unit_fits_kind(self) -> DepthMeta:
        if (self.unit is Unit.MM) != (self.kind is DepthKind.METRIC):
            raise ValueError(f"unit '{self.unit}' does not fit kind '{self.kind}'")
        return self


def codes_per_unit_for(output: Output) -> float:
    """The step of 16-bit files for a network's output range.

    100 codes a millimetre (0.01 mm steps) for METRIC depth up to 655.35 mm; otherwise the largest power of ten with
    which the maximum still fits.

    Raises:
        UsageError: the maximum is not positive.

    Example:
        >>> from endolux.runtime.card import Output
        >>> codes_per_unit_for(Output(kind=DepthKind.METRIC, minimum=1.0, maximum=300.0))
        100.0
        >>> codes_per_unit_for(Output(kind=DepthKind.RELATIVE_DEPTH, minimum=0.01, maximum=1.0))
        10000.0
    """
    if not (output.maximum > 0 and math.isfinite(output.maximum)):
        raise UsageError(
            f"Cannot choose a step for depth up to {output.maximum}",
            why="16-bit depth files hold positive values.",
            fix="Correct output.maximum in the card, or write float32 with --depth-format npz.",
            error_id="depth.range",
        )
    if output.kind is DepthKind.METRIC and output.maximum * 100.0 <= MAXIMUM_CODE:
        return 100.0
    power = math.floor(math.log10(MAXIMUM_CODE / output.maximum))
    return 10.0**power


class DepthCoder:
    """Turns depth into 16-bit codes and counts what the codes cannot hold.

    Keeps one buffer, so a clip costs no allocation of floats. Not for use by several threads at once.

    Args:
        codes_per_unit: codes for one unit of depth.

    Example:
        >>> coder = DepthCoder(codes_per_unit=100.0)
        >>> values = np.array([[12.345, 900.0, 5.0]], np.float32)
        >>> valid = np.array([[True, True, False]])
        >>> coder.encode(DepthMap(values=values, kind=DepthKind.METRIC, valid=valid)).tolist(), coder.saturated_pixels
        ([[1234, 65535, 0]], 1)
    """

    def __init__(self, *, codes_per_unit: float) -> None:
        self.codes_per_unit = codes_per_unit
        self.saturated_pixels = 0
        self.nonfinite_pixels = 0
        self._buffer: FloatArray = np.empty((0, 0), np.float32)

    def encode(self, depth: DepthMap) -> CodeArray:
        """H x W uint16: clip(rint(value * codes_per_unit), 1, 65535) where valid, 0 elsewhere."""
        if self._buffer.shape != depth.values.shape:
            self._buffer = np.empty(depth.values.shape, np.float32)
        scaled, valid = self._buffer, depth.valid
        whole = bool(valid.all())
        with np.errstate(all="ignore"):
            np.multiply(depth.values, np.float32(self.codes_per_unit), out=scaled)
            np.rint(scaled, out=scaled)
        if not whole:
            np.copyto(scaled, np.float32(1.0), where=~valid)
        # NaN fails both comparisons and so takes the slow way as well.
        if not (scaled.min() >= 1.0 and scaled.max() <= MAXIMUM_CODE):
            missing = np.isnan(scaled)
            outside = (scaled < 1.0) | (scaled > MAXIMUM_CODE)
            self.saturated_pixels += int(np.count_nonzero(outside))
            self.nonfinite_pixels += int(np.count_nonzero(missing))
            np.clip(scaled, 1.0, MAXIMUM_CODE, out=scaled)
            if missing.any():
                np.copyto(scaled, np.float32(INVALID_CODE), where=missing)
        codes = scaled.astype(np.uint16)
        if not whole:
            np.multiply(codes, valid, out=codes)
        return codes


def decode(codes: CodeArray, meta: DepthMeta) -> DepthMap:
    """The depth map of H x W codes. Coding it again gives the same codes.

    The camera of ``meta`` is attached where its size is that of the codes.
    """
    values = codes.astype(np.float32)
    values /= np.float32(meta.codes_per_unit)
    return depth_map(values, codes != INVALID_CODE, meta)


def depth_map(values: FloatArray, valid: MaskArray, meta: DepthMeta) -> DepthMap:
    """Put arrays and meta data together again."""
    camera = meta.camera
    if camera is not None and (camera.height, camera.width) != values.shape:
        camera = None
    return DepthMap(values=values, kind=meta.kind, valid=valid, camera=camera)


def read_meta(folder: Path) -> DepthMeta:
    """Read ``meta.json`` of an output folder.

    Raises:
        InputError: it is missing (``depth.no-meta``), damaged or of an unknown schema version (``depth.meta``).
    """
    path = folder / "meta.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"No meta.json in '{folder}'",
            why="Without it nobody knows what the numbers of a depth file mean.",
            fix="Give the output folder of an endolux run, or pass meta=DepthMeta(...).",
            error_id="depth.no-meta",
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "it is not UTF-8 text") from error
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != META_SCHEMA_VERSION:
        raise _damaged(path, f"its schema version is {version!r}, this program reads {META_SCHEMA_VERSION}")
    try:
        return DepthMeta.model_validate(content)
    except (ValidationError, UsageError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}" if first else str(error)
        raise _damaged(path, reason) from error


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"Cannot use '{path}'",
        why=f"As a description of depth files it is unusable: {reason}.",
        fix="Restore the file, or predict again into another folder.",
        error_id="depth.meta",
    )
