"""Figures in an HTML page that opens from a file: plotly.js is in it once, the small bundle where it suffices."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

BUNDLE = Path(__file__).with_name("javascript") / "plotly-basic.min.js.gz"
"""plotly.js's own basic bundle, of the version that the package plotly brings; a test holds the two together"""
IN_BUNDLE = frozenset({"scatter", "bar", "pie"})
"""Kinds of traces that it draws"""
LETTER, SIGN, LINE = 6.5, 48, 21
"""Pixels: a letter of the key, what stands before and behind a name of it, and a line of it"""
NARROW = 640
"""Width for which room is left for the key: on a wider screen it takes fewer lines"""


def script(figures: Sequence[go.Figure]) -> str:
    """The ``<script>`` that draws `figures`; nothing where there are none."""
    if not figures:
        return ""
    kinds = {trace.type for figure in figures for trace in figure.data}
    return f"<script>{_basic() if kinds <= IN_BUNDLE else get_plotlyjs()}</script>"


def drawn(figure: go.Figure) -> str:
    """A figure's place and what fills it once `script` is there: on white, with room for its key and its axes' titles.

    What the dashboard's own theme gives a chart, a page without it has to say itself.
    """
    light = go.Figure(figure).update_layout(template="plotly_white", font={"family": "system-ui, sans-serif"})
    names = [trace.name for trace in light.data if trace.name and trace.showlegend is not False]
    shown = light.layout.showlegend is not False and (len(names) > 1 or light.layout.showlegend)
    lines = math.ceil(sum(LETTER * len(name) + SIGN for name in names) / NARROW) if shown else 0
    below = 58 + LINE * lines  # ticks and the axis' title, then the key
    margin = light.layout.margin
    height = (light.layout.height or 450) + below - (margin.b or 0)
    light.update_layout(margin={"b": below, "l": max(margin.l or 0, 64)}, height=height)
    if shown:
        key = {"orientation": "h", "yref": "container", "y": 0.005, "yanchor": "bottom", "x": 0, "maxheight": 0.5}
        light.update_layout(showlegend=True, legend=key)
    config = {"displaylogo": False, "responsive": True}
    return light.to_html(full_html=False, include_plotlyjs=False, default_width="100%", config=config)


@cache
def _basic() -> str:
    return gzip.decompress(BUNDLE.read_bytes()).decode()
