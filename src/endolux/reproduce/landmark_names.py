"""What can be measured of a network of landmarks."""

from __future__ import annotations

from collections.abc import Mapping

from endolux.reproduce.metric import Metric

CLASSES = ("ridge", "silhouette", "ligament")
"""Of the liver, in the order of L3D's numbers 1, 2, 3."""

STEP, REFRESH, WIDE = "step", "refresh", "refresh-1728x576"
"""Names in :attr:`~endolux.reproduce.timing.Cost.extra`: a step without a new basis, the new bases of all adapted
matrices, and the one of a matrix as Hiera-L has it."""
TRAINED, ADAPTED, MATRICES, STATE = "trained", "adapted", "matrices", "state bytes"
"""Names in :attr:`~endolux.reproduce.timing.Cost.counts`; the last three are of the image encoder and its optimiser."""

LANDMARK_METRICS: Mapping[str, Metric] = {
    "pooled_dsc": Metric(
        label="DSC",
        higher=True,
        about="DSC and IoU: classes pooled inside a picture, mean over pictures with any class",
    ),
    "pooled_iou": Metric(label="IoU", higher=True),
    "macro_dsc": Metric(
        label="macro DSC", higher=True, about="macro: mean over classes of the mean over pictures with the class"
    ),
    "macro_iou": Metric(label="macro IoU", higher=True),
    "assd": Metric(
        label="ASSD (px)",
        digits=2,
        about="ASSD: mean surface distance of a class, over the pictures where truth and prediction both have it; it "
        "says nothing of what was missed",
    ),
    "miss_rate": Metric(label="missed", about="missed: share of the classes in view that the prediction has none of"),
    "false_alarm_rate": Metric(
        label="false alarms", about="false alarms: share of the classes out of view that the prediction has some of"
    ),
    **{f"dsc_{name}": Metric(label=f"DSC {name}", higher=True) for name in CLASSES},
    **{f"iou_{name}": Metric(label=f"IoU {name}", higher=True) for name in CLASSES},
    **{f"assd_{name}": Metric(label=f"ASSD {name} (px)", digits=2) for name in CLASSES},
    "d2gpland_dsc": Metric(
        label="DSC as published",
        higher=True,
        about="DSC as published: as D2GPLand and SRFT-GaLore code it, a picture without any class counts 1 if left "
        "empty and 0 otherwise",
    ),
    "d2gpland_iou": Metric(label="IoU as published", higher=True),
    "srft_galore_assd": Metric(
        label="ASSD of SRFT-GaLore's code",
        digits=1,
        about="ASSD of SRFT-GaLore's code: of the background mask, 10 units a pixel",
    ),
    "d2gpland_plus_assd": Metric(
        label="ASSD of D2GPLand-Plus's code",
        about="ASSD of D2GPLand-Plus's code: all classes as one volume, 80 where nothing is predicted; the two "
        "published distances measure different things",
    ),
}
"""By name; ``assd`` in pixels of the training pictures."""
