"""Protocols of Hamlyn: which frames, which crop and which range each publication scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from endolux.datasets.base import FrameKey, Protocol, protocol
from endolux.datasets.splits import no_list, not_empty
from endolux.geometry.align import Alignment

_LEFT_OUT = "rectified09"


def _without_09(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
    chosen = [key for key in _left(keys, split) if key.sequence != _LEFT_OUT]
    return not_empty(chosen, f"the sequences other than {_LEFT_OUT}")


def _left(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
    no_list(split)
    return not_empty([key for key in keys if key.side == "left"], "the left camera")


_scaled = partial(Protocol, version=1, clamp_prediction=True, alignment=Alignment.MEDIAN)
protocol(
    _scaled(
        name="hamlyn-edm",
        dataset="hamlyn",
        summary="Left frames of all sequences but rectified09, no crop, median scaling per frame, 1 to 300 mm.",
        source="Endo-Depth-and-Motion (arXiv 2103.16525)",
        select=_without_09,
        minimum=1.0,
        maximum=300.0,
    )
)
protocol(
    _scaled(
        name="hamlyn-endoomni",
        dataset="hamlyn-content",
        summary="Left frames of all sequences but rectified09, black borders cropped, median scaling, 1 to 150 mm.",
        source="EndoOmni; EndoDAC has AbsRel 0.138 in its table and 0.156 under hamlyn-endodac",
        select=_without_09,
        minimum=1.0,
        maximum=150.0,
        reproduce=("strict-maximum",),
    )
)
protocol(
    _scaled(
        name="hamlyn-endodac",
        dataset="hamlyn-endodac",
        summary="Left frames with a full stereo pair and depth, EndoDAC's crop, median scaling, 0.001 to 150 mm.",
        source="EndoDAC (arXiv 2405.08672), EndoMUST, MonoIIF",
        select=_left,
        minimum=1e-3,
        maximum=150.0,
        unusable="left-out",
        reproduce=("strict-maximum",),
    )
)
