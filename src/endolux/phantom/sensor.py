"""Light to pixels: exposure, optics, motion, noise, encoding, overlays, compression."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled, compiled_fast, unread
from endolux.phantom.fields import noise_bank
from endolux.phantom.overlay import draw_overlay
from endolux.phantom.scope import Scope
from endolux.types import ImageArray, MaskArray

FloatArray = npt.NDArray[np.float32]

# Displayed red, green and blue under narrow-band light are what the tissue sends back at 540, 415 and 415 nm, which
# its white-light green and blue stand for; towers turn up the gain of both.
_SPECTRA: dict[str, tuple[tuple[float, float, float], ...]] = {
    "white": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "narrow-band": ((0.05, 1.15, 0.0), (0.0, 0.15, 1.25), (0.0, 0.10, 1.10)),
    "violet": ((0.35, 0.55, 0.0), (0.0, 0.45, 0.55), (0.0, 0.10, 1.35)),
}
_LUMA = np.array((0.2126, 0.7152, 0.0722))
_TABLE = 4096
_BRIGHTEST = 6.0
_SUBSAMPLING = {422: (2, 1), 420: (2, 2)}


def spectra() -> tuple[str, ...]:
    """Names of the illuminations that ``Scope.spectrum`` takes."""
    return tuple(_SPECTRA)


def expose(radiance: FloatArray, scope: Scope) -> float:
    """Gain that brings the bright part of the visible image to the scope's exposure."""
    values = luminance(radiance, scope.content, max(1, round(radiance.shape[1] / 160)))
    level = float(np.percentile(values, 90)) if values.size else 0.0
    return scope.exposure / level if level > 0 else 1.0


class AutoExposure:
    """Exposure that follows the scene with a lag, as a tower's control loop does.

    Args:
        lag_s: time in which two thirds of a change are made up for; 0 follows at once.

    Example:
        >>> slow = AutoExposure(lag_s=1.0)
        >>> slow.follow(2.0, step_s=0.04), slow.follow(4.0, step_s=0.04) < 2.1
        (2.0, True)
    """

    def __init__(self, *, lag_s: float) -> None:
        self.lag_s = lag_s
        self._gain: float | None = None

    def follow(self, wanted: float, *, step_s: float) -> float:
        """The gain to use now, ``step_s`` after the last one, given the gain that would be right."""
        if self._gain is None or self.lag_s <= 0:
            self._gain = wanted
        else:
            self._gain += (wanted - self._gain) * (1.0 - float(np.exp(-step_s / self.lag_s)))
        return self._gain


def develop(
    radiance: FloatArray,
    scope: Scope,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    depth_mm: FloatArray | None = None,
    motion: FloatArray | None = None,
) -> ImageArray:
    """Encode linear light.

    Args:
        radiance: H x W x 3 linear light in any unit.
        scope: the instrument.
        rng: noise.
        gain: exposure; measured from the image when None.
        depth_mm: H x W, for the defocus of a lens with a limited depth of field.
        motion: H x W x 2 optical flow over one frame time, for motion blur, rolling shutter and interlace;
            ``scope.shake_px`` everywhere when None. Ground truth is that of the middle row in mid-exposure.

    Returns:
        H x W x 3 uint8, RGB; black outside the visible area.
    """
    used = gain if gain is not None else expose(radiance, scope)
    matrix = np.asarray(scope.white_balance)[:, None] * np.asarray(_SPECTRA[scope.spectrum]) * used
    if scope.saturation != 1.0:
        grey = np.broadcast_to(_LUMA, (3, 3))
        matrix = (scope.saturation * np.eye(3) + (1.0 - scope.saturation) * grey) @ matrix
    light = _to_light(np.ascontiguousarray(radiance, np.float32), matrix.astype(np.float32), np.float32(scope.vignette))
    light = _through_lens(light, scope, depth_mm)
    light = _in_motion(light, scope, motion)
    if scope.blur_px > 0.2:
        light = cv2.GaussianBlur(light, (0, 0), scope.blur_px)
    encoded = _encode(np.ascontiguousarray(light), _table(scope))
    if scope.demosaic:
        encoded = _demosaiced(encoded, scope, rng)
    elif scope.shot_noise > 0 or scope.read_noise > 0:
        noise = _noise(rng, encoded.shape)
        if scope.jpeg_quality:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.7) * np.float32(1.8)
        _add_noise(encoded, noise, np.float32(scope.read_noise), np.float32(scope.shot_noise))
    encoded = _processed(encoded, scope)
    soft = unread(scope.content.size).reshape(1, 1)
    if not scope.content.all():
        soft = cv2.GaussianBlur(scope.content.astype(np.float32), (0, 0), 0.8)
    image = _quantised(encoded, soft, _border(rng) if soft.size > 1 else np.float32(0))
    if scope.overlay_seed:
        draw_overlay(image, scope.content, scope.overlay_seed)
    return _compressed(image, scope)


def _border(rng: np.random.Generator) -> np.float32:
    """Level of what lies outside of the visible area: black, or what a sensor makes of it."""
    level, black = rng.uniform(0, 12), rng.random() < 0.5
    return np.float32(0 if black else level)


def shown(scope: Scope) -> MaskArray:
    """H x W, where the image shows the scene: the visible area without overlays."""
    if not scope.overlay_seed:
        return scope.content
    image = np.zeros((*scope.content.shape, 3), np.uint8)
    return scope.content & ~draw_overlay(image, scope.content, scope.overlay_seed)


def _table(scope: Scope) -> FloatArray:
    """Encoded value over linear light in 0 .. _BRIGHTEST, finer where it is dark."""
    light = _BRIGHTEST * np.linspace(0.0, 1.0, _TABLE) ** 2
    if scope.shoulder > 0:
        knee = 1.0 - 0.6 * scope.shoulder
        light = np.minimum(light, knee) + (1 - knee) * (1 - np.exp(-np.maximum(light - knee, 0.0) / (1 - knee)))
    encoded = np.clip(light, 0.0, 1.0) ** (1.0 / scope.gamma)
    return np.asarray(np.maximum(encoded - scope.black, 0.0) / (1.0 - scope.black), np.float32)


def _through_lens(light: FloatArray, scope: Scope, depth_mm: FloatArray | None) -> FloatArray:
    """Lateral chromatic aberration and defocus."""
    height, width = light.shape[:2]
    if scope.chromatic_px > 0:
        half = 0.5 * float(np.hypot(width, height))
        planes = [np.ascontiguousarray(light[..., k]) for k in range(3)]
        for k, sign in ((0, 1.0), (2, -1.0)):
            scale = 1.0 + sign * scope.chromatic_px / half
            matrix = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]], np.float32)
            planes[k] = cv2.warpAffine(planes[k], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        light = np.stack(planes, axis=-1)
    if scope.defocus_px > 0 and depth_mm is not None:
        # The circle of confusion grows with the difference of the inverse distances; defocus_px is that at 10 mm.
        far = np.where(depth_mm > 0, depth_mm, np.float32(1e6))
        radius = np.minimum(scope.defocus_px * np.abs(10.0 / far - 10.0 / scope.focus_mm), 12.0).astype(np.float32)
        # Between blurs of doubling width.
        result, width_now = np.ascontiguousarray(light), 0.0
        for sigma in (1.0, 2.0, 4.0, 8.0):
            share = np.clip((radius - width_now) / (sigma - width_now), 0.0, 1.0)
            if not share.any():
                break
            _mix(result, cv2.GaussianBlur(light, (0, 0), sigma), share)
            width_now = sigma
        light = result
    return light


def _in_motion(light: FloatArray, scope: Scope, motion: FloatArray | None) -> FloatArray:
    """Motion blur, rolling shutter and interlace."""
    moving = motion is not None or scope.shake_px != (0.0, 0.0)
    if not moving or not (scope.shutter > 0 or scope.rolling > 0 or scope.interlaced):
        return light
    height, width = light.shape[:2]
    flow = np.asarray(scope.shake_px, np.float32).reshape(1, 1, 2) if motion is None else np.nan_to_num(motion)
    # When each row is read, in frame times from the middle of the frame.
    when = scope.rolling * (np.arange(height, dtype=np.float32) / max(height - 1, 1) - 0.5)
    if scope.interlaced:
        when[1::2] += 0.5
    spread = 0.0
    if scope.shutter > 0:
        spread = np.percentile(np.abs(np.broadcast_to(flow, (height, width, 2)) if flow.size == 2 else flow), 95)
    steps = int(np.clip(np.ceil(scope.shutter * spread), 1, 9))
    total = np.zeros_like(light)
    flow = np.ascontiguousarray(flow, np.float32)
    for step in range(steps):
        moment = when + scope.shutter * ((step + 0.5) / steps - 0.5)
        x, y = _places_before(flow, moment.astype(np.float32), height, width)
        total += cv2.remap(light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / np.float32(steps)


def _demosaiced(encoded: FloatArray, scope: Scope, rng: np.random.Generator) -> FloatArray:
    """One colour a pixel, noise there, and the missing ones filled in from the neighbours."""
    mosaic = np.empty(encoded.shape[:2], np.float32)
    mosaic[0::2, 0::2] = encoded[0::2, 0::2, 0]
    mosaic[0::2, 1::2] = encoded[0::2, 1::2, 1]
    mosaic[1::2, 0::2] = encoded[1::2, 0::2, 1]
    mosaic[1::2, 1::2] = encoded[1::2, 1::2, 2]
    if scope.shot_noise > 0 or scope.read_noise > 0:
        noise = _noise(rng, (*mosaic.shape, 1))[..., 0]
        mosaic += noise * (scope.read_noise + scope.shot_noise * np.sqrt(np.maximum(mosaic, 0.0)))
    codes = np.clip(mosaic * 65535.0, 0, 65535).astype(np.uint16)
    # OpenCV names a pattern by its second row.
    return np.asarray(cv2.demosaicing(codes, cv2.COLOR_BayerBG2RGB), np.float32) * np.float32(1.0 / 65535.0)


def _processed(encoded: FloatArray, scope: Scope) -> FloatArray:
    """What the processor does to the picture: softer colour, fewer colour samples, sharper edges."""
    if scope.chroma_blur_px > 0.3 or scope.chroma_subsampling in _SUBSAMPLING:
        luma, chroma = _split(encoded)
        if scope.chroma_blur_px > 0.3:
            chroma = cv2.GaussianBlur(chroma, (0, 0), scope.chroma_blur_px)
        if scope.chroma_subsampling in _SUBSAMPLING:
            height, width = encoded.shape[:2]
            by_x, by_y = _SUBSAMPLING[scope.chroma_subsampling]
            small = cv2.resize(chroma, (max(1, width // by_x), max(1, height // by_y)), interpolation=cv2.INTER_AREA)
            chroma = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        encoded = chroma + luma[..., None]
    if scope.sharpen > 0:
        encoded = encoded + np.float32(scope.sharpen) * (encoded - cv2.GaussianBlur(encoded, (0, 0), 1.5))
    return np.ascontiguousarray(encoded, np.float32)


def _compressed(image: ImageArray, scope: Scope) -> ImageArray:
    if scope.h264_crf:
        image = _h264(image, scope.h264_crf)
    if scope.jpeg_quality:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scope.jpeg_quality])
        image = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
    return np.asarray(image, np.uint8)


def _h264(image: ImageArray, crf: int) -> ImageArray:
    """The image as the key frame of a video."""
    import av

    height, width = image.shape[:2]
    even = image[: height - height % 2, : width - width % 2]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = even.shape[1], even.shape[0]
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = 25
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [picture for packet in [*packets, None] for picture in decoder.decode(packet)]
    result = image.copy()
    if decoded:
        result[: even.shape[0], : even.shape[1]] = decoded[0].to_ndarray(format="rgb24")
    return result


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Normal numbers; each row a random stretch of a fixed bank."""
    bank = noise_bank()
    length = int(np.prod(shape[1:]))
    if length >= bank.size:
        return rng.standard_normal(shape, np.float32)
    starts = rng.integers(0, bank.size - length, shape[0])
    return _stretches(bank, starts, length).reshape(shape)


@compiled
def _stretches(bank: FloatArray, starts: npt.NDArray[np.int64], length: int) -> FloatArray:
    noise = np.empty((starts.size, length), np.float32)
    for i in range(starts.size):
        for j in range(length):
            noise[i, j] = bank[starts[i] + j]
    return noise


@compiled
def _mix(result: FloatArray, blurred: FloatArray, share: FloatArray) -> None:
    """Move ``result`` towards ``blurred`` by the share of each pixel."""
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            for x in range(3):
                result[i, j, x] += share[i, j] * (blurred[i, j, x] - result[i, j, x])


@compiled
def _places_before(flow: FloatArray, moment: FloatArray, height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Where what is at each pixel was, given the flow (of each pixel, or one for all) and the time of each row."""
    x, y = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    single = flow.size == 2
    for i in range(height):
        for j in range(width):
            k, m = (0, 0) if single else (i, j)
            x[i, j] = np.float32(j) - flow[k, m, 0] * moment[i]
            y[i, j] = np.float32(i) - flow[k, m, 1] * moment[i]
    return x, y


@compiled_fast
def luminance(radiance: FloatArray, content: MaskArray, step: int) -> FloatArray:
    """Mean of the channels at every ``step``-th pixel of each row and column inside ``content``."""
    height, width = content.shape
    values = np.empty(((height + step - 1) // step) * ((width + step - 1) // step), np.float32)
    count = 0
    for i in range(0, height, step):
        for j in range(0, width, step):
            if content[i, j]:
                values[count] = (radiance[i, j, 0] + radiance[i, j, 1] + radiance[i, j, 2]) * np.float32(1 / 3)
                count += 1
    return values[:count]


@compiled_fast
def _split(encoded: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Brightness, and colours without it."""
    height, width = encoded.shape[:2]
    luma = np.empty((height, width), np.float32)
    chroma = np.empty(encoded.shape, np.float32)
    for i in range(height):
        for j in range(width):
            mean = (encoded[i, j, 0] + encoded[i, j, 1] + encoded[i, j, 2]) * np.float32(1 / 3)
            luma[i, j] = mean
            for x in range(3):
                chroma[i, j, x] = encoded[i, j, x] - mean
    return luma, chroma


@compiled_fast
def _to_light(radiance: FloatArray, matrix: FloatArray, vignette: float) -> FloatArray:
    height, width = radiance.shape[:2]
    light = np.empty(radiance.shape, np.float32)
    over = np.float32(1.0 / (0.25 * (width * width + height * height)))
    top = np.float32(_BRIGHTEST)
    for i in range(height):
        dy = np.float32(i) - np.float32(0.5) * np.float32(height)
        for j in range(width):
            dx = np.float32(j) - np.float32(0.5) * np.float32(width)
            shade = np.float32(1.0) - vignette * (dx * dx + dy * dy) * over
            r, g, b = radiance[i, j, 0], radiance[i, j, 1], radiance[i, j, 2]
            for x in range(3):
                # Highlights bleed before they saturate; unbounded ones would bleed over the whole image.
                value = shade * (matrix[x, 0] * r + matrix[x, 1] * g + matrix[x, 2] * b)
                # Written so that what is not a number becomes dark.
                value = value if value > np.float32(0.0) else np.float32(0.0)
                light[i, j, x] = value if value < top else top
    return light


@compiled_fast
def _encode(light: FloatArray, table: FloatArray) -> FloatArray:
    flat = light.reshape(-1)
    encoded = np.empty(flat.size, np.float32)
    last = table.size - 1
    for k in range(flat.size):
        # The table is even in the square root of light.
        value = flat[k] if flat[k] > np.float32(0.0) else np.float32(0.0)
        value = value if value < np.float32(_BRIGHTEST) else np.float32(_BRIGHTEST)
        at = np.sqrt(value * np.float32(1.0 / _BRIGHTEST)) * np.float32(last)
        low = min(np.int32(at), np.int32(last - 1))
        share = at - np.float32(low)
        encoded[k] = table[low] + share * (table[low + 1] - table[low])
    return encoded.reshape(light.shape)


@compiled_fast
def _add_noise(encoded: FloatArray, noise: FloatArray, read: float, shot: float) -> None:
    flat, add = encoded.reshape(-1), noise.reshape(-1)
    for k in range(flat.size):
        flat[k] += add[k] * (read + shot * np.sqrt(max(flat[k], np.float32(0.0))))


@compiled_fast
def _quantised(encoded: FloatArray, soft: FloatArray, black: float) -> ImageArray:
    height, width = encoded.shape[:2]
    image = np.empty(encoded.shape, np.uint8)
    framed = soft.size > 1
    for i in range(height):
        for j in range(width):
            for x in range(3):
                value = encoded[i, j, x] * np.float32(255.0) + np.float32(0.5)
                value = value if value > np.float32(0.0) else np.float32(0.0)
                value = value if value < np.float32(255.0) else np.float32(255.0)
                if framed:
                    value = value * soft[i, j] + black * (np.float32(1.0) - soft[i, j])
                image[i, j, x] = np.uint8(value)
    return image
