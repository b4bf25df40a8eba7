"""Charts as inline SVG.

A chart is some 3 kB of plain shapes that take their colours from the page, so that it follows the page into the dark and onto
paper. matplotlib's SVG has fixed colours and draws text as outlines, some 50 kB each; Vega and Plotly bring a script of 1 MB and
more, and draw nothing where scripts do not run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 236
"""The size of a curve's chart in its own units. Three stand side by side on a desktop, and one fits a phone at the same scale."""
LEFT, RIGHT, TOP, BOTTOM = 34, 14, 10, 30
TICKED = (1, 3, 10, 30, 100)
"""The cut-offs that the axis names."""
NARROWEST = 0.02
"""The narrowest scale of `whiskers`, so that no difference looks large for want of a larger one."""
ROW = 46
"""The height of a row of `whiskers`."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: its class in the style sheet, and metric@k → interval."""

    style: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Mark:
    """One mark of a row of `whiskers`: its class in the style sheet, and its interval."""

    style: str
    interval: Mapping[str, float]


def curve(lines: Sequence[Line], metric: str, cutoffs: Sequence[int], low: float, *, title: str) -> Markup:
    """Draw a metric over k, with a band for the 95% interval of each line. k has a logarithmic scale.

    Args:
        lines: The lines, the most important one last.
        metric: ``recall`` or ``ndcg``.
        cutoffs: The values of k, ascending.
        low: Where the vertical axis starts, between 0 and 1, so that charts side by side can be compared. It ends at 1.
        title: What the chart shows, for those who hear it.
    """
    inner, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(k: int) -> float:
        return LEFT + inner * math.log(k / cutoffs[0]) / math.log(cutoffs[-1] / cutoffs[0])

    def y(value: float) -> float:
        return TOP + tall * (1 - (min(1.0, max(low, value)) - low) / (1 - low))

    parts = []
    step = 0.2 if 1 - low > 0.5 else 0.1
    for number in range(round(low / step), round(1 / step) + 1):
        height = y(number * step)
        parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{100 * number * step:.0f}</text>')
    for k in TICKED:
        parts.append(f'<text class="tick" x="{x(k):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{k}</text>')
    drawn = []
    for line in lines:
        points = [(x(k), line.values[f"{metric}@{k}"]) for k in cutoffs]
        high, mean, low_end = ([f"{place:.1f} {y(at[key]):.1f}" for place, at in points] for key in ("high", "mean", "low"))
        parts.append(f'<path class="band {line.style}" d="M' + "L".join([*high, *reversed(low_end)]) + 'Z"/>')
        drawn.append(f'<path class="line {line.style}" d="M' + "L".join(mean) + '"/>')
    return _svg(WIDTH, HEIGHT, [*parts, *drawn], title)


def whiskers(rows: Sequence[tuple[str, Sequence[Mark]]], *, title: str, zero: bool) -> Markup:
    """Draw a row for each name, with its marks and their 95% intervals, on one scale in points.

    Args:
        rows: A name, and its marks, the most important one last.
        title: What the chart shows, for those who hear it.
        zero: Whether the values are differences, so that 0 has a line.
    """
    intervals = [mark.interval for _, marks in rows for mark in marks]
    low, high = min(i["low"] for i in intervals), max(i["high"] for i in intervals)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    if high - low < NARROWEST:
        low, high = low - NARROWEST / 2, high + NARROWEST / 2
    step = _step(100 * (high - low))
    start, end = step * math.floor(100 * low / step), step * math.ceil(100 * high / step)
    end = end if end > start else start + step
    height = ROW * len(rows) + BOTTOM

    def x(points: float) -> float:
        return RIGHT + (WIDTH - 2 * RIGHT - 8) * (points - start) / (end - start) + 4

    parts = []
    for number in range(round(start / step), round(end / step) + 1):
        place, value = x(number * step), number * step
        style = "grid zero" if zero and number == 0 else "grid"
        label = f"{value:+g}".replace("-", "−") if zero and value else f"{value:g}".replace("-", "−")
        parts.append(f'<path class="{style}" d="M{place:.1f} 0V{height - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{place:.1f}" y="{height - 10}" text-anchor="middle">{label}</text>')
    for row, (name, marks) in enumerate(rows):
        parts.append(f'<text class="name" x="4" y="{row * ROW + 15}">{escape(name)}</text>')
        for number, mark in enumerate(marks):
            at = row * ROW + 26 + (10 * number if len(marks) > 1 else 5)
            one, other, mean = (x(100 * mark.interval[key]) for key in ("low", "high", "mean"))
            parts.append(f'<path class="whisker {mark.style}" d="M{one:.1f} {at}H{other:.1f}"/>')
            parts.append(f'<circle class="dot {mark.style}" cx="{mean:.1f}" cy="{at}" r="4.5"/>')
    return _svg(WIDTH, height, parts, title)


def floor_of(lines: Sequence[Mapping[str, Mapping[str, float]]], metric: str) -> float:
    """Return where an axis starts that shows all values of a metric: 0, 0.2, 0.4, 0.6 or 0.8."""
    lowest = min(at["low"] for values in lines for name, at in values.items() if name.startswith(metric))
    return min(0.8, math.floor(5 * lowest) / 5)


def _step(span: float) -> float:
    """Return a round distance between ticks, so that there are three to six of them."""
    size = 10.0 ** math.floor(math.log10(max(span, 1e-3)))
    return next(size * factor for factor in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (size * factor) <= 6)


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> Markup:
    opening = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(opening + "".join(parts) + "</svg>")  # names and titles are escaped above, and all else is numbers


def lines_of(values: Mapping[str, Any], styles: Mapping[str, str]) -> list[Line]:
    """Return the lines of the sides that were measured, in the order of the styles."""
    return [Line(style, values[side]) for side, style in styles.items() if side in values]
