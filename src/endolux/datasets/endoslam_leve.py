"""EndoSLAM as Leve scores it: the stored eight bits over 255 and a millionth, taken for metres and for depth.

Sources: Ozyoruk et al. 2021 (data), the evaluation of Leve 2024. That reading is a mistake on two counts, kept here so
that its figures can be repeated: the stored values have no unit, and near tissue is bright in them (see
:mod:`endolux.datasets.endoslam`), so depth runs the wrong way. A stored 0 becomes 1e-6 m and counts, which makes
relative errors of 30 and more. Which 600 frames were scored is not published: a folder with ``frames`` and ``depths``
is taken as such a choice, paired by sorted order, and UnityCam itself is read whole.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.colondepth import read_first_channel
from endolux.datasets.decode import wrong_size
from endolux.datasets.endoslam_files import LAYOUT, list_organs
from endolux.datasets.findings import information, published_count
from endolux.datasets.listing import DepthDataset, Entry
from endolux.datasets.ratio_notes import RATIO_NOTES
from endolux.datasets.splits import every_frame
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import DepthKind, DepthMap, Frame

FRAMES = 600
SUBSET = "subset"
"""Sequence of the frames of a folder with ``frames`` and ``depths``."""
_OFFSET_M = 1e-6
_SUFFIXES = (".png", ".jpg", ".jpeg")


class EndoslamLeveDataset(DepthDataset[Entry]):
    """UnityCam, or a choice of it, with depth = stored value / 255 + 1e-6 m everywhere.

    Raises:
        InputError: ``dataset.empty``; ``dataset.unpaired`` where ``frames`` and ``depths`` hold different numbers.
    """

    def __init__(self, root: Path) -> None:
        entries = _list_subset(root)
        findings: list[Finding] = []
        if not entries:
            organs, findings = list_organs(root)
            entries = {key: Entry(files.image, files.depth) for key, files in organs.items()}
        layout = f"frames/NAME.png with as many depths/NAME.png, or as {LAYOUT}"
        super().__init__(name="endoslam-leve", root=root, entries=entries, layout=layout, findings=findings)

    @override
    def read(self, key: FrameKey, entry: Entry) -> Sample:
        image = read_pixels(entry.image)
        frame = Frame(image=image, index=self.position(key), name=str(key))
        if entry.depth is None:
            return Sample(key=key, frame=frame)
        codes = read_first_channel(entry.depth)
        if codes.shape != image.shape[:2]:
            raise wrong_size(printable(entry.depth), (codes.shape[1], codes.shape[0]), frame.size, "its picture")
        metres = codes.astype(np.float64) / 255.0 + _OFFSET_M
        values = (1000.0 * metres).astype(np.float32)
        depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=np.ones(values.shape, np.bool_))
        return Sample(key=key, frame=frame, depth=depth)

    @override
    def check_set(self) -> list[Finding]:
        return [
            published_count(len(self.keys()), FRAMES, "frames of Leve's choice"),
            information("depth.unit", "Values are taken for metres as Leve does; the set has no unit."),
        ]

    # Bright means near in what is stored, and here it is read as far.
    lit_by_camera = False


def _list_subset(root: Path) -> dict[FrameKey, Entry]:
    if not ((root / "frames").is_dir() and (root / "depths").is_dir()):
        return {}
    images, depths = _pictures(root / "frames"), _pictures(root / "depths")
    if len(images) != len(depths):
        raise InputError(
            f"'{printable(root)}' holds {len(images)} frames and {len(depths)} depths",
            why="They belong together by their order alone, and one missing file would shift all that follow.",
            fix="Copy the missing files.",
            error_id="dataset.unpaired",
        )
    pairs = zip(images, depths, strict=True)
    return {FrameKey(sequence=SUBSET, index=i): Entry(image, depth) for i, (image, depth) in enumerate(pairs)}


def _pictures(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural_key(path.name))


@reader("endoslam-leve")
def open_endoslam_leve(root: Path) -> EndoslamLeveDataset:
    """Open EndoSLAM as Leve scores it."""
    return EndoslamLeveDataset(root)


protocol(
    Protocol(
        name="endoslam-leve",
        version=1,
        dataset="endoslam-leve",
        summary="As Leve scores: stored value / 255 + 1e-6 as metres, rows, columns 0..319, no scaling, with mirrors",
        source="Evaluation of Leve 2024; wrong in unit and direction, for repeating its figures only",
        select=every_frame,
        expected_frames=FRAMES,
        alignment=Alignment.NONE,
        crop_pixels=(0, 320, 0, 320),
        reproduce=("rmse-log-base-10", "mirrored-entries"),
        unit="m",
        extra_metrics=("mae",),
        ratio_maximum=1.0,
        whole_picture=True,
        notes=RATIO_NOTES,
    )
)
