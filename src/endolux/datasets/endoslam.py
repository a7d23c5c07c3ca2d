"""EndoSLAM, its UnityCam part: rendered stomach, small intestine and colon with coarse 8-bit depth.

Source: Ozyoruk et al. 2021, "EndoSLAM dataset and an unsupervised monocular visual odometry and depth estimation
approach for endoscopic videos". The depth has no unit, eight bits (mostly values below 70), and its sign is not
documented: whether a large value is far or near is therefore *measured* per organ, from the brightness that a light at
the camera makes (:func:`polarity_test`). Depth comes out as relative depth, never in mm.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, Severity, protocol, reader
from endolux.datasets.brightness import brightness_correlation
from endolux.datasets.colondepth import read_first_channel
from endolux.datasets.decode import matrix_of, read_text, wrong_size
from endolux.datasets.endoslam_files import LAYOUT, ORGANS, OrganFiles, list_organs
from endolux.datasets.findings import information, published_count
from endolux.datasets.listing import DepthDataset, pinhole, pose_rows
from endolux.datasets.simcol3d import engine_pose
from endolux.datasets.splits import every_frame
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.types import Camera, DepthKind, DepthMap, Frame

POLARITY_FRAMES = 200
POLARITY_LEAST = 0.1
COARSE_CODE = 5
"""Below this value rounding alone makes an error of more than 10 %."""

_SIZE = (320, 320)


class Polarity(enum.StrEnum):
    """What a large stored value means."""

    DEPTH = "depth"
    """Far."""
    INVERSE = "inverse"
    """Near."""
    UNCLEAR = "unclear"
    """Brightness does not tell."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolarityTest:
    """Outcome of the polarity test.

    Attributes:
        polarity: verdict.
        correlation: mean over frames of the correlation of luminance with the stored value; NaN without any.
        frames: number of frames that entered.
    """

    polarity: Polarity
    correlation: float
    frames: int


def polarity_test(correlations: Sequence[float], *, least: float = POLARITY_LEAST) -> PolarityTest:
    """Decide what stored values mean from their correlation with luminance, a number a frame.

    A light at the camera makes the near bright: negative means depth, positive means inverse depth, and a mean below
    ``least`` in size means that nobody can tell.

    Example:
        >>> polarity_test([0.6, 0.7]).polarity.value, polarity_test([0.3, -0.3]).polarity.value
        ('inverse', 'unclear')
    """
    finite = [value for value in correlations if np.isfinite(value)]
    mean = float(np.mean(finite)) if finite else float("nan")
    verdict = Polarity.UNCLEAR
    if abs(mean) >= least:
        verdict = Polarity.INVERSE if mean > 0 else Polarity.DEPTH
    return PolarityTest(polarity=verdict, correlation=mean, frames=len(finite))


class EndoslamUnityDataset(DepthDataset[OrganFiles]):
    """UnityCam on disk: the part as a whole, or one organ. Sequences are the organs in lower case.

    References are RELATIVE_DEPTH: the stored value, or one over it where the polarity test says inverse. Poses have
    the unit of the engine, in OpenCV's axes.

    Args:
        root: folder.
        polarity: what stored values mean, None to measure it for each organ when its first frame is read.
        least_code: stored values below it are left out and counted as ``coarse``.
        name: registry name.

    Raises:
        InputError: ``dataset.empty``; from ``load``, ``endoslam.polarity`` where the test finds no answer.
    """

    def __init__(
        self, root: Path, *, polarity: Polarity | None = None, least_code: int = 1, name: str = "endoslam-unity"
    ) -> None:
        self._given = polarity
        self._least = least_code
        self._tests: dict[str, PolarityTest] = {}
        self._cameras: dict[Path, npt.NDArray[np.float64]] = {}
        self._poses: dict[Path, list[npt.NDArray[np.float64]]] = {}
        entries, findings = list_organs(root)
        super().__init__(name=name, root=root, entries=entries, layout=LAYOUT, findings=findings)

    @override
    def read(self, key: FrameKey, entry: OrganFiles) -> Sample:
        frame, codes = self._stored(key, entry)
        pose = self._pose(key, entry)
        if codes is None:
            return Sample(key=key, frame=frame, pose=pose)
        polarity = self._given or self.polarity(key.sequence).polarity
        if polarity is Polarity.UNCLEAR:
            raise self._unclear(key.sequence)
        coarse = (codes > 0) & (codes < self._least)
        valid = (codes > 0) & ~coarse
        values = np.where(valid, codes, 1).astype(np.float32)
        if polarity is Polarity.INVERSE:
            values = (1 / values).astype(np.float32)
        values[~valid] = 0.0
        depth = DepthMap(values=values, kind=DepthKind.RELATIVE_DEPTH, valid=valid, camera=frame.camera)
        count = int(np.count_nonzero(coarse))
        return Sample(key=key, frame=frame, depth=depth, pose=pose, excluded={"coarse": count} if count else {})

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        entry = self.entry(key)
        return [*super().files(key), *(path for path in (entry.poses, entry.calibration) if path is not None)]

    def polarity(self, organ: str) -> PolarityTest:
        """The polarity test of one organ, over at most 200 of its frames; remembered.

        Frames that cannot be read do not enter.
        """
        if organ not in self._tests:
            keys = [key for key in self.keys() if key.sequence == organ and self.entry(key).depth is not None]
            if len(keys) > POLARITY_FRAMES:
                keys = [keys[i * len(keys) // POLARITY_FRAMES] for i in range(POLARITY_FRAMES)]
            found: list[float] = []
            for key in keys:
                try:
                    frame, codes = self._stored(key, self.entry(key))
                except InputError:  # a damaged frame says so when it is loaded, and not for the others
                    continue
                if codes is not None:
                    values = codes.astype(np.float32)
                    plain = DepthMap(values=values, kind=DepthKind.RELATIVE_DEPTH, valid=codes > 0)
                    found.append(brightness_correlation(frame.image, plain))
            self._tests[organ] = polarity_test(found)
        return self._tests[organ]

    @override
    def check_set(self) -> list[Finding]:
        found: list[Finding] = []
        for organ in dict.fromkeys(key.sequence for key in self.keys()):
            frames = sum(key.sequence == organ for key in self.keys())
            if organ in ORGANS:
                found.append(published_count(frames, ORGANS[organ], f"frames of the {organ}"))
            test = self.polarity(organ)
            text = f"{organ}: luminance and stored value correlate by {test.correlation:+.2f} over {test.frames} frames"
            if test.polarity is Polarity.UNCLEAR:
                found.append(
                    Finding(
                        severity=Severity.ERROR,
                        code="depth.polarity",
                        message=f"{text}; whether a large value is far or near cannot be told.",
                        fix="Look at a pair, and open the set with EndoslamUnityDataset(path, polarity=...).",
                    )
                )
            else:
                meaning = "near (inverse depth)" if test.polarity is Polarity.INVERSE else "far (depth)"
                found.append(information("depth.polarity", f"{text}: a large value is {meaning}."))
        found.append(
            information("depth.alignment", "Pictures and depth of this set are reported not to match at edges exactly.")
        )
        return found

    # The test above says it per organ, and before the values are turned round.
    lit_by_camera = False

    def _stored(self, key: FrameKey, entry: OrganFiles) -> tuple[Frame, npt.NDArray[np.uint8] | None]:
        image = read_pixels(entry.image)
        camera = self._camera(entry.calibration, (image.shape[1], image.shape[0]))
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        if entry.depth is None:
            return frame, None
        codes = read_first_channel(entry.depth)
        if codes.shape != image.shape[:2]:
            raise wrong_size(printable(entry.depth), (codes.shape[1], codes.shape[0]), frame.size, "its picture")
        return frame, codes

    def _camera(self, path: Path | None, size: tuple[int, int]) -> Camera | None:
        if path is None:
            return None
        if path not in self._cameras:
            numbers = [float(text) for text in re.findall(r"[-+.\deE]+", read_text(path)) if _is_number(text)]
            self._cameras[path] = matrix_of(numbers, (3, 3), f"'{printable(path)}'")
        camera = pinhole(*_SIZE, self._cameras[path])
        return camera if size == _SIZE else camera.resize(*size)

    def _pose(self, key: FrameKey, entry: OrganFiles) -> npt.NDArray[np.float64] | None:
        if entry.poses is None:
            return None
        if entry.poses not in self._poses:
            self._poses[entry.poses] = pose_rows(entry.poses, columns=7)[0]
        rows = self._poses[entry.poses]
        return engine_pose(rows[key.index][:3], rows[key.index][3:7]) if key.index < len(rows) else None

    def _unclear(self, organ: str) -> InputError:
        return InputError(
            f"Whether large depth values of '{organ}' are far or near cannot be told",
            why=f"Luminance and stored value correlate by only {self.polarity(organ).correlation:+.2f}; the set does "
            "not document the sign, and a wrong guess turns every score round.",
            fix="Look at a pair, and open the set with EndoslamUnityDataset(path, polarity=...).",
            error_id="endoslam.polarity",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@reader("endoslam-unity")
def open_endoslam_unity(root: Path) -> EndoslamUnityDataset:
    """Open EndoSLAM's UnityCam."""
    return EndoslamUnityDataset(root)


@reader("endoslam-unity-fine")
def open_fine(root: Path) -> EndoslamUnityDataset:
    """Open EndoSLAM's UnityCam without the stored values below 5, which are too coarse to score."""
    return EndoslamUnityDataset(root, least_code=COARSE_CODE, name="endoslam-unity-fine")


def _register(
    name: str, summary: str, *, alignment: Alignment, reproduce: tuple[str, ...] = (), fine: bool = False
) -> None:
    protocol(
        Protocol(
            name=name,
            version=1,
            dataset="endoslam-unity-fine" if fine else "endoslam-unity",
            summary=summary,
            source="Lou et al. 2024, Surgical Depth Anything, equations 1 to 3; polarity measured",
            select=every_frame,
            expected_frames=sum(ORGANS.values()),
            alignment=alignment,
            reproduce=reproduce,
            unit="none",
            baselines=("constant",),
            floor=1e-6 if alignment is Alignment.MEDIAN else 0.0,
        )
    )


_register("endoslam-unity", "Models that give depth: median scaling, per organ", alignment=Alignment.MEDIAN)
_register(
    "endoslam-unity-p0",
    "Disparity scored as if it were depth, as the printed baselines probably were; median scaling",
    alignment=Alignment.MEDIAN,
    reproduce=("disparity-as-depth",),
)
_register(
    "endoslam-unity-p1",
    "Models that give disparity: inverted with zero shift, then median scaling",
    alignment=Alignment.MEDIAN,
    reproduce=("inverse-disparity-as-depth",),
)
_register(
    "endoslam-unity-p2",
    "Scale and shift fitted in inverse depth; two parameters, so it does not compare with the others",
    alignment=Alignment.SCALE_SHIFT_DISPARITY,
    reproduce=("disparity-floor-half",),
)
_register(
    "endoslam-unity-p2-depth",
    "Scale and shift fitted in depth; two parameters, so it does not compare with the others",
    alignment=Alignment.SCALE_SHIFT_DEPTH,
)
_register(
    "endoslam-unity-fine",
    "As endoslam-unity, without the stored values below 5, where rounding alone exceeds 10 %",
    alignment=Alignment.MEDIAN,
    fine=True,
)
