"""All registered protocols as one Markdown page: what each scores, fits, averages and repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping

from endolux.datasets.base import Protocol
from endolux.evaluate.protocol_report import AVERAGING_MEANING, UNUSABLE_MEANING, alignment_meaning
from endolux.evaluate.quirks import LEAST_MEDIAN, QUIRKS

_COLUMNS = ("protocol", "data set", "frames", "range", "window", "alignment", "mean over", "quirks", "what it is")
_HEAD = """# Protocols

This page is made by `endolux data protocols --markdown`; a test holds it to the code. Figures compare only under the
same protocol, version and frame-list hash. A deviation (`--alignment`, `--reproduce`) gives the result another name.

"""


def protocol_page(protocols: Mapping[str, Protocol]) -> str:
    """The page, ending in a line break.

    Args:
        protocols: as :func:`endolux.datasets.protocols` gives them.

    Example:
        >>> from endolux.datasets import protocols
        >>> "| `c3vd/1` |" in protocol_page(protocols())
        True
    """
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_row(one)) + " |" for one in protocols.values()]
    used = [one for one in protocols.values() if one.task == "depth"]
    lines += ["", "## Where each is from", ""]
    lines += [f"* `{one.identity}`: {_cell(one.source)}." for one in protocols.values()]
    notes: dict[str, list[str]] = {}
    for one in protocols.values():
        for text in one.notes:
            notes.setdefault(text, []).append(f"`{one.name}`")
    if notes:
        lines += ["", "## Notes", ""]
        lines += [f"* {text} ({', '.join(names)})" for text, names in notes.items()]
    lines += ["", "## What the words mean", ""]
    meanings = dict.fromkeys(f"`{_alignment(one)}`: {alignment_meaning(one)}" for one in used)
    lines += [f"* Alignment {text}." for text in sorted(meanings)]
    averaging = dict.fromkeys(one.averaging for one in used)
    lines += [f"* Mean over `{one.value}`: {AVERAGING_MEANING[one]}." for one in averaging]
    for way in sorted({one.unusable for one in used}):
        names = [f"`{one.name}`" for one in used if one.unusable == way]
        who = ", ".join(names) if way != "worst" else "all others"
        lines.append(f"* {_upper(UNUSABLE_MEANING[way])} ({who}).")
    lines += [
        "* A window in fractions is of the height (rows) and width (columns); `px` windows end before the second "
        "number and are cut off at the edge of the image.",
        "* `M`: networks that give the ratio M / depth are brought to this largest depth.",
        "",
        "## Quirks",
        "",
        "Repeated where the original has them; a protocol without any is scored as the metrics are defined.",
        "",
    ]
    lines += [f"* `{name}`: {text}." for name, text in sorted(QUIRKS.items())]
    return _HEAD + "\n".join(lines) + "\n"


def _row(one: Protocol) -> tuple[str, ...]:
    frames = str(one.expected_frames) if one.expected_frames is not None else "all"
    if one.task != "depth":
        masks = f"{_cell(one.summary)} (a folder of masks: DSC, IoU, ASSD, HD95)"
        return (f"`{one.identity}`", f"`{one.dataset}`", frames, "-", "-", "-", "frame", "-", masks)
    unit = "" if one.unit in ("", "none") else f" {one.unit}"
    high = "" if math.isinf(one.maximum) else f"{one.maximum:g}"
    limits = f"({one.minimum:g}, {high}]{unit}" if high else (f"> {one.minimum:g}{unit}")
    clamp = ", clamped" if one.clamp_prediction else (f", at least {one.floor:g}" if one.floor else "")
    ratio = f", M = {one.ratio_maximum:g}{unit}" if one.ratio_maximum is not None else ""
    window = "all"
    if one.crop is not None:
        window = "{:.3g}..{:.3g}, {:.3g}..{:.3g}".format(*one.crop)
    if one.crop_pixels is not None:
        window = "px {}..{}, {}..{}".format(*one.crop_pixels)
    extra = f" Also prints {', '.join(one.extra_metrics)}." if one.extra_metrics else ""
    return (
        f"`{one.identity}`",
        f"`{one.dataset}`",
        frames,
        limits + clamp + ratio,
        window,
        _alignment(one),
        one.averaging.value,
        ", ".join(f"`{name}`" for name in one.reproduce) or "-",
        f"{_cell(one.summary).rstrip('.')}.{extra}",
    )


def _alignment(one: Protocol) -> str:
    if one.scope == "sequence":
        return "mean, a sequence"
    return "least-median" if LEAST_MEDIAN in one.reproduce else one.alignment.value


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
