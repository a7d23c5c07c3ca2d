"""Records in append-only files: many writers, each with its own file; every record checked when it is read."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from endolux.errors import DeviceError, EndoluxError, UsageError, from_os_error

KEY_BYTES = 32
_MAGIC = b"\x93EKR"
# Magic, bytes of the payload, crc32 of key and payload, key; then crc32 of all that.
_HEADER = struct.Struct(f"<4sII{KEY_BYTES}s")
_CHECK = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CHECK.size
_SUFFIX = ".records"
_INDEX = "index"
_INDEX_MAGIC = b"EKI1"
_INDEX_ENTRY = struct.Struct(f"<{KEY_BYTES}sHQI")
_ROLL_BYTES = 256 << 20

_Place = tuple[str, int, int]  # file, offset of the payload, its length


class RecordFiles:
    """A folder of records, found by a key of 32 bytes.

    A writer appends to a file of its own, which nobody else ever writes, so writers need no locks. A record that was
    cut off (a killed writer, a full disk) or changed is never returned: its header and its payload carry checksums.
    Reading goes on behind it. An index file spares the next reader to walk over all headers; whoever closes replaces
    it atomically, and a damaged or stale one costs only the walk.

    Args:
        folder: created at the first record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, tuple[_Place, ...]] = {}
        self._walked: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.RLock()
        self._writer: tuple[int, int, str] | None = None  # process, descriptor, file
        self._fresh = 0
        self.damaged = 0
        self._read_index()
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def keys(self) -> Iterator[bytes]:
        """Keys of what seems to be there; only reading tells."""
        return iter(tuple(self._places))

    def bytes_on_disk(self) -> int:
        """Bytes of all files, those of cut-off records included."""
        total = 0
        for path in self._files():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def get(self, key: bytes) -> memoryview | None:
        """The payload of a record, checked, without a copy; None where there is none that is whole."""
        for place in self._places.get(key, ()):
            payload = self._payload(key, place)
            if payload is not None:
                return payload
            self._forget(key, place)
        return None

    def discard(self, key: bytes) -> None:
        """Forget the records of a key whose payload turned out to be of no use; they stay on the disk."""
        for place in self._places.get(key, ()):
            self._forget(key, place)

    def put(self, key: bytes, payload: bytes) -> None:
        """Append a record.

        Raises:
            DeviceError: ``knowledge.disk-full``; nothing that was there is lost.
            UsageError: ``knowledge.not-writable``.
        """
        header = _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload, zlib.crc32(key)), key)
        record = header + _CHECK.pack(zlib.crc32(header)) + payload
        with self._lock:
            try:
                descriptor, name, end = self._open_writer()
                try:
                    self._write(descriptor, record)
                except OSError:
                    # What was written of it would only have to be walked over.
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, end)
                    raise
            except OSError as error:
                raise not_stored(error, self.folder) from error
            place = (name, end + _HEADER_BYTES, len(payload))
            self._places[key] = (place, *self._places.get(key, ()))
            if self._walked.get(name, 0) == end:
                self._walked[name] = end + len(record)
            self._fresh += 1

    def refresh(self) -> int:
        """Take in what other writers have added; returns the number of new keys."""
        with self._lock:
            before = len(self._places)
            for path in self._files():
                self._walk(path)
            return len(self._places) - before

    def close(self) -> None:
        """Write the index, if anything is new, and let go of all files. What was stored is safe without it."""
        with self._lock:
            if self._writer is not None and self._writer[0] == os.getpid():
                os.close(self._writer[1])
            self._writer = None
            if self._fresh:
                with contextlib.suppress(OSError):
                    self._write_index()
                self._fresh = 0
            # Views of payloads may still be held; the maps go when the last of them does.
            self._maps.clear()

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise from_os_error(error, self.folder) from error

    def _open_writer(self) -> tuple[int, str, int]:
        """Descriptor, name and end of the file that this process appends to."""
        if self._writer is not None and self._writer[0] == os.getpid():
            _, descriptor, name = self._writer
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end < _ROLL_BYTES:
                return descriptor, name, end
            os.close(descriptor)
            self._writer = None
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid():x}-{secrets.token_hex(6)}{_SUFFIX}"
        descriptor = os.open(self.folder / name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._writer = (os.getpid(), descriptor, name)
        return descriptor, name, 0

    @staticmethod
    def _write(descriptor: int, record: bytes) -> None:
        view = memoryview(record)
        while view:
            view = view[os.write(descriptor, view) :]

    def _mapped(self, name: str, end: int) -> mmap.mmap | None:
        """The file up to at least ``end``; mapped anew where it has grown."""
        mapped = self._maps.get(name)
        if mapped is not None and len(mapped) >= end:
            return mapped
        try:
            with (self.folder / name).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        self._maps[name] = mapped
        return mapped if len(mapped) >= end else None

    def _payload(self, key: bytes, place: _Place) -> memoryview | None:
        name, start, length = place
        mapped = self._mapped(name, start + length)
        if mapped is None or start < _HEADER_BYTES:
            return None
        found = self._header(mapped, start - _HEADER_BYTES)
        if found is None or found[0] != key or found[1] != length:
            return None
        payload = memoryview(mapped)[start : start + length]
        return payload if zlib.crc32(payload, zlib.crc32(key)) == found[2] else None

    @staticmethod
    def _header(mapped: mmap.mmap, at: int) -> tuple[bytes, int, int] | None:
        """Key, length of the payload and its checksum; None for anything but a whole header."""
        if at + _HEADER_BYTES > len(mapped):
            return None
        header = mapped[at : at + _HEADER.size]
        (check,) = _CHECK.unpack_from(mapped, at + _HEADER.size)
        magic, length, checksum, key = _HEADER.unpack(header)
        return (key, length, checksum) if magic == _MAGIC and zlib.crc32(header) == check else None

    def _forget(self, key: bytes, place: _Place) -> None:
        with self._lock:
            left = tuple(other for other in self._places.get(key, ()) if other != place)
            self.damaged += len(self._places.get(key, ())) - len(left)
            if left:
                self._places[key] = left
            else:
                self._places.pop(key, None)
            # The index must not bring it back.
            self._fresh += 1

    def _walk(self, path: Path) -> None:
        """Enter the records of a file from where the last walk ended."""
        name = path.name
        try:
            size = path.stat().st_size
        except OSError:
            return
        at = self._walked.get(name, 0)
        if size <= at:
            return
        mapped = self._mapped(name, size)
        if mapped is None:
            return
        while at < size:
            found = self._header(mapped, at)
            if found is None:
                # Damaged, or the tail of a record that is being written: go on at the next thing like a header.
                following = mapped.find(_MAGIC, at + 1, size)
                if following < 0:
                    break
                at = following
                continue
            key, length, _ = found
            end = at + _HEADER_BYTES + length
            if end > size:
                following = mapped.find(_MAGIC, at + 1, size)
                if following < 0:
                    break
                at = following
                continue
            place = (name, at + _HEADER_BYTES, length)
            if place not in self._places.get(key, ()):
                self._places[key] = (place, *self._places.get(key, ()))
                self._fresh += 1
            at = end
            # Only whole records count as walked: a tail may still grow.
            self._walked[name] = end

    def _write_index(self) -> None:
        names = sorted(self._walked)
        numbers = {name: number for number, name in enumerate(names)}
        if len(names) >= 1 << 16:
            return
        parts = [struct.pack("<I", len(names))]
        for name in names:
            encoded = name.encode()
            parts.append(struct.pack("<HQ", len(encoded), self._walked[name]) + encoded)
        for key, places in self._places.items():
            parts += [
                _INDEX_ENTRY.pack(key, numbers[name], start, length)
                for name, start, length in reversed(places)
                if name in numbers and start + length <= self._walked[name]
            ]
        body = b"".join(parts)
        temporary = self.folder / f".{_INDEX}-{os.getpid():x}-{secrets.token_hex(4)}"
        try:
            temporary.write_bytes(_INDEX_MAGIC + _CHECK.pack(zlib.crc32(body)) + body)
            temporary.replace(self.folder / _INDEX)
        finally:
            temporary.unlink(missing_ok=True)

    def _read_index(self) -> None:
        try:
            data = (self.folder / _INDEX).read_bytes()
            (check,) = _CHECK.unpack_from(data, 4)
            body = memoryview(data)[8:]
            if data[:4] != _INDEX_MAGIC or zlib.crc32(body) != check:
                return
            (count,) = struct.unpack_from("<I", body)
            at, names, walked = 4, [], {}
            for _ in range(count):
                length, end = struct.unpack_from("<HQ", body, at)
                name = bytes(body[at + 10 : at + 10 + length]).decode()
                at += 10 + length
                names.append(name)
                walked[name] = end
            present = {path.name: path.stat().st_size for path in self._files()}
        except (OSError, struct.error, UnicodeDecodeError):
            return
        # A file that is gone or shorter than it was is walked again from its beginning.
        usable = [name in present and present[name] >= walked[name] for name in names]
        for key, number, start, length in _INDEX_ENTRY.iter_unpack(body[at:]):
            if usable[number]:
                self._places[key] = ((names[number], start, length), *self._places.get(key, ()))
        self._walked = {name: walked[name] for name, fine in zip(names, usable, strict=True) if fine}


def not_stored(error: OSError, folder: Path) -> EndoluxError:
    """The error for an answer that could not be written."""
    general = from_os_error(error, folder)
    if isinstance(general, DeviceError):
        return DeviceError(
            f"The disk is full while the teacher's answers are stored in '{folder}'",
            why=f"The operating system said: {error.strerror}. What was stored before stays usable.",
            fix="Free some space or set teacher.cache to a folder on another disk, then run the same command again.",
            error_id="knowledge.disk-full",
        )
    if isinstance(general, UsageError):
        return UsageError(
            f"The teacher's answers cannot be stored in '{folder}'",
            why=f"The operating system said: {error.strerror}.",
            fix="Set teacher.cache to a folder that you may write to; a complete cache needs reading only.",
            error_id="knowledge.not-writable",
        )
    return general
