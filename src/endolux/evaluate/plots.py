"""Plots as inline SVG: plain functions from numbers to text, without a script or a font of their own."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 26, 40
_ROW = 22


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Round numbers that span an interval.

    Example:
        >>> ticks(0.0, 0.93)
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def sorted_curve(values: Sequence[float], *, title: str, label: str) -> str:
    """Every frame's value in ascending order: how many frames are how bad, with the mean and the median marked.

    Args:
        values: one a frame; NaN is left out.
        title: above the plot.
        label: of the vertical axis.
    """
    present = sorted(value for value in values if math.isfinite(value))
    if not present:
        return _empty(title)
    top = present[-1] or 1.0
    inner_w, inner_h = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    last = max(len(present) - 1, 1)
    # Thousands of points in a few hundred pixels: every n-th, and always the last, which is the worst frame.
    step = max(1, len(present) // 600)
    chosen = sorted({*range(0, len(present), step), len(present) - 1})
    points = " ".join(f"{_LEFT + inner_w * i / last:.1f},{_TOP + inner_h * (1 - present[i] / top):.1f}" for i in chosen)
    mean = sum(present) / len(present)
    middle = 0.5 * (present[(len(present) - 1) // 2] + present[len(present) // 2])
    marks = [
        f'<line class="mark" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="note" x="{_LEFT + 6}" y="{y - 4:.1f}">{name} {value:.4g}</text>'
        for name, value, y in (("mean", mean, _TOP + inner_h * (1 - mean / top)),)
    ]
    ends = f"1 to {len(present)}, best to worst; median {middle:.4g}"
    body = _grid(0.0, top, inner_w, inner_h) + f'<polyline class="curve" points="{points}"/>' + "".join(marks)
    return _svg(title, body, x_label=f"frames {ends}", y_label=label)


def histogram(values: Sequence[float], *, title: str, label: str, bins: int = 40) -> str:
    """How often each value occurs. Arguments as in :func:`sorted_curve`; ``label`` belongs to the horizontal axis."""
    present = [value for value in values if math.isfinite(value)]
    if not present:
        return _empty(title)
    low, high = 0.0 if min(present) >= 0 else min(present), max(present)
    high = high if high > low else low + 1.0
    counts = [0] * bins
    for value in present:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    inner_w, inner_h = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    top = float(max(counts))
    width = inner_w / bins
    bars = "".join(
        f'<rect class="bar" x="{_LEFT + n * width:.1f}" y="{_TOP + inner_h * (1 - count / top):.1f}" '
        f'width="{max(width - 1, 0.5):.1f}" height="{inner_h * count / top:.1f}"/>'
        for n, count in enumerate(counts)
        if count
    )
    marks = "".join(
        f'<text class="tick" x="{_LEFT + inner_w * (t - low) / (high - low):.1f}" y="{HEIGHT - _BOTTOM + 15}" '
        f'text-anchor="middle">{t:g}</text>'
        for t in ticks(low, high)
    )
    return _svg(title, _grid(0.0, top, inner_w, inner_h) + bars + marks, x_label=label, y_label="frames")


def dots(rows: Sequence[tuple[str, float, float, float]], *, title: str, label: str, limit: int = 40) -> str:
    """One line a name: a dot at its value and a bar over its spread.

    Args:
        rows: (name, value, low, high); NaN values are left out, NaN bounds draw no bar.
        title: above the plot.
        label: of the horizontal axis.
        limit: rows drawn at most, the highest values first; the rest is counted in a note.
    """
    present = [row for row in rows if math.isfinite(row[1])]
    if not present:
        return _empty(title)
    shown = sorted(present, key=lambda row: -row[1])[:limit]
    high = max(max(row[1], row[3] if math.isfinite(row[3]) else row[1]) for row in shown) or 1.0
    left = 190
    inner_w = WIDTH - left - _RIGHT - 50
    height = _TOP + _ROW * len(shown) + _BOTTOM
    parts = []
    for tick in ticks(0.0, high):
        x = left + inner_w * tick / high
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - _BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for number, (name, value, lower, upper) in enumerate(shown):
        y = _TOP + _ROW * (number + 0.5)
        text = name if len(name) <= 28 else f"...{name[-25:]}"
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_safe(text)}</text>')
        if math.isfinite(lower) and math.isfinite(upper):
            a, b = left + inner_w * max(lower, 0.0) / high, left + inner_w * upper / high
            parts.append(f'<line class="span" x1="{a:.1f}" x2="{b:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{left + inner_w * value / high:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    more = f" ({len(present) - len(shown)} more not drawn)" if len(present) > len(shown) else ""
    return _svg(title + more, "".join(parts), x_label=label, y_label="", height=height)


def colour_bar(colours: Sequence[str], *, low: str, middle: str, high: str) -> str:
    """A horizontal colour scale with three captions.

    Args:
        colours: CSS colours from the low to the high end, evenly spaced.
        low: caption of the low end.
        middle: caption of the middle.
        high: caption of the high end.
    """
    stops = "".join(
        f'<stop offset="{100 * n / max(len(colours) - 1, 1):.1f}%" stop-color="{_safe(colour)}"/>'
        for n, colour in enumerate(colours)
    )
    return (
        f'<svg class="scale" viewBox="0 0 {WIDTH} 40" role="img" aria-label="colour scale">'
        f'<defs><linearGradient id="scale">{stops}</linearGradient></defs>'
        f'<rect x="0" y="2" width="{WIDTH}" height="14" fill="url(#scale)"/>'
        f'<text class="tick" x="0" y="32">{_safe(low)}</text>'
        f'<text class="tick" x="{WIDTH / 2}" y="32" text-anchor="middle">{_safe(middle)}</text>'
        f'<text class="tick" x="{WIDTH}" y="32" text-anchor="end">{_safe(high)}</text></svg>'
    )


def _grid(low: float, high: float, inner_w: float, inner_h: float) -> str:
    parts = []
    for tick in ticks(low, high):
        y = _TOP + inner_h * (1 - (tick - low) / (high - low))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + inner_w}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return "".join(parts)


def _svg(title: str, body: str, *, x_label: str, y_label: str, height: int = HEIGHT) -> str:
    middle = (_TOP + height - _BOTTOM) / 2
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(title)}">'
        f'<text class="title" x="{WIDTH / 2}" y="16" text-anchor="middle">{_safe(title)}</text>{body}'
        f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{height - 8}" text-anchor="middle">'
        f"{_safe(x_label)}</text>"
        f'<text class="label" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{_safe(y_label)}</text></svg>"
    )


def _empty(title: str) -> str:
    return _svg(title, f'<text class="note" x="{WIDTH / 2}" y="{HEIGHT / 2}">no values</text>', x_label="", y_label="")


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
