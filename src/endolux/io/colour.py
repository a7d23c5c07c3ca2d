"""Depth as colours, with a range that stays and a legend that says what it means."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.types import DepthKind, DepthMap, ImageArray, MaskArray

Scale = Literal["linear", "log"]
LOG_ABOVE_RATIO = 20.0
"""Depth ranges wider than this (far / near) are coloured by the logarithm; narrower ones linearly."""
LEGEND_WIDTH = 88

_PALETTES = {
    "turbo": cv2.COLORMAP_TURBO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "magma": cv2.COLORMAP_MAGMA,
    "grey": None,
}
PALETTES = tuple(_PALETTES)
_SAMPLES_A_FRAME = 4000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ColourRange:
    """Which values get the two ends of the palette.

    Attributes:
        low, high: values in the depth map's unit (or disparities); values outside get the end colours.
        scale: ``linear``, or ``log`` for equal colour steps at equal ratios.

    Example:
        >>> ColourRange(low=5.0, high=80.0).scale
        'linear'
    """

    low: float
    high: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        fine = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
        if not fine or (self.scale == "log" and self.low <= 0):
            raise UsageError(
                f"Impossible {self.scale} colour range {self.low} to {self.high}",
                why="The low end must be below the high end, both finite, and above 0 for a logarithmic range.",
                fix="Give for example ColourRange(low=5, high=100).",
                error_id="colour.range",
            )


class RangeEstimator:
    """Chooses the colour range of a clip from its first frames; from then on it is fixed.

    The range runs from the 1st to the 99th percentile of the valid values of the first ``frames`` frames that have
    any, widened by a quarter at the far and a fifth at the near end, because the camera goes on moving. Depth whose
    far end is more than ``LOG_ABOVE_RATIO`` times its near end is coloured by the logarithm; disparity is always
    linear. Memory is bounded: a regular grid of a few thousand pixels is kept of each frame.

    Args:
        frames: how many frames decide.

    Example:
        >>> values = np.linspace(10, 60, 600, dtype=np.float32).reshape(20, 30)
        >>> estimator = RangeEstimator(frames=1)
        >>> estimator.update(DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0))
        >>> estimator.ready, estimator.range().scale
        (True, 'linear')
    """

    def __init__(self, *, frames: int = 25) -> None:
        self._frames = frames
        self._samples: list[npt.NDArray[np.float32]] = []
        self._kind: DepthKind | None = None

    @property
    def ready(self) -> bool:
        """Whether enough frames with valid pixels were seen."""
        return len(self._samples) >= self._frames

    @property
    def seen(self) -> int:
        """Frames with valid pixels so far."""
        return len(self._samples)

    def update(self, depth: DepthMap) -> None:
        """Take one frame into account, unless the range is decided already or the frame has no valid pixel."""
        if self.ready:
            return
        step = max(1, math.isqrt(depth.values.size // _SAMPLES_A_FRAME))
        sample = depth.values[::step, ::step][depth.valid[::step, ::step]]
        sample = sample[np.isfinite(sample)]
        if sample.size:
            self._kind = depth.kind
            self._samples.append(sample)

    def range(self) -> ColourRange:
        """The range by what was seen so far; 0 to 1 if that is nothing."""
        if not self._samples:
            return ColourRange(low=0.0, high=1.0)
        near, far = (float(v) for v in np.percentile(np.concatenate(self._samples), (1.0, 99.0)))
        if self._kind is DepthKind.RELATIVE_DISPARITY:
            margin = max(0.1 * (far - near), 1e-3 * max(abs(near), abs(far), 1e-6))
            return ColourRange(low=_nice(near - margin), high=_nice(far + margin, up=True))
        near = max(near, 1e-6)
        far = max(far, near)
        scale: Scale = "log" if far > LOG_ABOVE_RATIO * near else "linear"
        return ColourRange(low=_nice(0.8 * near), high=_nice(1.25 * far, up=True), scale=scale)


def colourise(depth: DepthMap, range: ColourRange, *, palette: str = "turbo") -> ImageArray:
    """Colour a depth map: near is warm, far is cold, invalid is black.

    Args:
        depth: H x W map of any kind; for disparities the high end is near.
        range: values of the two ends.
        palette: one of ``PALETTES``.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        UsageError: unknown palette.

    Example:
        >>> values = np.array([[10.0, 50.0]], np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=np.array([[True, False]]))
        >>> colourise(depth, ColourRange(low=10, high=100))[0, 1].tolist()
        [0, 0, 0]
    """
    table = colour_table(palette)
    image: ImageArray = cv2.applyColorMap(_levels(depth.values, depth.valid, depth.kind, range), table)
    return image


def colour_table(palette: str = "turbo") -> ImageArray:
    """256 x 1 x 3 RGB: entry 0 is black (invalid), 1 is far, 255 is near.

    Raises:
        UsageError: unknown palette.
    """
    if palette not in _PALETTES:
        raise UsageError(
            f"Unknown palette '{palette}'",
            why=f"There are {', '.join(PALETTES)}.",
            fix="Choose one of them.",
            error_id="colour.palette",
        )
    ramp = np.arange(256, dtype=np.uint8).reshape(256, 1)
    code = _PALETTES[palette]
    bgr = cv2.merge([ramp, ramp, ramp]) if code is None else cv2.applyColorMap(ramp, code)
    table: ImageArray = np.ascontiguousarray(bgr[:, :, ::-1])
    table[0] = 0
    return table


def legend(range: ColourRange, *, kind: DepthKind, height: int, palette: str = "turbo") -> ImageArray:
    """A colour bar with numbers, the unit and the scale, near at the top.

    Args:
        range: the range to explain.
        kind: what the values mean.
        height: height in pixels, at least 96.
        palette: one of ``PALETTES``.

    Returns:
        height x LEGEND_WIDTH x 3 uint8 RGB.

    Example:
        >>> legend(ColourRange(low=5, high=50), kind=DepthKind.METRIC, height=240).shape
        (240, 88, 3)
    """
    height = max(height, 96)
    image: ImageArray = np.zeros((height, LEGEND_WIDTH, 3), np.uint8)
    top, bottom, left, right = 34, height - 12, 8, 24
    levels = np.linspace(255, 1, bottom - top).round().astype(np.uint8).reshape(-1, 1)
    image[top:bottom, left:right] = cv2.applyColorMap(np.repeat(levels, right - left, axis=1), colour_table(palette))
    titles = {
        DepthKind.METRIC: "depth mm",
        DepthKind.RELATIVE_DEPTH: "rel. depth",
        DepthKind.RELATIVE_DISPARITY: "rel. disp.",
    }
    _text(image, titles[kind], (6, 13))
    _text(image, f"{range.scale} scale", (6, 27))
    count = 5 if height >= 160 else 3
    for fraction in np.linspace(0.0, 1.0, count):
        y = round(top + fraction * (bottom - 1 - top))
        image[y, right : right + 4] = 255
        _text(image, _label(_value_at(range, kind, float(fraction)), range), (right + 7, y + 4))
    return image


def _levels(values: npt.NDArray[np.float32], valid: MaskArray, kind: DepthKind, range: ColourRange) -> ImageArray:
    """H x W uint8: 0 invalid, 1 far ... 255 near, in one pass over the pixels and a mask."""
    low, high = range.low, range.high
    if range.scale == "log":
        values = cv2.log(np.maximum(values, np.float32(low)))
        low, high = math.log(low), math.log(high)
    slope = 254.0 / (high - low)
    if kind is not DepthKind.RELATIVE_DISPARITY:
        slope, low = -slope, high
    levels: ImageArray = cv2.addWeighted(values, slope, values, 0.0, 1.0 - slope * low, dtype=cv2.CV_8U)
    cv2.max(levels, 1, levels)
    np.multiply(levels, valid, out=levels)
    return levels


def _value_at(range: ColourRange, kind: DepthKind, fraction: float) -> float:
    """The value at a fraction of the legend's height from its top, which is near."""
    if kind is DepthKind.RELATIVE_DISPARITY:
        fraction = 1.0 - fraction
    if range.scale == "log":
        return float(range.low * (range.high / range.low) ** fraction)
    return range.low + (range.high - range.low) * fraction


def _label(value: float, range: ColourRange) -> str:
    if range.scale == "log" or max(abs(range.low), abs(range.high)) < 1e-3 or range.high >= 1e5:
        return f"{value:.3g}"
    decimals = max(0, 2 - math.floor(math.log10(range.high - range.low)))
    return f"{value:.{min(decimals, 4)}f}"


def _text(image: ImageArray, text: str, origin: tuple[int, int]) -> None:
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)


def _nice(value: float, *, up: bool = False) -> float:
    """Two significant digits, away from the middle of the range."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    steps = value / unit
    return float(f"{(math.ceil(steps) if up else math.floor(steps)) * unit:.6g}")
