"""Protocols of SERV-CT: which cameras and which range each publication scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from endolux.datasets.base import FrameKey, Protocol, protocol
from endolux.datasets.splits import no_list, not_empty
from endolux.geometry.align import Alignment


def _frames(sides: tuple[str, ...]) -> Callable[[Sequence[FrameKey], Path | None], Sequence[FrameKey]]:
    def select(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
        no_list(split)
        return not_empty([key for key in keys if key.side in sides], f"the {' and '.join(sides)} camera")

    return select


_scaled = partial(Protocol, version=1, dataset="servct", clamp_prediction=True, alignment=Alignment.MEDIAN)
protocol(
    _scaled(
        name="servct-af",
        summary="The 16 left pictures, CT reference, median scaling per frame, 1 to 180 mm.",
        source="AF-SfMLearner (arXiv 2112.08122), range as its authors state",
        select=_frames(("left",)),
        expected_frames=16,
        minimum=1.0,
        maximum=180.0,
    )
)
protocol(
    _scaled(
        name="servct-endogede",
        summary="The 16 left pictures, CT reference, median scaling per frame, 1 to 200 mm.",
        source="Endo-GeDE (arXiv 2509.01206)",
        select=_frames(("left",)),
        expected_frames=16,
        minimum=1.0,
        maximum=200.0,
    )
)
protocol(
    _scaled(
        name="servct-endoomni",
        summary="All 32 pictures, left and right, CT reference, median scaling per frame, 1 to 150 mm.",
        source="EndoOmni; the original resizes the reference with the picture, here it keeps its size",
        select=_frames(("left", "right")),
        expected_frames=32,
        minimum=1.0,
        maximum=150.0,
    )
)
