"""Pictures with their neighbours in time, from any clip that has an order."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError
from endolux.train.sources import Clip, Item, Snippet
from endolux.types import Camera, CameraModel, ImageArray

if TYPE_CHECKING:
    from endolux.train.recipe_video import Intrinsics, Video

_PAIRS = 6
_BLOCK = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnippetRule:
    """What makes a snippet.

    Attributes:
        offsets: neighbours, in frames.
        static_below: see :class:`endolux.train.recipe_video.Video`.
        intrinsics: section of a recipe.
        camera: for pictures that have none.
        listed: ``SEQUENCE INDEX`` of the pictures that are learnt from; None: all.
    """

    offsets: tuple[int, ...]
    static_below: float
    intrinsics: Intrinsics
    camera: Camera | None = None
    listed: Collection[str] | None = None

    @classmethod
    def of(cls, video: Video) -> SnippetRule:
        """The rule of a recipe; reads its camera file and its list.

        Raises:
            InputError: they cannot be read.
        """
        from endolux.datasets.scared_splits import read_split
        from endolux.geometry.cameras import load_camera

        listed = None if video.listed is None else frozenset(_short(str(key)) for key in read_split(video.listed))
        return cls(
            offsets=video.offsets,
            static_below=video.static_below,
            intrinsics=video.intrinsics,
            camera=None if video.intrinsics.file is None else load_camera(video.intrinsics.file),
            listed=listed,
        )


class Snippets:
    """Clips of snippets, one for each clip that has any; remembers what was left out and what was assumed.

    Args:
        rule: what makes a snippet.

    Attributes:
        notes: lines for people, each once.
    """

    def __init__(self, rule: SnippetRule) -> None:
        self.rule = rule
        self.notes: list[str] = []
        self._made: dict[tuple[str, int], Clip | None] = {}

    def of(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips of snippets.

        Raises:
            InputError: ``video.no-order`` where no clip knows which pictures follow each other; ``video.too-short``,
                ``video.static``, ``video.listed`` where nothing is left; ``video.intrinsics``.
        """
        reasons: list[tuple[str, str]] = []
        found = []
        for clip in clips:
            key = (clip.name, clip.count)
            if key not in self._made:
                made, why = self._make(clip)
                self._made[key] = made
                if made is None:
                    reasons.append((clip.label, why))
                    self._note(f"left out: '{clip.label}' ({_REASONS[why]})")
            snippet = self._made[key]
            if snippet is not None:
                found.append(snippet)
        if clips and not found:
            raise self._nothing(reasons)
        return found

    def _make(self, clip: Clip) -> tuple[Clip | None, str]:
        if clip.link is None:
            return None, "no-order"
        rule, link = self.rule, clip.link
        rows: list[tuple[int, tuple[int, ...]]] = []
        for index in range(clip.count):
            others = [link(index, offset) for offset in rule.offsets]
            known = tuple(other for other in others if other is not None)
            if len(known) == len(others):
                rows.append((index, known))
        if not rows:
            return None, "too-short"
        if rule.listed is not None:
            rows = [row for row in rows if _short(clip.key(row[0])) in rule.listed]
            if not rows:
                return None, "listed"
        if rule.static_below > 0 and _motion(clip, rows) < rule.static_below:
            return None, "static"
        self._check_camera(clip, rows[0][0])
        # Not two dictionaries: numbers of rows are stable while the clip is.
        return (
            dataclasses.replace(
                clip,
                count=len(rows),
                key=lambda number: clip.key(rows[number][0]),
                load=lambda number: self._load(clip, *rows[number]),
                link=None,
                view=None,
            ),
            "",
        )

    def _load(self, clip: Clip, index: int, others: tuple[int, ...]) -> Item:
        item = clip.load(index)
        neighbours = [(clip.view or clip.load)(other) for other in others]
        for other in neighbours:
            if other.image.shape != item.image.shape:
                raise InputError(
                    f"'{other.key}' has {other.image.shape[1]}x{other.image.shape[0]} pixels, and '{item.key}' "
                    f"{item.image.shape[1]}x{item.image.shape[0]}",
                    why="The frames of a snippet are seen by one camera, so they must have one size.",
                    fix="Cut the clip where its size changes, or make its frames equal.",
                    error_id="video.frame-sizes",
                )
        poses = [neighbour.pose for neighbour in neighbours]
        motions: npt.NDArray[np.float32] | None = None
        if item.pose is not None and all(pose is not None for pose in poses):
            # Points of this camera to the world, and from there to the neighbour's camera.
            motions = np.stack([np.linalg.inv(p) @ item.pose for p in poses if p is not None]).astype(np.float32)
        matrix = self._matrix(item)
        images = tuple(other.image for other in neighbours)
        return dataclasses.replace(item, snippet=Snippet(images, matrix, motions, self.rule.intrinsics.mirrored))

    def _matrix(self, item: Item) -> npt.NDArray[np.float64]:
        height, width = item.image.shape[:2]
        kind = self.rule.intrinsics.kind
        camera = item.camera if kind in ("auto", "data") else None
        if camera is None and kind != "constant" and self.rule.camera is not None:
            camera = self.rule.camera
            if (camera.width, camera.height) != (width, height):
                camera = camera.resize(width, height)
        if camera is not None:
            return camera.matrix
        given = self.rule.intrinsics
        return np.array(
            [[given.fx * width, 0.0, given.cx * width], [0.0, given.fy * height, given.cy * height], [0.0, 0.0, 1.0]]
        )

    def _check_camera(self, clip: Clip, index: int) -> None:
        given = self.rule.intrinsics
        if given.kind == "learned":
            self._note("the intrinsics are learnt with the motion")
            return
        if given.kind == "constant":
            self._note(f"the intrinsics are taken to be {_told(given)}, whatever the data say")
            return
        camera = (clip.view or clip.load)(index).camera or self.rule.camera
        if camera is None and given.kind == "data":
            raise InputError(
                f"The intrinsics of '{clip.label}' are not known",
                why="video.intrinsics.kind is data, and a picture is rebuilt through its camera.",
                fix="Give video.intrinsics.file=CAMERA.json, the numbers with video.intrinsics.kind=constant, "
                "or video.intrinsics.kind=learned.",
                error_id="video.intrinsics",
            )
        if camera is None:
            self._note(f"the intrinsics of '{clip.label}' are not known: taken to be {_told(given)}")
        elif camera.model is CameraModel.FISHEYE:
            raise InputError(
                f"'{clip.label}' was taken through a fisheye lens",
                why="Pictures are rebuilt through a pinhole camera, which bends its rays at the border by many pixels.",
                fix="Remap the frames to a pinhole camera first, or set video.intrinsics.kind=constant to go on.",
                error_id="video.camera-model",
            )
        elif any(camera.distortion):
            self._note(f"the lens distortion of '{clip.label}' is left out of the warps")

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _nothing(self, reasons: Sequence[tuple[str, str]]) -> InputError:
        whys = {why for _, why in reasons} or {"too-short"}
        named = ", ".join(f"'{label}'" for label, _ in reasons[:3]) + (", ..." if len(reasons) > 3 else "")
        needed = max(0, *self.rule.offsets) - min(0, *self.rule.offsets) + 1
        if whys == {"static"}:
            return InputError(
                f"Nothing moves in {named}",
                why=f"Neighbouring frames differ by less than {self.rule.static_below:g} grey levels; depth is learnt "
                "from what moves.",
                fix="Give footage with a moving camera, frames farther apart (video.offsets=[-5,5]), or "
                "video.static_below=0 to go on anyway.",
                error_id="video.static",
            )
        if whys == {"no-order"}:
            return InputError(
                f"{named} holds single views, no video",
                why="Self-supervision needs to know which pictures follow each other.",
                fix="Give a data set with sequences, a video file (video:FILE), a folder of frames (frames:FOLDER), or "
                "phantom shards with motion ('endolux phantom --motion mixed --shards').",
                error_id="video.no-order",
            )
        if "listed" in whys and whys <= {"listed", "too-short", "no-order"}:
            return InputError(
                f"None of the listed frames has its neighbours in {named}",
                why="video.listed names what is learnt from, and every such frame needs its neighbours.",
                fix="Check that list and data belong together.",
                error_id="video.listed",
            )
        return InputError(
            f"No frame with its neighbours in {named}",
            why=f"A snippet of offsets {list(self.rule.offsets)} needs {needed} frames in a row.",
            fix="Give longer clips, or offsets that are closer (video.offsets=[1]).",
            error_id="video.too-short",
        )


_REASONS = {
    "no-order": "single views",
    "too-short": "no frame has its neighbours",
    "listed": "none of its frames is listed",
    "static": "nothing moves",
}


def _motion(clip: Clip, rows: Sequence[tuple[int, tuple[int, ...]]]) -> float:
    """Grey levels by which neighbours differ: the largest of several snippets, so that a pause does not condemn."""
    chosen = sorted({number * (len(rows) - 1) // max(1, _PAIRS - 1) for number in range(_PAIRS)})
    found = []
    for number in chosen:
        index, others = rows[number]
        try:
            one, other = (_coarse((clip.view or clip.load)(place).image) for place in (index, others[0]))
        except InputError:
            # What cannot be read is counted and named when it is trained on.
            continue
        if one.shape == other.shape:
            found.append(float(np.abs(one - other).mean()))
    return max(found, default=np.inf)


def _coarse(image: ImageArray) -> npt.NDArray[np.float32]:
    size = max(1, image.shape[1] // _BLOCK), max(1, image.shape[0] // _BLOCK)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


def _short(key: str) -> str:
    """``SEQUENCE INDEX`` of a frame's name, without data set and side."""
    return " ".join(key.rpartition(":")[2].split()[:2])


def _told(given: Intrinsics) -> str:
    return f"fx={given.fx:g} and cx={given.cx:g} widths, fy={given.fy:g} and cy={given.cy:g} heights"
