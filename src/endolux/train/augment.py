"""Augmentation that turns clean renderings into what an endoscope's video chain delivers. NumPy and OpenCV only.

Every step is cheap (the whole of it takes a few milliseconds at 256 x 320) and follows the order of the real chain:
view, light, sensor colour, lens, noise, content area, scaler, overlays, codec.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from endolux.train.viewport import View, triangle
from endolux.types import FloatArray, ImageArray, MaskArray

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Typical casts of processors and of light through tissue: pink, orange, green, blue-white.
_CASTS = np.array([[1.2, 0.88, 1.0], [1.25, 0.97, 0.72], [0.88, 1.12, 0.9], [0.88, 0.98, 1.2]], np.float32)
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Probabilities and ranges; the defaults are what Endolux trains with.

    Attributes:
        flip: probability of each of the two mirrorings.
        zoom: largest magnification of the random crop.
        aspect: largest relative change of the aspect ratio.
        gamma, gain: ranges, drawn logarithmically.
        colour, cast, grey: probability of a hue/saturation change, of a colour cast, of no colour at all.
        light_range: how far, in natural logarithms, the smooth illumination field goes up and down.
        flatten: probability of a shading correction, which hides how light falls off with distance.
        light, lens, noise, content_area, scaler, text, highlights, occluders, codec: probability of each effect.
    """

    flip: float = 0.5
    zoom: float = 1.6
    aspect: float = 0.1
    gamma: tuple[float, float] = (0.5, 1.8)
    gain: tuple[float, float] = (0.65, 1.6)
    colour: float = 0.6
    cast: float = 0.4
    grey: float = 0.05
    light_range: float = 0.45
    flatten: float = 0.0
    light: float = 0.4
    lens: float = 0.3
    noise: float = 0.5
    content_area: float = 0.3
    scaler: float = 0.15
    text: float = 0.1
    highlights: float = 0.15
    occluders: float = 0.15
    codec: float = 0.5


def augment(
    image: ImageArray,
    depth: FloatArray,
    generator: np.random.Generator,
    *,
    settings: Augmentation | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[ImageArray, FloatArray]:
    """One random view of a sample as an endoscope might have recorded it.

    Depth values never change: mirroring keeps z, and a crop only narrows the field of view, which leaves the z of
    every pixel as it was. What a crop does change is the focal length, and a network that does not know it can tell
    depth up to a factor only; that is why the training loss is (nearly) scale-invariant.

    Args:
        image: H x W x 3 uint8 RGB.
        depth: H x W float32, z in millimetres, 0 where unknown.
        generator: source of every random number; the same state gives the same bytes.
        settings: probabilities and ranges; ``Augmentation()`` by default.
        size: (width, height) of the result; the size of the input by default.

    Returns:
        Image and depth of the new size. Depth is 0 (unknown) also outside the content area and behind occluders.

    Example:
        >>> image, depth = np.full((64, 80, 3), 90, np.uint8), np.full((64, 80), 30.0, np.float32)
        >>> new_image, new_depth = augment(image, depth, np.random.default_rng(7))
        >>> new_image.shape, sorted(set(new_depth.ravel().tolist()) - {0.0})
        ((64, 80, 3), [30.0])
    """
    return augment_view(image, depth, generator, settings=settings, size=size)[:2]


def augment_view(
    image: ImageArray,
    depth: FloatArray,
    generator: np.random.Generator,
    *,
    settings: Augmentation | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[ImageArray, FloatArray, View]:
    """:func:`augment`, and the view that was drawn, for maps that must follow the image (a teacher's).

    Example:
        >>> image, depth = np.full((64, 80, 3), 90, np.uint8), np.full((64, 80), 30.0, np.float32)
        >>> _, _, view = augment_view(image, depth, np.random.default_rng(7))
        >>> view.apply(np.ones((3, 16, 20), np.float32)).shape
        (3, 16, 20)
    """
    s = settings or Augmentation()
    rng = generator
    image, depth, view = _view(image, depth, rng, s, size or (image.shape[1], image.shape[0]))
    if rng.random() < s.highlights:
        image = _highlights(image, rng)
    # No draw when it is off: settings without it keep their bytes.
    if s.flatten > 0 and rng.random() < s.flatten:
        image = _flatten(image, rng)
    if rng.random() < s.light:
        image = _light(image, rng, s.light_range)
    image = _colour(image, rng, s)
    if rng.random() < s.lens:
        image = _lens(image, rng)
    if rng.random() < s.noise:
        image = _noise(image, rng)
    hidden: MaskArray | None = None
    if rng.random() < s.occluders:
        image, depth, hidden = _occluders(image, depth, rng)
    if rng.random() < s.scaler:
        image = _scaler(image, rng)
    area = _content_area(image.shape[1], image.shape[0], rng) if rng.random() < s.content_area else None
    if area is not None:
        image = cv2.bitwise_and(image, image, mask=area)
    if rng.random() < s.text:
        image = _text(image, rng)
    if rng.random() < s.codec:
        image = _codec(image, rng)
    if area is not None:
        # Inference fills outside the content area with exact black, ringing of the codec included.
        image = cv2.bitwise_and(image, image, mask=area)
        depth = np.where(area > 0, depth, np.float32(0))
        hidden = area == 0 if hidden is None else hidden | (area == 0)
    return image, depth, view if hidden is None else dataclasses.replace(view, hidden=hidden)


def augment_leve(
    image: ImageArray,
    depth: FloatArray,
    generator: np.random.Generator,
    *,
    flip: float = 0.5,
    swap: float = 0.5,
    size: tuple[int, int] | None = None,
    reproduce: bool = False,
) -> tuple[ImageArray, FloatArray, View]:
    """Leve's own augmentation: resize, horizontal mirroring, permutation of the colour channels.

    Args:
        image: H x W x 3 uint8 RGB.
        depth: H x W float32, 0 where unknown.
        generator: source of every random number.
        flip: probability of the mirroring.
        swap: probability of one of the six permutations, the identity among them (D-34).
        size: (width, height) of the result; the size of the input by default.
        reproduce: resample depth bilinearly as published, which mixes depths across boundaries and with unknown
            ones; otherwise the nearest depth is taken.

    Returns:
        Image, depth and the view, for maps that must follow them. The image is resampled with a triangle filter as
        wide as the step where it shrinks (as Pillow's bilinear is), so that nothing aliases.

    Source:
        Leve (Drăgan, 2024), data code; GuideDepth (Rudolph et al., ICRA 2022).

    Example:
        >>> image, depth = np.full((48, 64, 3), 90, np.uint8), np.full((48, 64), 30.0, np.float32)
        >>> image, depth, view = augment_leve(image, depth, np.random.default_rng(0), size=(32, 24))
        >>> image.shape, depth.shape
        ((24, 32, 3), (24, 32))
    """
    height, width = depth.shape
    new_width, new_height = size or (width, height)
    if (new_width, new_height) != (width, height):
        pixels = triangle(triangle(image, 1, new_width), 0, new_height)
        image = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        if reproduce:
            depth = triangle(triangle(depth, 1, new_width), 0, new_height)
        else:
            depth = cv2.resize(depth, (new_width, new_height), interpolation=cv2.INTER_NEAREST_EXACT)
    horizontal = generator.random() < flip
    if horizontal:
        image, depth = cv2.flip(image, 1), cv2.flip(depth, 1)
    if generator.random() < swap:
        image = np.ascontiguousarray(image[..., _PERMUTATIONS[int(generator.integers(len(_PERMUTATIONS)))]])
    view = View(source=(width, height), window=(0, 0, width, height), horizontal=horizontal)
    return image, np.ascontiguousarray(depth), view


_PERMUTATIONS = [list(order) for order in itertools.permutations(range(3))]


def _between(rng: np.random.Generator, low: float, high: float, *, log: bool = False) -> float:
    if log:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


def _view(
    image: ImageArray, depth: FloatArray, rng: np.random.Generator, s: Augmentation, size: tuple[int, int]
) -> tuple[ImageArray, FloatArray, View]:
    height, width = depth.shape
    zoom, stretch = _between(rng, 1.0, max(1.0, s.zoom)), _between(rng, 1.0 - s.aspect, 1.0 + s.aspect)
    crop_width = min(width, round(width / zoom * stretch**0.5))
    crop_height = min(height, round(height / zoom / stretch**0.5))
    left, top = int(rng.integers(0, width - crop_width + 1)), int(rng.integers(0, height - crop_height + 1))
    window = np.s_[top : top + crop_height, left : left + crop_width]
    shrinks = crop_width > size[0] or crop_height > size[1]
    image = cv2.resize(image[window], size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    # Nearest: a mean of two depths at a boundary is a surface that is not there.
    depth = cv2.resize(depth[window], size, interpolation=cv2.INTER_NEAREST)
    horizontal, vertical = rng.random() < s.flip, rng.random() < s.flip
    if horizontal or vertical:
        code = -1 if horizontal and vertical else 1 if horizontal else 0
        image, depth = cv2.flip(image, code), cv2.flip(depth, code)
    view = View(
        source=(width, height),
        window=(left, top, crop_width, crop_height),
        horizontal=horizontal,
        vertical=vertical,
    )
    return image, depth, view


def _colour(image: ImageArray, rng: np.random.Generator, s: Augmentation) -> ImageArray:
    """Saturation, hue, cast, white balance, exposure, contrast and gamma: one 3 x 3 matrix and one table."""
    matrix = np.eye(3, dtype=np.float32)
    if rng.random() < s.grey:
        matrix = np.tile(_LUMA, (3, 1))
    elif rng.random() < s.colour:
        saturation = _between(rng, 0.05, 0.5) if rng.random() < 0.25 else _between(rng, 0.6, 1.5)
        matrix = _hue(_between(rng, -0.35, 0.35)) @ (saturation * matrix + (1.0 - saturation) * np.tile(_LUMA, (3, 1)))
    balance = rng.uniform(0.88, 1.12, 3).astype(np.float32)
    if rng.random() < s.cast:
        balance *= _CASTS[rng.integers(len(_CASTS))] ** np.float32(_between(rng, 0.2, 1.2))
    gain, gamma = _between(rng, *s.gain, log=True), _between(rng, *s.gamma, log=True)
    contrast, offset = _between(rng, 0.8, 1.25), _between(rng, -0.04, 0.06)
    image = cv2.transform(image, (matrix.T * balance).T.astype(np.float32))
    level = np.arange(256, dtype=np.float32) / 255.0
    curve = np.clip(gain * level, 0.0, 1.0) ** gamma
    curve = np.clip((curve - 0.5) * contrast + 0.5 + offset, 0.0, 1.0)
    return cast(ImageArray, cv2.LUT(image, np.rint(curve * 255.0).astype(np.uint8)))


def _hue(angle: float) -> FloatArray:
    # Rotation about the grey axis (Rodrigues), so that grey stays grey.
    c, s = np.cos(angle), np.sin(angle) / np.sqrt(3.0)
    a, b = (1.0 - c) / 3.0 + s, (1.0 - c) / 3.0 - s
    d = c + (1.0 - c) / 3.0
    return np.array([[d, b, a], [a, d, b], [b, a, d]], np.float32)


def _light(image: ImageArray, rng: np.random.Generator, reach: float) -> ImageArray:
    """A smooth field on the brightness: vignetting, off-axis light guides, shading correction."""
    knots = np.exp(rng.uniform(-reach, reach, (3, 4))).astype(np.float32)
    field = cv2.resize(knots, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    field /= np.float32(field.mean())
    return cast(ImageArray, cv2.multiply(image, cv2.merge([field, field, field]), dtype=cv2.CV_8U))


def _flatten(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Divide by a power of the blurred brightness, as shading correction and local tone mapping do."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(4, width // 8), max(4, height // 8)), interpolation=cv2.INTER_AREA)
    level = cv2.GaussianBlur(small.max(axis=2).astype(np.float32), (0, 0), _between(rng, 2.0, 6.0)) + np.float32(8.0)
    field = np.clip((np.float32(level.mean()) / level) ** np.float32(_between(rng, 0.3, 1.0)), 0.3, 4.0)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    return cast(ImageArray, cv2.multiply(image, cv2.merge([field, field, field]), dtype=cv2.CV_8U))


def _lens(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    kind = rng.random()
    if kind < 0.4:
        return cast(ImageArray, cv2.GaussianBlur(image, (0, 0), _between(rng, 0.4, 1.8)))
    if kind < 0.65:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = _between(rng, 0.0, np.pi)
        middle, reach = (length - 1) / 2.0, length / 2.0
        ends = [
            (round(middle + sign * reach * np.cos(angle)), round(middle + sign * reach * np.sin(angle)))
            for sign in (-1, 1)
        ]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return cast(ImageArray, cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1.0)))
    # Edge enhancement of the processor: an unsharp mask.
    amount = _between(rng, 0.3, 1.8)
    smooth = cv2.GaussianBlur(image, (0, 0), _between(rng, 0.7, 2.0))
    return cast(ImageArray, cv2.addWeighted(image, 1.0 + amount, smooth, -amount, 0.0))


@functools.cache
def _noise_bank() -> npt.NDArray[np.int16]:
    # Drawing a normal number for every value costs more than all the rest; windows of one fixed field look as random.
    return (np.random.default_rng(0).standard_normal((1024, 1024, 3)) * 256.0).astype(np.int16)


def _noise(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    bank = _noise_bank()
    height, width = image.shape[:2]
    scale = int(rng.integers(1, 3))
    rows, columns = min(-(-height // scale), 1024), min(-(-width // scale), 1024)
    top, left = int(rng.integers(0, 1025 - rows)), int(rng.integers(0, 1025 - columns))
    field = bank[top : top + rows, left : left + columns]
    if rng.random() < 0.4:
        field = cv2.merge([field[..., 0]] * 3)
    if field.shape[:2] != (height, width):
        field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    sigma = _between(rng, 0.8, 12.0, log=True)
    return cast(ImageArray, cv2.addWeighted(image, 1.0, field, sigma / 256.0, 0.0, dtype=cv2.CV_8U))


def _highlights(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    image = image.copy()
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 12))):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.integers(1, 7)), int(rng.integers(1, 4)))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, (255, 255, 250), -1, cv2.LINE_AA)
    return image


def _occluders(
    image: ImageArray, depth: FloatArray, rng: np.random.Generator
) -> tuple[ImageArray, FloatArray, MaskArray]:
    """Things whose depth is unknown (tools, smoke, debris): painted over the image, taken out of the truth."""
    image = image.copy()
    height, width = depth.shape
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.5:
            side, along = int(rng.integers(4)), _between(rng, 0.0, 1.0)
            start = (
                (int(along * width), 0 if side == 0 else height)
                if side < 2
                else (0 if side == 2 else width, int(along * height))
            )
            end = (int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.2, 0.8) * height))
            cv2.line(mask, start, end, 255, int(rng.integers(6, max(7, width // 9))))
        else:
            centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
            axes = (int(rng.integers(4, max(5, width // 8))), int(rng.integers(4, max(5, height // 8))))
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    base = rng.uniform(0, 255, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(20, 240))
    ramp = np.linspace(_between(rng, 0.5, 1.0), _between(rng, 0.8, 1.4), width, dtype=np.float32)
    paint = np.clip(ramp[None, :, None] * base.astype(np.float32), 0, 255).astype(np.uint8)
    cv2.copyTo(np.broadcast_to(paint, image.shape).copy(), mask, image)
    covered = mask > 0
    return image, np.where(covered, np.float32(0), depth), covered


def _scaler(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    height, width = image.shape[:2]
    factor = _between(rng, 1.3, 3.5)
    small = cv2.resize(
        image, (max(8, round(width / factor)), max(8, round(height / factor))), interpolation=cv2.INTER_AREA
    )
    way = cv2.INTER_NEAREST if rng.random() < 0.15 else cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    return cast(ImageArray, cv2.resize(small, (width, height), interpolation=way))


def _content_area(width: int, height: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """255 inside a circle, an octagon or a rounded rectangle that nearly fills the frame, as after cropping to it."""
    mask = np.zeros((height, width), np.uint8)
    cx, cy = width * _between(rng, 0.46, 0.54), height * _between(rng, 0.46, 0.54)
    kind = rng.random()
    if kind < 0.45:
        radius = round(width * _between(rng, 0.4, 0.62))
        cv2.circle(mask, (round(cx), round(cy)), radius, 255, -1)
        return mask
    half_width, half_height = width * _between(rng, 0.44, 0.52), height * _between(rng, 0.44, 0.52)
    left, right, top, bottom = cx - half_width, cx + half_width, cy - half_height, cy + half_height
    if kind < 0.75:
        cut = min(half_width, half_height) * _between(rng, 0.15, 0.6)
        corners = [
            (left + cut, top), (right - cut, top), (right, top + cut), (right, bottom - cut),
            (right - cut, bottom), (left + cut, bottom), (left, bottom - cut), (left, top + cut),
        ]  # fmt: skip
        cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255)
        return mask
    r = round(min(half_width, half_height) * _between(rng, 0.08, 0.5))
    x0, x1, y0, y1 = round(left), round(right), round(top), round(bottom)
    cv2.rectangle(mask, (x0 + r, y0), (x1 - r, y1), 255, -1)
    cv2.rectangle(mask, (x0, y0 + r), (x1, y1 - r), 255, -1)
    for x in (x0 + r, x1 - r):
        for y in (y0 + r, y1 - r):
            cv2.circle(mask, (x, y), r, 255, -1)
    return mask


def _text(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    image = image.copy()
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        letters = "".join(chr(code) for code in rng.integers(45, 91, int(rng.integers(2, 12))))
        place = (int(rng.uniform(-0.05, 0.85) * width), int(rng.uniform(0.05, 1.0) * height))
        colour = (255, 255, 255) if rng.random() < 0.6 else tuple(int(v) for v in rng.integers(0, 256, 3))
        font = _FONTS[int(rng.integers(len(_FONTS)))]
        cv2.putText(image, letters, place, font, _between(rng, 0.3, 0.8), colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    return image


def _codec(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    # Channel order only changes which colour is subsampled; converting keeps chroma where a real codec puts it.
    quality = int(rng.integers(20, 91))
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cast(ImageArray, cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
