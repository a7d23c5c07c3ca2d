"""Stacks of frames in one array: ``.npy`` files and members of a zip archive, read one frame at a time."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.datasets.decode import damaged, read_bytes
from endolux.datasets.stored import numpy_file
from endolux.errors import InputError
from endolux.io.images import pixel_limit
from endolux.io.paths import check_file, input_error, printable, truncated


class Store:
    """A folder or a zip archive, addressed by relative names with forward slashes.

    Raises:
        InputError: missing; ``input.not-a-folder`` for a file that is not a zip archive.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archive: zipfile.ZipFile | None = None
        if not root.is_dir():
            check_file(root)
            try:
                self._archive = zipfile.ZipFile(root)
            except zipfile.BadZipFile as error:
                raise InputError(
                    f"'{printable(root)}' is neither a folder nor a whole zip archive",
                    why=f"{error}.",
                    fix="Give the unpacked folder, or download the archive again.",
                    error_id="input.not-a-folder",
                ) from error
            except OSError as error:
                raise input_error(error, root) from error

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        if self._archive is not None:
            return name in self._archive.NameToInfo
        return (self.root / name).is_file()

    def path(self, name: str) -> Path:
        """Where the file lies: the archive itself for a zip."""
        return self.root if self._archive is not None else self.root / name

    def read(self, name: str) -> bytes:
        """Content of a file. Raises InputError."""
        if self._archive is None:
            return read_bytes(self.root / name)
        try:
            info = self._archive.getinfo(name)
            if info.file_size > 8 * pixel_limit() + (64 << 20):
                raise damaged(name, f"it unpacks to {info.file_size} bytes")
            return self._archive.read(info)
        except KeyError as error:
            raise damaged(printable(self.root), f"it holds no '{name}'") from error
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise damaged(printable(self.root), f"'{name}' cannot be unpacked ({error})") from error

    def array(self, name: str) -> Stack:
        """An N x ... array in the ``.npy`` file of that name. Raises InputError."""
        if self._archive is None:
            path = self.root / name
            check_file(path)
            loaded: npt.NDArray[np.generic] = numpy_file(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False))
            return Stack(name, loaded.shape, loaded.dtype, lambda index: np.array(loaded[index]))
        return _zipped(self._archive, name)


class Stack:
    """Frames stored one after the other in one array; read one by one.

    Attributes:
        shape: of the whole array.
        dtype: of its numbers.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        frame: Callable[[int], npt.NDArray[np.generic]],
    ) -> None:
        if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "fui":
            raise damaged(name, f"it holds {shape} {dtype}; N x H x W numbers are expected")
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self._frame = frame

    def __len__(self) -> int:
        return self.shape[0]

    def frame(self, index: int) -> npt.NDArray[np.generic]:
        """One frame. Raises InputError where the archive is damaged."""
        return self._frame(index)


def _zipped(archive: zipfile.ZipFile, name: str) -> Stack:
    try:
        stream = archive.open(name)
        version = np.lib.format.read_magic(stream)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = head(stream)
    except KeyError as error:
        raise damaged(printable(archive.filename or ""), f"it holds no '{name}'") from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise damaged(name, " ".join(str(error).split())) from error
    if fortran or dtype.hasobject:
        raise damaged(name, "its frames do not lie one after the other")
    start = stream.tell()
    size = int(dtype.itemsize * math.prod(shape[1:]))
    if size > 8 * pixel_limit():
        raise damaged(name, f"one frame takes {size} bytes")

    def frame(index: int) -> npt.NDArray[np.generic]:
        try:
            # Forward is reading on; backward starts the member anew. Frames are meant to be read in order.
            stream.seek(start + index * size)
            data = stream.read(size)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise damaged(name, f"frame {index} cannot be unpacked ({error})") from error
        if len(data) < size:
            raise truncated(name, f"frame {index} is incomplete")
        return np.frombuffer(data, dtype).reshape(shape[1:])

    return Stack(name, shape, dtype, frame)
