"""Where a task that distils gets its knowledge from: one cache, opened and filled when the run begins."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from endolux.train.knowledge import FEATURE_GRID, KnowledgeCache, check_preprocessing
from endolux.train.knowledge_codec import Knowledge
from endolux.types import ImageArray

if TYPE_CHECKING:
    from endolux.models.teachers import Teacher
    from endolux.train.recipe import Teacher as TeacherSection
    from endolux.train.task import Start

_TELL_S = 2.0


class KnowledgeSource:
    """The answers of one teacher to the pictures of one run.

    Args:
        teacher: who is asked.
        section: of a recipe: folder, sizes, when the cache is filled.
        features: layers whose maps are kept.
        grid: (rows, columns) that these are pooled to at most.

    Raises:
        UsageError: ``teacher.feature``.
    """

    def __init__(
        self,
        teacher: Teacher,
        section: TeacherSection,
        *,
        features: Sequence[str] = (),
        grid: tuple[int, int] = FEATURE_GRID,
    ) -> None:
        teacher.check_features(features)
        self.teacher, self._section = teacher, section
        self._features, self._grid = tuple(features), grid
        self._cache: KnowledgeCache | None = None

    def open(self, folder: Path, size: tuple[int, int]) -> KnowledgeCache:
        """The cache for training at ``size`` (width, height), in the recipe's folder or ``folder``."""
        return KnowledgeCache(
            self._section.cache or folder,
            self.teacher,
            size=self._section.output_size or size,
            features=self._features,
            feature_grid=self._grid,
        )

    def begin(self, start: Start) -> None:
        """Open the cache, and fill it where the run will need all of it.

        Raises:
            UsageError: ``distillation.preprocessing``; the cache cannot be written.
        """
        first = start.image(0)
        check_preprocessing(self.teacher, picture_size=(first.shape[1], first.shape[0]), training_size=start.size)
        self._cache = self.open(knowledge_folder(start), start.size)
        fill = self._section.fill
        if fill == "lazy" or (fill == "auto" and 2 * start.wanted < start.count):
            return
        missing = start.count - self._cache.size().frames
        if missing > 0:
            start.tell({"message": f"The teacher '{self.teacher.name}' is asked about {start.count} pictures."})
        told_s = [time.monotonic()]

        def show(done: int, count: int, computed: int) -> None:
            if computed and (time.monotonic() - told_s[0] > _TELL_S or done == count):
                told_s[0] = time.monotonic()
                start.tell({"message": f"teacher {done}/{count}, {computed} of them computed"})

        report = self._cache.fill(start.count, start.image, part=start.part, on_progress=show)
        if report.computed:
            size = report.size
            start.tell(
                {
                    "message": f"Stored in '{self._cache.folder}': {size.frames} pictures, "
                    f"{size.bytes_per_frame / 1000:.1f} kB each, in {report.seconds:.0f} s."
                }
            )

    def get(self, image: ImageArray) -> Knowledge:
        """What the teacher says about a stored picture; safe to call from several threads."""
        if self._cache is None:
            raise RuntimeError("the task has not begun")
        return self._cache.get(image)

    def summary(self) -> Mapping[str, object]:
        """Who teaches, and the identity of what is learnt from; JSON values."""
        facts: dict[str, object] = {
            "teacher": self.teacher.name,
            "teacher_sha256": self.teacher.sha256,
            "teacher_kind": str(self.teacher.kind),
            "knowledge": "inverse depth, any scale",
        }
        if self._cache is not None:
            facts["knowledge_sha256"] = self._cache.sha256
        return facts


def knowledge_folder(start: Start) -> Path:
    """Where a run keeps knowledge if its recipe names no folder: beside the run, for the next one to use."""
    return start.output.absolute().parent / "knowledge"
