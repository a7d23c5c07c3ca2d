"""What a teacher said about one image as a few kilobytes: quantised, predicted, deflated."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from endolux.types import FloatArray

VERSION = 1
BITS = (16, 14, 12, 10, 8)
BYTES_PER_PIXEL = 100_000 / (240 * 320)
# Maps so small that their size does not matter.
_SMALL = 4096
_HEAD = struct.Struct("<HHBBffII")
_FEATURE = struct.Struct("<HHHI")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """What a student receives.

    Attributes:
        map: height x width float32, inverse depth of any positive scale; NaN where the teacher says nothing.
        features: C x h x w float32 by layer name.
    """

    map: FloatArray
    features: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)


def encode(knowledge: Knowledge) -> bytes:
    """Bytes of a map and features.

    The map is stored in 65 535 equal steps of its own range, so it is off by at most 1 / 131 070 of that range. Where
    this takes more than 100 kB at 240 x 320 (in proportion at other sizes), which only noise does, steps are made
    coarser: 14, 12, 10 and at last 8 bits, which always fits. Features are stored in 255 steps of each channel's
    largest absolute value: off by at most 1 / 254 of it.

    Example:
        >>> values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
        >>> stored = decode(encode(Knowledge(map=values)))
        >>> float(np.abs(stored.map - values).max()) <= 1 / 131_070 + 1e-7
        True
    """
    values = knowledge.map
    height, width = values.shape
    known = np.isfinite(values)
    low = float(values[known].min()) if known.any() else 0.0
    high = float(values[known].max()) if known.any() else 0.0
    mask = b"" if known.all() else zlib.compress(np.packbits(known).tobytes(), 6)
    pixels = b""
    bits = BITS[0]
    for bits in BITS:
        pixels = _deflated(_codes(values, known, low, high, bits))
        if len(pixels) + len(mask) <= max(_SMALL, BYTES_PER_PIXEL * height * width):
            break
    head = _HEAD.pack(height, width, bits, len(knowledge.features), low, high, len(mask), len(pixels))
    names = json.dumps(list(knowledge.features)).encode() if knowledge.features else b""
    parts = [head, mask, pixels]
    if knowledge.features:
        parts += [struct.pack("<H", len(names)), names]
        parts += [_encoded_feature(feature) for feature in knowledge.features.values()]
    return b"".join(parts)


def decode(data: bytes | memoryview) -> Knowledge:
    """What :func:`encode` was given, up to the quantisation it states.

    Raises:
        ValueError: bytes that :func:`encode` did not write.
    """
    try:
        return _decoded(memoryview(data))
    except (struct.error, zlib.error, json.JSONDecodeError, TypeError, IndexError) as error:
        raise ValueError(f"no knowledge record: {error}") from error


def pooled(feature: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """C x h x w brought to at most (rows, columns) by area means.

    Example:
        >>> pooled(np.ones((3, 24, 20), np.float32), (12, 16)).shape
        (3, 12, 16)
    """
    rows, columns = min(grid[0], feature.shape[1]), min(grid[1], feature.shape[2])
    if (rows, columns) == feature.shape[1:]:
        return feature
    return np.stack([cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA) for plane in feature])


def _codes(
    values: FloatArray, known: npt.NDArray[np.bool_], low: float, high: float, bits: int
) -> npt.NDArray[np.uint16]:
    span = np.float64(np.float32(high)) - np.float64(np.float32(low))
    steps = (1 << bits) - 1
    share = (np.where(known, values, np.float32(low)).astype(np.float64) - np.float64(np.float32(low))) / (span or 1.0)
    return np.rint(share * steps).astype(np.uint16)


def _deflated(codes: npt.NDArray[np.uint16]) -> bytes:
    # The residual of "left + above - above-left", which is 0 on every plane; modulo 2^16, so that two sums undo it.
    residual = codes.copy()
    residual[:, 1:] -= codes[:, :-1]
    residual[1:] -= residual[:-1].copy()
    signed = residual.view(np.int16)
    # Small numbers of either sign to small codes; low bytes and high bytes apart, because the high ones are all alike.
    folded = ((signed << 1) ^ (signed >> 15)).view(np.uint16)
    planes = np.ascontiguousarray(folded.view(np.uint8).reshape(-1, 2).T)
    return _deflate(planes.tobytes())


def _deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15, 9)
    head: bytes = compressor.compress(data)
    tail: bytes = compressor.flush()
    return head + tail


def _encoded_feature(feature: FloatArray) -> bytes:
    channels, rows, columns = feature.shape
    finite = np.nan_to_num(feature, nan=0.0, posinf=0.0, neginf=0.0)
    largest = np.abs(finite).max(axis=(1, 2)).astype(np.float32)
    steps = np.rint(finite / np.where(largest > 0, largest, 1)[:, None, None] * 127.0).astype(np.int8)
    body: bytes = largest.tobytes() + _deflate(steps.tobytes())
    head: bytes = _FEATURE.pack(channels, rows, columns, len(body))
    return head + body


def _decoded(data: memoryview) -> Knowledge:
    height, width, bits, count, low, high, mask_bytes, pixel_bytes = _HEAD.unpack_from(data)
    at = _HEAD.size
    mask, pixels = data[at : at + mask_bytes], data[at + mask_bytes : at + mask_bytes + pixel_bytes]
    at += mask_bytes + pixel_bytes
    planes = np.frombuffer(zlib.decompress(pixels, -15, 2 * height * width), np.uint8).reshape(2, height, width)
    folded = planes[1].astype(np.uint16) << np.uint16(8)
    folded |= planes[0]
    codes = (folded >> np.uint16(1)) ^ (np.uint16(0) - (folded & np.uint16(1)))
    np.cumsum(codes, axis=0, out=codes)
    np.cumsum(codes, axis=1, out=codes)
    values = codes.astype(np.float32)
    values *= np.float32((np.float64(high) - np.float64(low)) / ((1 << bits) - 1))
    values += np.float32(low)
    if mask_bytes:
        known = np.unpackbits(np.frombuffer(zlib.decompress(mask), np.uint8), count=height * width)
        values[known.reshape(height, width) == 0] = np.nan
    features: dict[str, FloatArray] = {}
    if count:
        (name_bytes,) = struct.unpack_from("<H", data, at)
        names = json.loads(bytes(data[at + 2 : at + 2 + name_bytes]))
        at += 2 + name_bytes
        for number in range(count):
            channels, rows, columns, size = _FEATURE.unpack_from(data, at)
            at += _FEATURE.size
            largest = np.frombuffer(data[at : at + 4 * channels], np.float32)
            body = zlib.decompress(data[at + 4 * channels : at + size], -15, channels * rows * columns)
            steps = np.frombuffer(body, np.int8).reshape(channels, rows, columns)
            features[names[number]] = steps * (largest / np.float32(127))[:, None, None]
            at += size
    return Knowledge(map=values, features=features)
