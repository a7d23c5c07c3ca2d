"""The knowledge cache: what a teacher says about an image is computed once and read ever after."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from endolux.errors import InputError, UsageError
from endolux.train.knowledge_codec import VERSION, Knowledge, decode, encode, pooled
from endolux.train.record_files import RecordFiles, not_stored
from endolux.types import DepthKind, ImageArray

if TYPE_CHECKING:
    from endolux.models.teachers import Teacher, TeacherOutput

FEATURE_GRID = (12, 16)
_ABOUT = "about.json"
_REFRESH_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """What filling a cache did.

    Attributes:
        images: images looked at.
        computed: answers that had to be computed.
        seconds: wall clock.
        size: of the cache afterwards.
    """

    images: int
    computed: int
    seconds: float
    size: Size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a cache is.

    Attributes:
        frames: images whose answer is there.
        bytes: on disk.
        damaged: records met in this process that were cut off or changed, and not used.
    """

    frames: int
    bytes: int
    damaged: int

    @property
    def bytes_per_frame(self) -> float:
        """NaN for an empty cache."""
        return self.bytes / self.frames if self.frames else float("nan")


class KnowledgeCache:
    """Answers of one teacher at one size, on disk.

    The key of an answer is the hash of the image's bytes; the folder below ``folder`` is named by the hash of all else
    that decides the answer: the teacher's weights, its preprocessing, the size, the features and the format. So one
    folder may serve any number of teachers and settings, and none can be mistaken for another. Several processes and
    threads may read and fill at once. A killed one loses at most the answer it was writing. Whatever is cut off or
    changed on disk is computed again, never used.

    Args:
        folder: created when the first answer is stored.
        teacher: who is asked.
        size: (width, height) of the maps.
        features: layers whose maps are kept, area-pooled to at most ``feature_grid``.
        feature_grid: (rows, columns).

    Raises:
        UsageError: ``teacher.feature``.

    Example:
        >>> import tempfile
        >>> from endolux.models.teachers import Teacher
        >>> class Brightness(Teacher):
        ...     name, sha256, kind = "brightness", "0" * 64, DepthKind.RELATIVE_DISPARITY
        ...     def preprocessing(self):
        ...         return {}
        ...     def _predict(self, image, size, features):
        ...         return image.mean(axis=2, dtype=np.float32), {}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = KnowledgeCache(Path(folder), Brightness(), size=(8, 6))
        ...     answer = cache.get(np.full((6, 8, 3), 40, np.uint8))
        ...     (answer.map.shape, float(answer.map.mean()), cache.size().frames)
        ((6, 8), 40.0, 1)
    """

    def __init__(
        self,
        folder: Path,
        teacher: Teacher,
        *,
        size: tuple[int, int],
        features: Sequence[str] = (),
        feature_grid: tuple[int, int] = FEATURE_GRID,
    ) -> None:
        teacher.check_features(features)
        self.teacher, self.map_size = teacher, size
        self._features, self._grid = tuple(features), feature_grid
        self.identity: Mapping[str, object] = {
            "format": VERSION,
            "teacher": teacher.name,
            "kind": str(teacher.kind),
            "sha256": teacher.sha256,
            "preprocessing": dict(teacher.preprocessing()),
            "size": list(size),
            "features": list(self._features),
            "feature_grid": list(feature_grid) if self._features else None,
        }
        decisive = {key: value for key, value in self.identity.items() if key != "teacher"}
        self.sha256 = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        self.folder = folder / self.sha256[:24]
        self._records = RecordFiles(self.folder)
        self._described = False
        self._lock = threading.Lock()
        self._refreshed_s = time.monotonic()

    @staticmethod
    def key(image: ImageArray) -> bytes:
        """Hash of an image's size and bytes."""
        digest = hashlib.sha256(f"{image.shape}".encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.digest()

    def find(self, image: ImageArray) -> Knowledge | None:
        """The stored answer, checked; None where there is none that is whole."""
        return self._find(self.key(image))

    def get(self, image: ImageArray) -> Knowledge:
        """The stored answer, or else the teacher's, which is stored.

        What was just computed is returned as it will be read: quantised. A run gives the same weights whether its cache
        was full or empty.

        Raises:
            DeviceError, UsageError: the answer cannot be stored.
            InputError: ``knowledge.not-finite`` where a disparity is nowhere a number, or a feature is not one.
        """
        return self._get(image)[0]

    def fill(
        self,
        count: int,
        load: Callable[[int], ImageArray],
        *,
        part: tuple[int, int] = (0, 1),
        on_progress: Callable[[int, int, int], None] | None = None,
    ) -> Fill:
        """Compute what is missing.

        Processes that share a cache may each fill it: with ``part`` each takes its share, and without it they start at
        different places and leave out what another has done meanwhile.

        Args:
            count: number of images.
            load: reads image ``i``, as training does, before any augmentation.
            part: (rank, world): this process takes images rank, rank + world, ...
            on_progress: called with images done, images in all, answers computed.

        Raises:
            As :meth:`get`.
        """
        begun_s = time.monotonic()
        order = np.arange(part[0], count, part[1])
        # Where to begin is all that differs between processes: they meet only when all is done.
        order = np.roll(order, -secrets.randbelow(max(1, len(order))))
        computed = 0
        for done, index in enumerate(order, 1):
            computed += self._get(load(int(index)))[1]
            if on_progress is not None:
                on_progress(done, len(order), computed)
        self._records.refresh()
        self.save_index()
        # Other processes may still be at their part: the next miss looks at once for what they add.
        self._refreshed_s = -_REFRESH_S
        return Fill(images=len(order), computed=computed, seconds=time.monotonic() - begun_s, size=self.size())

    def size(self) -> Size:
        """What is there now."""
        return Size(frames=len(self._records), bytes=self._records.bytes_on_disk(), damaged=self._records.damaged)

    def save_index(self) -> None:
        """Spare the next process the walk over all records. Nothing is lost without it."""
        self._records.close()

    def _find(self, key: bytes) -> Knowledge | None:
        while (payload := self._records.get(key)) is not None:
            try:
                found = decode(payload)
            except ValueError:
                # A whole record of another format: written by a program with a bug, so not to be met again.
                self._records.discard(key)
                continue
            if found.map.shape == self.map_size[::-1] and tuple(found.features) == self._features:
                return found
            self._records.discard(key)
        return None

    def _get(self, image: ImageArray) -> tuple[Knowledge, bool]:
        key = self.key(image)
        found = self._find(key)
        if found is None and time.monotonic() - self._refreshed_s > _REFRESH_S:
            self._refreshed_s = time.monotonic()
            self._records.refresh()
            found = self._find(key)
        if found is not None:
            return found, False
        data = encode(self._ask(image))
        self._describe()
        self._records.put(key, data)
        return decode(data), True

    def _ask(self, image: ImageArray) -> Knowledge:
        answer = self.teacher.predict(image, size=self.map_size, features=self._features)
        features = {name: pooled(feature, self._grid) for name, feature in answer.features.items()}
        if not getattr(self.teacher, "checked", False):
            check_answer(answer, self.teacher.name)
        return Knowledge(map=answer.knowledge(), features=features)

    def _describe(self) -> None:
        """Say in the folder whose answers these are."""
        with self._lock:
            if self._described:
                return
            path = self.folder / _ABOUT
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    temporary = self.folder / f".{_ABOUT}-{os.getpid():x}-{secrets.token_hex(4)}"
                    try:
                        temporary.write_text(json.dumps(self.identity, indent=1) + "\n", encoding="utf-8")
                        temporary.replace(path)
                    finally:
                        temporary.unlink(missing_ok=True)
            except OSError as error:
                raise not_stored(error, self.folder) from error
            self._described = True


def check_answer(answer: TeacherOutput, name: str) -> None:
    """Refuse what a broken network says.

    Args:
        answer: a teacher's.
        name: of the teacher.

    Raises:
        InputError: ``knowledge.not-finite`` where a disparity is nowhere a number, or a feature is not one.
    """
    # A bundle that finds no content area says nothing, and may; a network that gives NaN throughout is broken.
    nothing = answer.kind is DepthKind.RELATIVE_DISPARITY and not np.isfinite(answer.map).any()
    if nothing or not all(np.isfinite(feature).all() for feature in answer.features.values()):
        raise InputError(
            f"The teacher '{name}' gives values that are no numbers",
            why="Infinite or undefined values appeared in its output or its layers.",
            fix="Use sound weights.",
            error_id="knowledge.not-finite",
        )


def open_teacher(spec: str, *, input_size: tuple[int, int] | None = None, device: str = "cpu") -> Teacher:
    """:func:`endolux.models.teachers.open_teacher` that also reads training runs (their averaged weights).

    Raises:
        As there, and ModelError where a run holds no usable checkpoint.
    """
    from endolux.models import teachers
    from endolux.train.checkpoints import load_network

    return teachers.open_teacher(
        spec,
        input_size=input_size or _trained_size(spec),
        device=device,
        load_run=lambda folder: load_network(folder)[0],
    )


def _trained_size(spec: str) -> tuple[int, int] | None:
    """(width, height) that the recipe of a run trained at: no network is to see pictures of ten times that size."""
    folder = Path(spec).expanduser()
    if not (folder / "run.json").is_file() or (folder / "card.json").is_file():
        return None
    from endolux.train.run_folder import recorded_recipe

    recipe = recorded_recipe(folder)
    return None if recipe is None else recipe.data.size


def check_preprocessing(
    teacher: Teacher, *, picture_size: tuple[int, int], training_size: tuple[int, int], tolerance: float = 1.1
) -> None:
    """Refuse a teacher that would see other shapes than the student.

    The teacher sees the stored picture in its own way, the student the resized one. Positions always correspond, but
    a scene that one of them sees squeezed has another depth for it.

    Args:
        teacher: who teaches.
        picture_size: (width, height) of the stored pictures.
        training_size: (width, height) of the student's input.
        tolerance: largest relative difference of the two aspect ratios.

    Raises:
        UsageError: ``distillation.preprocessing``.
    """
    squeeze = teacher.squeezes(*picture_size)
    student = (training_size[0] / training_size[1]) / (picture_size[0] / picture_size[1])
    difference = max(squeeze / student, student / squeeze)
    if difference <= tolerance:
        return
    width, height = picture_size
    raise UsageError(
        f"Teacher and student disagree: '{teacher.name}' sees pictures of {width}x{height} stretched "
        f"{squeeze:.2f} times in width, the student at {training_size[0]}x{training_size[1]} {student:.2f} times",
        why=f"That is a factor of {difference:.2f}; more than {tolerance} changes what depth means.",
        fix="Choose data.size with the aspect of the pictures; leave teacher.input_size out or give it that aspect.",
        error_id="distillation.preprocessing",
    )
