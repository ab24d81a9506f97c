"""Curves as small inline SVG pictures in the page's own colours and fonts, so that dark mode works."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from r1kit.report.metrics import Points

# Placeholder colours that matplotlib writes; `inline` replaces them by the page's variables.
INK, LINE = "#010203", "#020304"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
VARIABLES = {INK: "--muted", LINE: "--line"} | {colour: f"--s{i}" for i, colour in enumerate(SERIES, 1)}


def draw(title: str, curves: Mapping[str, Points], is_share: bool, exact: bool = False) -> str:
    """Raw values thin and pale, under the smoothed line (unless `exact`)."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 8.5}):
        picture = Figure(figsize=(3.4, 1.75), facecolor="none")
        axes = picture.add_axes((0.135, 0.15, 0.85, 0.8), facecolor="none")
        for colour, points in zip(SERIES * 9, curves.values(), strict=False):
            steps, values = [x for x, _ in points], [y for _, y in points]
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(steps, smoothed(values, exact), color=colour, linewidth=1.7, solid_capstyle="round")
            if len(points) == 1:
                axes.plot(steps, values, color=colour, marker="o", markersize=3)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(LINE)
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=INK, pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y, is_share)))
        axes.margins(x=0.01, y=0.08)
        target = io.StringIO()
        canvas: Any = FigureCanvasSVG(picture)
        canvas.print_svg(target, metadata={"Date": None})
    return inline(target.getvalue(), title)


def smoothed(values: Sequence[float], exact: bool = False) -> list[float]:
    """A centred moving average over about a tenth of the run; the window shrinks towards the ends."""
    reach = 0 if exact else len(values) // 20 + (len(values) > 8)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in spans]


def head_and_tail(count: int) -> tuple[int, int]:
    """How many of `count` values the first and the last figure of a course are means of: a tenth and a quarter."""
    return max(1, count // 10), max(1, count // 4)


def first_and_last(values: Sequence[float], exact: bool = False) -> tuple[float, float]:
    """The two figures that describe a course of at least one value everywhere: the means of its head and its tail.

    With `exact` they are the first and the last value.
    """
    head, tail = (1, 1) if exact else head_and_tail(len(values))
    return fmean(values[:head]), fmean(values[-tail:])


def readable_number(value: float, is_share: bool = False) -> str:
    """`97.8 %`, `1,234`, `0.0123`, `3e-06`."""
    if is_share:
        return f"{100 * value:.1f} %"
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def tick(value: float, is_share: bool) -> str:
    if is_share:
        return f"{100 * value:.3g}%"
    size = abs(value)
    if size >= 1000:
        return f"{value / 1000:.4g}k"
    return f"{value:.1e}".replace("e-0", "e-") if 0 < size < 0.001 else f"{value:.3g}"


def inline(svg: str, title: str) -> str:
    """Fit matplotlib's file for use inside a page: no prolog, metadata or addresses, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"\n\s*", "\n", svg).strip()
