"""The Pareto picture as plain HTML: every point in its place at once, while the browser still loads the chart's code.

Plotly's code alone takes a browser a second or two. A picture of thousands is shown like this until the chart takes its
place.
"""

from __future__ import annotations

import math
from html import escape
from urllib.parse import quote

import numpy as np
import pandas as pd

from sstmerge_core.plots import pareto_traces as traces
from sstmerge_core.plots.measures import MEASURES, Measure
from sstmerge_core.plots.pareto import limits
from sstmerge_core.plots.style import NEUTRAL, style

GRID = 10_000
"""Places along an axis: finer than any screen"""
POINT, SMALL = 8, 4
"""Diameters in pixels, whatever the picture's size; reported figures, which the chart draws hollow, are small"""
TICKS = 6
"""Labels along an axis, about"""


def preview(shown: pd.DataFrame, x: str, y: str) -> str:
    """HTML that fills its parent, of which the position must be relative: points, axes, no interaction.

    `shown` comes from `pareto.drawable` with the same two axes (columns of `MEASURES`). It takes some 15 bytes a run.
    """
    across, up = MEASURES[x], MEASURES[y]
    lines = [_label(at, text, "x") for at, text in _ticks(shown, across)]
    lines += [_label(at, text, "y") for at, text in _ticks(shown, up)]
    image = f'<img alt="" style="{_FULL}" src="data:image/svg+xml,{_quoted(_points(shown, across, up))}">'
    titles = (
        f'<span style="position:absolute;left:50%;bottom:-44px;transform:translateX(-50%);white-space:nowrap">'
        f"{escape(across.axis_title(True))}</span>"
        f'<span style="position:absolute;left:-46px;top:50%;writing-mode:vertical-rl;white-space:nowrap;'
        f'transform:translateY(-50%) rotate(180deg)">{escape(up.axis_title(False))}</span>'
    )
    return (
        f'<div class="preview" aria-hidden="true" style="{_PLACE};font-size:12px;color:{NEUTRAL}">'
        f"{image}{''.join(lines)}{titles}</div>"
    )


_PLACE = "position:absolute;inset:24px 8px 128px 63px"
"""About where the chart's axes will be, above a legend of three lines"""
_FULL = "position:absolute;inset:0;width:100%;height:100%"


def _quoted(svg: str) -> str:
    """As an address in quotation marks may hold it; `urllib` takes each sign of the megabyte for itself."""
    for sign in '%#<> "':
        svg = svg.replace(sign, quote(sign))
    return svg


def _points(shown: pd.DataFrame, across: Measure, up: Measure) -> str:
    """An SVG that stretches with its place while its points stay round: each is a stroke of no length."""
    low, high = (np.array(ends) for ends in zip(limits(shown, across), limits(shown, up), strict=True))
    values = shown[[across.column, up.column]].to_numpy(dtype=float)
    places = np.rint((values - low) / (high - low) * GRID).astype(int)
    places[:, 1] = GRID - places[:, 1]
    clear, small = (shown["on_front"] | shown["is_reference"]).to_numpy(), shown["source"].eq("reported").to_numpy()
    paths = []
    groups = shown.groupby([clear, small, "method"], sort=False).indices.items()
    for (on_top, reported, method), rows in sorted(groups, key=lambda group: group[0][0]):
        opacity = 1.0 if on_top else traces.FADED
        data = "".join(f"M{left},{top}h0" for left, top in places[rows].tolist())
        paths.append(
            f'<path stroke="{style(str(method)).color}" stroke-opacity="{opacity:g}" '
            f'stroke-width="{SMALL if reported else POINT}" vector-effect="non-scaling-stroke" d="{data}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none">'
        f'<g fill="none" stroke-linecap="round">{"".join(paths)}</g></svg>'
    )


def _ticks(shown: pd.DataFrame, measure: Measure) -> list[tuple[float, str]]:
    """Share of the axis, label; at multiples of 1, 2 or 5 times a power of ten."""
    low, high = limits(shown, measure)
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    values = step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)
    return [((value - low) / (high - low), f"{value:.3g}") for value in values.tolist()]


def _label(at: float, text: str, axis: str) -> str:
    place = (
        f"left:{at:.2%};bottom:-20px;transform:translateX(-50%)"
        if axis == "x"
        else f"right:calc(100% + 6px);bottom:{at:.2%};transform:translateY(50%)"
    )
    return f'<span style="position:absolute;{place}">{text}</span>'
