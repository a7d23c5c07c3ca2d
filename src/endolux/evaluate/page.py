"""Parts of a report as one HTML file: page, pictures inside it, tables of failures and conditions; it loads nothing."""

from __future__ import annotations

import base64
import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import cast

import cv2
from pydantic import JsonValue

from endolux.evaluate.provenance import public_text
from endolux.io.sources import Failure
from endolux.types import ImageArray

TILE = 320
_QUALITY = 82
_LISTED = 50

_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:1184px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 4px}
h2{font-size:18px;margin:34px 0 10px;border-bottom:1px solid #d9dee3;padding-bottom:4px}
p.lead{margin:0 0 16px;color:#4c5661}
.warning{background:#fff3cd;border-left:5px solid #d39e00;padding:8px 12px;margin:8px 0;font-weight:600}
table{border-collapse:collapse;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{padding:4px 12px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eceff2}
td.n,th.n{text-align:right}table.figures td,table.figures th{white-space:nowrap}
.scroll{overflow-x:auto}
.plots{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}
svg.plot{width:556px;max-width:100%;height:auto;border:1px solid #eceff2}
svg.scale{width:560px;max-width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:#333}
svg .title{font-size:14px;font-weight:600}svg .tick{font-size:11px;fill:#5b6672}svg .name{font-size:11px}
svg .grid{stroke:#e6e9ed}svg .curve{fill:none;stroke:#1f6fb2;stroke-width:2}svg .bar{fill:#1f6fb2}
svg .mark{stroke:#c0392b;stroke-dasharray:5 4}svg .note{fill:#c0392b}
svg .span{stroke:#9fb6cc;stroke-width:5;stroke-linecap:round}svg .dot{fill:#1f6fb2}
.frame{margin:14px 0 20px}.frame h3{font-size:15px;margin:0 0 6px}
.tiles{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:8px}
figure{margin:0}figure img{width:100%;display:block;background:#000}figcaption{font-size:12px;color:#4c5661}
code{font-size:12px;word-break:break-all}
@media(max-width:760px){.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}}
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One frame as pictures.

    Attributes:
        title: which frame and why it is shown.
        tiles: caption and RGB picture, in order.
        problem: what went wrong if the frame could not be made again.
    """

    title: str
    tiles: tuple[tuple[str, ImageArray], ...] = ()
    problem: str = ""


def whole_page(title: str, *, lead: str, warnings: Sequence[str], body: Sequence[str]) -> str:
    """The file: head, title, lead and warnings as text, then ``body`` as it is.

    Example:
        >>> "<h1>a &lt; b</h1>" in whole_page("a < b", lead="", warnings=[], body=[])
        True
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        # Nothing is fetched, whatever a name from a data set might contain.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{safe(title)}</h1>",
        f'<p class="lead">{safe(lead)}</p>',
        *(f'<p class="warning" role="alert">{safe(text)}</p>' for text in warnings),
        *body,
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def best_median_worst(
    values: Sequence[float], names: Sequence[str], *, count: int, higher_is_better: bool = False
) -> list[tuple[str, int]]:
    """Which frames to show: (best, median or worst, position), every frame at most once.

    Values that are not finite cannot be ranked and are left out; ties go by name.

    Example:
        >>> best_median_worst([0.3, 0.1, 0.2], ["a", "b", "c"], count=1)
        [('best', 1), ('median', 2), ('worst', 0)]
    """
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(
        (position for position, value in enumerate(values) if math.isfinite(value)),
        key=lambda position: (sign * values[position], names[position]),
    )
    total = len(order)
    middle = max(0, (total - count) // 2)
    groups = (
        ("best", range(min(count, total))),
        ("median", range(middle, min(middle + count, total))),
        ("worst", range(total - 1, max(total - 1 - count, -1), -1)),
    )
    chosen: dict[int, str] = {}
    for name, ranks in (groups[0], groups[2], groups[1]):
        for rank in ranks:
            chosen.setdefault(rank, name)
    place = {name: number for number, (name, _) in enumerate(groups)}
    listed = sorted(chosen, key=lambda r: (place[chosen[r]], -r if chosen[r] == "worst" else r))
    return [(chosen[rank], order[rank]) for rank in listed]


def example_html(example: Example) -> str:
    """A row of pictures under its title."""
    if example.problem:
        return f'<div class="frame"><h3>{safe(example.title)}</h3><p>{safe(example.problem)}</p></div>'
    tiles = "".join(
        f'<figure><img alt="{safe(caption)}" src="{jpeg(picture)}"><figcaption>{safe(caption)}</figcaption></figure>'
        for caption, picture in example.tiles
    )
    return f'<div class="frame"><h3>{safe(example.title)}</h3><div class="tiles">{tiles}</div></div>'


def failed_frames(failures: Sequence[Failure]) -> list[str]:
    """What failed, with its reason; nothing where nothing did."""
    if not failures:
        return []
    rows = "".join(
        f"<tr><td>{safe(f.name)}</td><td>{safe(f.error.error_id)}</td><td>{safe(public_text(f.error.what))}</td></tr>"
        for f in failures[:_LISTED]
    )
    more = f"<p>and {len(failures) - _LISTED} more</p>" if len(failures) > _LISTED else ""
    return [f"<h2>Frames that failed</h2><table>{rows}</table>{more}"]


def conditions(content: Mapping[str, JsonValue], sections: Sequence[str]) -> str:
    """Sections of a result's document and its command line as one table."""
    rows = []
    for section in sections:
        for key, value in cast("Mapping[str, JsonValue]", content[section]).items():
            if value is None or value == {} or (key == "name" and section == "protocol"):
                continue
            text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            rows.append(f"<tr><td>{safe(section)}</td><td>{safe(key)}</td><td><code>{safe(text)}</code></td></tr>")
    command = " ".join(str(part) for part in cast("list[JsonValue]", content["command"]))
    if command:
        rows.append(f"<tr><td>command</td><td></td><td><code>{safe(command)}</code></td></tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def small(image: ImageArray, *, smooth: bool = False) -> ImageArray:
    """A picture at most ``TILE`` wide."""
    height, width = image.shape[:2]
    if width <= TILE:
        return image
    size = (TILE, max(1, round(height * TILE / width)))
    result: ImageArray = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST)
    return result


def jpeg(image: ImageArray) -> str:
    """A picture as the address of an ``img`` element."""
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def number(value: JsonValue) -> str:
    """A figure with four digits, - for none."""
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def safe(text: str) -> str:
    """Text that a page can hold."""
    return html.escape(text, quote=True)
