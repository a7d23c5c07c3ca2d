"""Protocols of C3VD: the splits, windows and scalings that publications use."""

from __future__ import annotations

from functools import partial

from endolux.datasets.base import Averaging, Protocol, protocol
from endolux.datasets.c3vd import FRAMES
from endolux.datasets.splits import every_frame, sequences
from endolux.geometry.align import Alignment

TRANSVERSE = ("trans_t1_a", "trans_t1_b", "trans_t2_a", "trans_t2_b", "trans_t2_c", "trans_t3_a", "trans_t3_b")
PPSNET = (
    "cecum_t1_a", "cecum_t2_a", "cecum_t3_a", "sigmoid_t3_a",
    "trans_t2_a", "trans_t3_a", "trans_t4_a", "desc_t4_a_p2|desc_t4_a",
)  # fmt: skip
ENDOOMNI_VALIDATION = ("cecum_t4_b", "sigmoid_t3_a", "trans_t2_c")

_PAPER = "Bobrow et al. 2023"
_of_c3vd = partial(Protocol, version=1, dataset="c3vd", minimum=1e-3, maximum=100.0, clamp_prediction=True)
"""What all of them share unless they say otherwise."""

protocol(
    _of_c3vd(
        name="c3vd",
        summary="All 22 registered videos, whole fish-eye frames, median scaling, below 100 mm",
        source=_PAPER,
        select=every_frame,
        expected_frames=FRAMES,
    )
)
protocol(
    _of_c3vd(
        name="c3vd-endodac",
        dataset="c3vd-window",
        summary="Every frame, pictures cut to 950x720, median scaling, 1e-3..100 mm",
        source="Evaluation of EndoDAC, Cui et al. 2024",
        select=every_frame,
        expected_frames=FRAMES,
        unusable="left-out",
    )
)
protocol(
    _of_c3vd(
        name="c3vd-transverse7",
        dataset="c3vd-window",
        summary="Seven transverse videos (t1 to t3), pictures cut to 950x720, median scaling, mean over videos",
        source="Zero-shot table of MonoIIF",
        select=sequences(*TRANSVERSE),
        averaging=Averaging.SEQUENCE,
    )
)
protocol(
    _of_c3vd(
        name="c3vd-transverse9",
        summary="All nine transverse videos held out, metric depth without scaling",
        source="First split of EndoStreamDepth, 2026",
        select=sequences(*TRANSVERSE, "trans_t4_a", "trans_t4_b"),
        alignment=Alignment.NONE,
    )
)
protocol(
    _of_c3vd(
        name="c3vd-ppsnet8",
        summary="The eight test videos of PPSNet, but with fish-eye frames and median scaling, unlike PPSNet",
        source="Split of PPSNet, Paruchuri et al. 2024",
        select=sequences(*PPSNET),
        averaging=Averaging.SEQUENCE,
    )
)
protocol(
    _of_c3vd(
        name="c3vd-endoomni-val",
        summary="The three validation videos of EndoOmni, median scaling",
        source="Split of EndoOmni",
        select=sequences(*ENDOOMNI_VALIDATION),
    )
)
protocol(
    _of_c3vd(
        name="c3vd-ppsnet",
        dataset="c3vd-ppsnet",
        summary="PPSNet's own: its eight test videos undistorted, 518x518 centre at 384x384, least-median factor",
        source="Evaluation of PPSNet, Paruchuri et al. 2024; its accuracy is within10 here",
        select=sequences(*PPSNET),
        clamp_prediction=False,
        averaging=Averaging.SEQUENCE,
        extra_metrics=("within10",),
        reproduce=("least-median-scale", "rounded-code-1.525um"),
    )
)
