"""What an image file says about itself, read without decoding a pixel."""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from typing import BinaryIO

SIGNATURE_BYTES = 32

_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A marker outside entropy-coded data: 0xFF followed by neither stuffing (00), a restart (D0-D7) nor a fill byte (FF).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Format and size of an encoded image.

    Attributes:
        format: png, jpeg, bmp, tiff or webp.
        width, height: pixels, before any EXIF rotation.
        end: bytes the file needs to have for its pixels to be complete, 0 if the header does not say.
        alpha_tag: place of the TIFF tag that says that colours are not yet multiplied by alpha, and the bytes that say
            they are; decoders multiply otherwise.
        largest_block: pixels of the largest tile, which a decoder allocates on its own.
    """

    format: str
    width: int
    height: int
    end: int = 0
    alpha_tag: tuple[int, bytes] | None = None
    largest_block: int = 0


def sniff(head: bytes) -> str | None:
    r"""Format that the first bytes announce: png, jpeg, bmp, tiff, webp, npy, or None.

    Example:
        >>> sniff(b"\xff\xd8\xff\xe0")
        'jpeg'
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    # "BM" alone could begin a text; the size of the second header is one of a few values.
    if head.startswith(b"BM") and len(head) >= 18 and _u32(head, 14) in (12, 16, 40, 52, 56, 64, 108, 124):
        return "bmp"
    return None


def read_header(file: BinaryIO) -> ImageHeader | None:
    """Format and size from the head of ``file``; None if it is not an image of a known format.

    Raises:
        EOFError: the file ends within its header.
        ValueError: the header contradicts itself.
    """
    file.seek(0)
    head = file.read(SIGNATURE_BYTES)
    reader = {"png": _png, "jpeg": _jpeg, "bmp": _bmp, "tiff": _tiff, "webp": _webp}.get(sniff(head) or "")
    if reader is None:
        return None
    try:
        header = reader(file, head)
    except struct.error as error:
        raise EOFError("the header is incomplete") from error
    if header.width < 1 or header.height < 1:
        raise ValueError(f"it claims to be {header.width} x {header.height} pixels")
    return header


def check_complete(data: bytes, header: ImageHeader) -> None:
    """Check that the encoded image reaches its own end; decoders fill a missing rest with grey and say nothing.

    Raises:
        EOFError: the data stop early.
        ValueError: a checksum does not hold.
    """
    if len(data) < header.end:
        raise EOFError(f"{len(data)} of {header.end} bytes are there")
    if header.format == "jpeg":
        _check_jpeg(data)
    elif header.format == "png":
        _check_png(data)


def _check_jpeg(data: bytes) -> None:
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker = data[match.start() + 1]
        if marker == 0xD9:
            return
        position = match.end()
        if marker != 0x01:
            if position + 2 > len(data):
                break
            position += _u16be(data, position)
    raise EOFError("the end-of-image marker is missing")


def _check_png(data: bytes) -> None:
    position, view = 8, memoryview(data)
    while position + 12 <= len(data):
        length = int.from_bytes(view[position : position + 4], "big")
        kind = bytes(view[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise EOFError(f"its {kind.decode('latin-1')} chunk is incomplete")
        # Upper-case first letter: the chunk is needed to show the image.
        if kind[:1].isupper() and zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end], "big"
        ):
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk does not hold")
        if kind == b"IEND":
            return
        position = end
    raise EOFError("the end-of-image chunk is missing")


def _png(_file: BinaryIO, head: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", head, 16)
    if head[12:16] != b"IHDR":
        raise ValueError("its first chunk is not IHDR")
    return ImageHeader(format="png", width=width, height=height)


def _jpeg(file: BinaryIO, _head: bytes) -> ImageHeader:
    file.seek(2)
    while True:
        byte = file.read(1)
        if not byte:
            raise EOFError("it ends before its size is given")
        if byte != b"\xff":
            raise ValueError("a marker was expected")
        while byte == b"\xff":
            byte = file.read(1)
        if not byte:
            raise EOFError("it ends before its size is given")
        marker = byte[0]
        if marker in (0x01, *range(0xD0, 0xD8)):
            continue
        if marker in (0xD9, 0xDA):
            raise ValueError("the pixels start before the size is given")
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _JPEG_SIZE_MARKERS:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return ImageHeader(format="jpeg", width=width, height=height)
        if length < 2:
            raise ValueError("a segment has an impossible length")
        file.seek(length - 2, 1)


def _bmp(file: BinaryIO, head: bytes) -> ImageHeader:
    head = head + file.read(32)
    offset, dib = struct.unpack_from("<II", head, 10)
    if dib == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", head, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", head, 18)
    height = abs(height)
    packed = compression in (1, 2)
    end = 0 if packed or width < 1 else offset + (width * bits + 31) // 32 * 4 * height
    return ImageHeader(format="bmp", width=width, height=height, end=end)


def _webp(_file: BinaryIO, head: bytes) -> ImageHeader:
    end, chunk = 8 + _u32(head, 4), head[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(head[24:27], "little")
        height = 1 + int.from_bytes(head[27:30], "little")
    elif chunk == b"VP8L":
        bits = _u32(head, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 26))
    else:
        raise ValueError("its first chunk is unknown")
    return ImageHeader(format="webp", width=width, height=height, end=end)


def _tiff(file: BinaryIO, head: bytes) -> ImageHeader:
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    position = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]
    if position > 1 << 62:
        raise ValueError("its directory lies beyond any file")
    file.seek(position)
    (entries,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    if entries > 4096:
        raise ValueError(f"it claims {entries} directory entries")
    size, inline = (20, 8) if big else (12, 4)
    directory = file.read(size * entries)
    tags: dict[int, tuple[int, ...]] = {}
    alpha_tag: tuple[int, bytes] | None = None
    first = position + (8 if big else 2)
    for start in range(0, size * entries, size):
        tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), directory, start)
        code = _TIFF_TYPES.get(kind)
        if code is None or tag not in (256, 257, 258, 262, 273, 277, 279, 322, 323, 324, 325, 338):
            continue
        length = struct.calcsize(code) * count
        if length > 1 << 26:
            raise ValueError(f"tag {tag} claims {count} values")
        raw = directory[start + size - inline : start + size]
        if length > inline:
            file.seek(struct.unpack(order + ("Q" if big else "I"), raw)[0])
            raw = file.read(length)
        tags[tag] = struct.unpack_from(f"{order}{count}{code}", raw)
        if tag == 338 and code == "H" and tags[tag] == (2,):
            alpha_tag = (first + start + size - inline, struct.pack(order + "H", 1))
    # A tag may be there and hold no value at all.
    if not tags.get(256) or not tags.get(257):
        raise ValueError("it does not give its size")
    offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    return ImageHeader(
        format="tiff",
        width=tags[256][0],
        height=tags[257][0],
        end=max((offset + count for offset, count in zip(offsets, counts, strict=False)), default=0),
        alpha_tag=alpha_tag,
        largest_block=(tags.get(322) or (0,))[0] * (tags.get(323) or (0,))[0],
    )


def _u32(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "little")


def _u16be(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 2], "big")
