"""A picture of any query's result: which one suits its columns, and drawing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas.api import types

from sstmerge_core.methods.palette import BLUE, BROWN, GREEN, ORANGE, PINK, PURPLE, SKY, VERMILION
from sstmerge_core.plots.measures import MEASURES, number
from sstmerge_core.plots.style import LEGEND, NEUTRAL
from sstmerge_core.plots.style import known as known_methods
from sstmerge_core.plots.style import order as method_order
from sstmerge_core.plots.style import style as method_style

KINDS = ("line", "bar", "stacked bar", "scatter", "histogram")
NONE = "none"
"""The colour column's name where all rows look alike"""
OTHER = "all others"
COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, PINK, BROWN)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
WEBGL_ABOVE = 2_000
"""Points above which a picture is drawn by WebGL"""
BARS = 60
"""Places on a bar chart's axis at most; those that come first in the result"""
LABEL = 22
"""Characters of a bar's label; the whole text is in its hover"""
_ORDERED = ("alpha", "k", "layer", "direction", "idx")
"""Columns that are a curve's x wherever they come with another number"""
_LABELS = ("label", "run", "name", "prompt")


@dataclass(frozen=True)
class Chart:
    """One of `KINDS` over columns of a result."""

    kind: str
    x: str
    y: str
    """Empty for a histogram, which counts."""
    colour: str
    """The column that makes the series; `NONE` for one series."""


@dataclass(frozen=True)
class _Look:
    color: str
    symbol: str
    dash: str


def kinds(frame: pd.DataFrame) -> list[str]:
    """Those of `KINDS` that the columns of `frame` allow; none for a result without rows or of nested values only."""
    if frame.empty:
        return []
    return [kind for kind in KINDS if any(kind == "histogram" or ys(frame, kind, x) for x in xs(frame, kind))]


def xs(frame: pd.DataFrame, kind: str) -> list[str]:
    """Columns that can lie along the x axis."""
    if kind in ("line", "scatter"):
        return [name for name in frame if _is_number(frame[name]) or _is_time(frame[name])]
    return _plain(frame)


def ys(frame: pd.DataFrame, kind: str, x: str) -> list[str]:
    """Columns that can lie along the y axis: numbers, and never the one along x."""
    return [] if kind == "histogram" else [name for name in _numbers(frame) if name != x]


def colours(frame: pd.DataFrame) -> list[str]:
    """Columns that can make the series, and `NONE`."""
    return [NONE, *_plain(frame)]


def usable(frame: pd.DataFrame, wanted: Mapping[str, Any]) -> Chart | None:
    """`wanted` (kind, x, y, colour) as far as `frame` allows it, what suits its columns elsewhere; None: no picture."""
    possible = kinds(frame)
    if not possible:
        return None
    kind = _one_of(possible, wanted.get("kind"), _kind(frame, possible))
    x = _one_of(xs(frame, kind), wanted.get("x"), _x(frame, kind))
    candidates = ys(frame, kind, x)
    y = _one_of(candidates, wanted.get("y"), _y(frame, candidates)) if candidates else ""
    return Chart(kind, x, y, _one_of(colours(frame), wanted.get("colour"), _colour(frame, kind, x)))


def figure(frame: pd.DataFrame, chart: Chart, *, height: int = 430) -> go.Figure:
    """The picture of `frame`'s rows. Rows without a value on an axis are left out; `remarks` says how many.

    A column y with `<y>_low` and `<y>_high` beside it (or ci_low and ci_high beside `value`) gets interval bars.
    """
    rows = _drawn(frame, chart)
    lying = chart.kind in ("bar", "stacked bar") and not _is_number(frame[chart.x]) and not _is_time(frame[chart.x])
    fig = go.Figure()
    series = _series(rows, chart.colour)
    looks = _looks(list(series))
    for name, part in series.items():
        fig.add_trace(_trace(part, chart, name, looks[name], lying, len(rows) > WEBGL_ABOVE, len(series) > 1))
    along: dict[str, Any] = {"title": _title(chart.x, True)}
    up: dict[str, Any] = {"title": _title(chart.y, False) if chart.y else "Rows"}
    if lying:
        along["title"], up["title"] = _title(chart.y, True), None
        labels = _texts(rows[chart.x]).drop_duplicates()
        shortened = [label if len(label) <= LABEL else label[: LABEL - 1] + "…" for label in labels]
        up |= {
            "type": "category",
            "autorange": "reversed",
            "tickvals": labels.tolist(),
            "ticktext": [escape(each) for each in shortened],
        }
        up |= {"categoryorder": "array", "categoryarray": labels.tolist()}
        each = len(series) if chart.kind == "bar" else 1
        height = max(height, 60 + len(labels) * max(20, 9 * each))
    fig.update_layout(
        height=height,
        barmode={"stacked bar": "relative", "histogram": "stack"}.get(chart.kind, "group"),
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
        showlegend=len(series) > 1,
        legend=LEGEND,
        hoverlabel={"align": "left"},
        uirevision=f"{chart}",
    )
    fig.update_xaxes(automargin=True, zeroline=False, **along)
    fig.update_yaxes(automargin=True, zeroline=False, **up)
    return fig


def remarks(frame: pd.DataFrame, chart: Chart) -> list[str]:
    """What a reader of the picture should know: rows left out, values that lie over one another, intervals."""
    rows = _drawn(frame, chart)
    found = []
    if missing := int(_missing(frame, chart).sum()):
        found.append(f"{missing:,} of {len(frame):,} rows have no value on an axis and are left out.")
    if chart.kind in ("bar", "stacked bar") and (places := frame[chart.x].nunique()) > BARS:
        found.append(f"The first {BARS} of {places:,} values of {chart.x} are drawn.")
    keys = [chart.x, *([chart.colour] if chart.colour != NONE else [])]
    if chart.kind in ("line", "bar") and rows.duplicated(list(dict.fromkeys(keys))).any():
        what = "bar" if chart.kind == "bar" else "point of the line"
        found.append(f"Several rows share a {what}: aggregate them in the SQL, or colour by the column that differs.")
    if chart.kind not in ("histogram", "stacked bar") and _interval(rows, chart.y):
        found.append("Thin bars: the intervals of the result.")
    if chart.colour != NONE and OTHER in _series(rows, chart.colour):
        found.append(f"The {len(COLORS)} commonest values of {chart.colour} have a colour of their own.")
    return found


def _drawn(frame: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    rows = frame[~_missing(frame, chart)]
    if chart.kind in ("bar", "stacked bar"):
        rows = rows[rows[chart.x].isin(rows[chart.x].drop_duplicates().head(BARS))]
    return rows.sort_values(chart.x, kind="stable") if chart.kind == "line" else rows


def _missing(frame: pd.DataFrame, chart: Chart) -> pd.Series:
    axes = [chart.x, *([chart.y] if chart.y else [])]
    # a bar's place may be NULL: that is a value of its own
    needed = [chart.y] if chart.kind in ("bar", "stacked bar") and not _is_number(frame[chart.x]) else axes
    return frame[needed].isna().any(axis=1)


def _series(rows: pd.DataFrame, colour: str) -> dict[str, pd.DataFrame]:
    """Rows by the text of their colour column, in a legend's order; the rarest values together as `OTHER`."""
    if colour == NONE or rows.empty:
        return {"": rows}
    texts = _texts(rows[colour])
    names = list(texts.value_counts(sort=True).index)
    if not all(_method(name) for name in names) and len(names) > len(COLORS):
        texts = texts.where(texts.isin(names[: len(COLORS)]), OTHER)
    parts = {str(name): rows[texts == name] for name in texts.drop_duplicates()}
    order = sorted(parts, key=lambda name: (name == OTHER, method_order(_method(name)) if _method(name) else (0, "")))
    return {name: parts[name] for name in order}


def _looks(names: Sequence[str]) -> dict[str, _Look]:
    """A method's own colour for series named after one (``ties``, ``sst_gevp k=20``), else the palette in order."""
    found: dict[str, _Look] = {}
    used: dict[str, int] = {}
    for place, name in enumerate(name for name in names if name != OTHER):
        if method := _method(name):
            style = method_style(method)
            look = _Look(style.color, style.symbol, style.dash)
            if again := used.get(method, 0):  # k=20 and k=60 of one method: the same colour, another dash and symbol
                look = _Look(style.color, SYMBOLS[again % len(SYMBOLS)], DASHES[again % len(DASHES)])
            used[method] = used.get(method, 0) + 1
        else:
            look = _Look(COLORS[place % len(COLORS)], SYMBOLS[place % len(SYMBOLS)], DASHES[place % len(DASHES)])
        found[name] = look
    return found | {OTHER: _Look(NEUTRAL, "circle", "dot")}


def _trace(part: pd.DataFrame, chart: Chart, name: str, look: _Look, lying: bool, large: bool, named: bool) -> Any:
    x = part[chart.x] if _is_number(part[chart.x]) or _is_time(part[chart.x]) else _texts(part[chart.x])
    legend = {"name": escape(name), "legendgroup": name}
    if chart.kind == "histogram":
        return go.Histogram(x=x, marker={"color": look.color}, hovertemplate="%{x}<br>%{y} rows", **legend)
    y = part[chart.y].astype(float)
    label = next((column for column in _LABELS if column in part and column != chart.x), None)
    heads = _texts(part[label]) if label else pd.Series(name, index=part.index)
    hover = [
        "<br>".join(filter(None, (_short(head), f"{chart.x}: {_short(place)}", f"{chart.y}: {number(value)}")))
        for head, place, value in zip(heads, part[chart.x], y, strict=True)
    ]
    common = legend | {"hovertext": hover, "hovertemplate": "%{hovertext}<extra></extra>"}
    error = _error(part, chart.y, y) if chart.kind != "stacked bar" else None
    if chart.kind in ("bar", "stacked bar"):
        places = {"x": y, "y": x, "orientation": "h", "error_x": error} if lying else {"x": x, "y": y, "error_y": error}
        return go.Bar(marker={"color": look.color}, **places, **common)
    scatter = go.Scattergl if large else go.Scatter
    marker = {"color": look.color, "symbol": look.symbol, "size": 5 if large else 8, "opacity": 0.6 if large else 0.9}
    return scatter(
        x=x,
        y=y,
        mode="lines+markers" if chart.kind == "line" else "markers",
        marker=marker,
        line={"color": look.color, "dash": look.dash, "width": 2},
        error_y=error,
        **common,
    )


def _interval(rows: pd.DataFrame, y: str) -> tuple[str, str] | None:
    """The columns that hold y's interval."""
    pair = ("ci_low", "ci_high") if y == "value" else (f"{y}_low", f"{y}_high")
    return pair if set(pair) <= set(_numbers(rows)) else None


def _error(part: pd.DataFrame, name: str, y: pd.Series) -> dict[str, Any] | None:
    columns = _interval(part, name)
    if columns is None:
        return None
    low, high = (part[column].astype(float) for column in columns)
    return {"array": high - y, "arrayminus": y - low, "thickness": 1, "width": 0, "color": NEUTRAL}


def _kind(frame: pd.DataFrame, possible: Sequence[str]) -> str:
    """The kind that suits the columns: a curve along time or α, two measures, a number a name, two numbers, counts."""
    numbers = _numbers(frame)
    curve = any(_is_time(frame[name]) for name in frame) or any(name in _ORDERED for name in numbers[:2])
    if "line" in possible and curve:
        return "line"
    if sum(name in MEASURES for name in numbers) > 1 and "scatter" in possible:
        return "scatter"
    if "bar" in possible and _names(frame):
        return "bar"
    return "scatter" if len(numbers) > 1 else "histogram"


def _x(frame: pd.DataFrame, kind: str) -> str:
    candidates = xs(frame, kind)
    if kind == "line":
        ordered = [name for name in candidates if name in _ORDERED] or [
            name for name in candidates if _is_time(frame[name])
        ]
        return (ordered or candidates)[0]
    if kind == "scatter":
        return next((name for name in candidates if name in MEASURES), candidates[0])
    if kind == "histogram":
        return (_numbers(frame) or candidates)[0]
    return (_names(frame) or candidates)[0]


def _y(frame: pd.DataFrame, candidates: Sequence[str]) -> str:
    measures = [name for name in candidates if name in MEASURES and name != "alpha"]
    return (measures or [name for name in candidates if name not in _ORDERED] or candidates)[0]


def _colour(frame: pd.DataFrame, kind: str, x: str) -> str:
    """The method where there is one, else a text column with few values; a bar or a histogram needs none."""
    texts = [name for name in _plain(frame) if not _is_number(frame[name]) and not _is_time(frame[name]) and name != x]
    few = [name for name in texts if 1 < frame[name].nunique() <= len(COLORS)]
    if "method" in texts and frame["method"].nunique() > 1:
        return "method" if kind != "bar" else NONE
    return few[0] if few and kind in ("line", "scatter", "stacked bar") else NONE


def _names(frame: pd.DataFrame) -> list[str]:
    """Text columns, the one with most different values first, keys of runs last: what bars stand for."""
    texts = [name for name in _plain(frame) if not _is_number(frame[name]) and not _is_time(frame[name])]
    return sorted(texts, key=lambda name: (name.endswith("_id"), -frame[name].nunique()))


def _numbers(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if _is_number(frame[name])]


def _plain(frame: pd.DataFrame) -> list[str]:
    """Columns of single values, no lists or structs."""
    return [name for name in frame if not frame[name].map(lambda cell: isinstance(cell, (list, dict))).any()]


def _is_number(column: pd.Series) -> bool:
    return types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and bool(column.notna().any())


def _is_time(column: pd.Series) -> bool:
    return types.is_datetime64_any_dtype(column)


def _texts(column: pd.Series) -> pd.Series:
    return column.map(lambda cell: "–" if cell is None or cell is pd.NA or cell != cell else str(cell))


def _method(name: str) -> str:
    """The method that a series is named after, empty where it is none."""
    first = name.split(" ")[0]
    return first if first in known_methods() else ""


def _title(name: str, horizontal: bool) -> str:
    return MEASURES[name].axis_title(horizontal) if name in MEASURES and name != "alpha" else escape(name)


def _short(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    text = str(value)
    return escape(text if len(text) <= 90 else text[:89] + "…")


def _one_of(options: Sequence[str], wanted: Any, otherwise: str) -> str:
    return wanted if wanted in options else otherwise
