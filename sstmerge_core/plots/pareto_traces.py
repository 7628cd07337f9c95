"""The traces of the Pareto picture: points with their hover lines, front lines, rings.

They are dictionaries, which the figure checks once; as objects of plotly they would be checked and copied twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sstmerge_core.analysis.front import pareto_front
from sstmerge_core.plots.measures import MEASURES, Measure
from sstmerge_core.plots.style import NEUTRAL, MethodStyle, faded, family_style, style

Trace = dict[str, Any]

BARS = 200
"""Points with interval bars at most, in a picture of thousands; so few are drawn as SVG"""
FADED = 0.55
"""Opacity of dominated points; of thousands, which lie over each other, half of it"""
_SOLIDS = {"circle": "circle", "hexa": "circle", "octa": "circle", "penta": "circle", "square": "square"}
_SOLIDS |= {"diamond": "diamond", "star": "diamond", "cross": "cross", "x": "x"}
"""How the symbols in space, of which there are eight, stand for the others, by what these begin with"""


_GAP = "\N{NO-BREAK SPACE}" * 4
"""Between a point, be there a ring around it, and its name"""
Spans = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class View:
    """What the axes show, and how much detail a picture of so many points bears."""

    x: Measure
    y: Measure
    z: Measure | None = None
    space: bool = False
    """Whether `z` is an axis of its own; otherwise it is the points' colour."""
    large: bool = False
    intervals: bool = True
    families: bool = False
    """Colour, marker and legend by the methods' families, and the methods' names at the front's points"""

    def style(self, method: str) -> MethodStyle:
        return family_style(method) if self.families else style(method)

    def symbol(self, method: str, source: str) -> str:
        return f"{self.style(method).symbol}{'-open' if source == 'reported' else ''}"

    @property
    def all_bars(self) -> bool:
        return self.intervals and not self.large and not self.space

    @property
    def few_bars(self) -> bool:
        return self.intervals and self.large and not self.space

    def coordinates(self, rows: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Single precision where it saves the reader megabytes."""
        axes = {"x": self.x, "y": self.y} | ({"z": self.z} if self.space and self.z else {})
        number = np.float32 if self.large else np.float64
        return {axis: rows[measure.column].to_numpy(dtype=number) for axis, measure in axes.items()}


def points(rows: pd.DataFrame, view: View, method: str, source: str, *, bars: bool) -> list[Trace]:
    """One method's points from one source. `bars`: with intervals for those on the front, in a large picture."""
    dominated = (~(rows["on_front"] | rows["is_reference"])).to_numpy()
    if not view.large and not view.space:
        opacity = np.where(dominated, FADED, 1.0)
        return [_points(rows, view, method, source, opacity, bars=view.all_bars)]
    # one opacity a trace: neither is an array of 10,000 sent, nor does space know one
    faint, clear = rows[dominated], rows[~dominated]
    found = [_points(faint, view, method, source, FADED / 2 if view.large else FADED, bars=False)] if len(faint) else []
    return found + ([_points(clear, view, method, source, 1.0, bars=bars)] if len(clear) else [])


def fronts(groups: Sequence[pd.DataFrame], view: View, *, each_method: bool) -> list[Trace]:
    """Step lines through the front of each group, dotted where it is not of test prompts measured here."""
    found: list[Trace] = []
    listed: set[str] = set()
    for group in groups:
        split = group["split"].iloc[0]
        measured = group["source"].iloc[0] == "measured"
        apart = "reported" if not measured else "" if pd.isna(split) or split == "test" else str(split)
        if each_method:
            for method, own in group.groupby("method", sort=False):
                found.append(_method_front(own, view, str(method), dotted=bool(apart)))
        rows = group[group["on_front"]]
        found.append(
            _steps(
                rows,
                view,
                line={"color": NEUTRAL, "width": 1.6, "dash": "dot" if apart else "solid"},
                name=f"Front ({apart})" if apart else "Front",
                legendgroup=f"front {apart}",
                showlegend=apart not in listed,
                meta={"pair": str(group["pair"].iloc[0])},
            )
        )
        listed.add(apart)
    return found


def legend_entry(view: View, method: str, source: str) -> Trace:
    """A method's place in the legend in full colour: by itself it would look like its first point, be it faded."""
    color = view.style(method).color if view.z is None or view.space else NEUTRAL
    marker = {"color": color, "symbol": view.symbol(method, source), "size": 11, "line": _edge(source, color)}
    if view.space:
        marker |= {"symbol": _solid(method, source), "size": 6}
    axes: Trace = {axis: [None] for axis in ("xyz" if view.space else "xy")}
    named = {"mode": "markers", "name": _title(view, method, source), "legendgroup": view.style(method).title}
    return {"type": "scatter3d" if view.space else "scatter", **axes, **named, "marker": marker}


def rings(rows: pd.DataFrame, view: View, *, letters: Sequence[str] = (), bars: bool = False) -> Trace:
    """Rings around points, with letters above them if given."""
    look: dict[str, Any] = {"symbol": "circle-open", "size": 22, "color": NEUTRAL, "line": {"width": 2.2}}
    shared: dict[str, Any] = {"hoverinfo": "skip", "showlegend": False, "mode": "markers"}
    if letters:
        look |= {"size": 17, "line": {"width": 1.4}}
        shared |= {"mode": "markers+text", "text": list(letters), "textposition": "top center", "cliponaxis": False}
        shared |= {"meta": {"marks": list(rows["run_id"])}, "textfont": {"size": 13, "weight": 700}}
        if not view.space:
            shared["textfont"]["shadow"] = "auto"  # what is drawn below a letter stays off it
    if view.space:
        shared.pop("cliponaxis", None)
        return {"type": "scatter3d", **view.coordinates(rows), "marker": look | {"size": 10}, **shared}
    trace = {"type": "scatter", **view.coordinates(rows), "marker": look, **shared}
    return _with_bars(trace, rows, view, NEUTRAL) if bars else trace


def _points(rows: pd.DataFrame, view: View, method: str, source: str, opacity: Any, *, bars: bool) -> Trace:
    color = view.style(method).color
    reported = source == "reported"
    text, custom, hover = _hover(rows, view, style(method).title, reported)
    marker: dict[str, Any] = {
        "color": color,
        "symbol": view.symbol(method, source),
        "size": 7 if view.large else 11,
        "opacity": opacity,
        "line": _edge(source, color),
    }
    if view.z is not None and not view.space:
        values = rows[view.z.column].to_numpy(dtype=np.float32)
        marker |= {"color": values, "coloraxis": "coloraxis", "line": {"width": 1.6 if reported else 0.5}}
    shared: dict[str, Any] = {
        **view.coordinates(rows),
        "mode": "markers",
        "name": _title(view, method, source),
        "legendgroup": view.style(method).title,
        "showlegend": False,
        "text": text,
        "customdata": custom,
        "hovertemplate": hover,
        "meta": {"method": method, "source": source},
    }
    if view.space:
        return {"type": "scatter3d", **shared, "marker": marker | {"symbol": _solid(method, source), "size": 4}}
    lit = {"selected": {"marker": {"opacity": 1.0}}, "unselected": {"marker": {"opacity": 0.15}}}
    # a WebGL trace costs the browser some hundred milliseconds before its first point
    kind = "scattergl" if view.large and len(rows) > BARS else "scatter"
    trace = {"type": kind, **shared, **lit, "marker": marker}
    return _with_bars(trace, rows, view, color) if bars and not reported else trace


def _title(view: View, method: str, source: str) -> str:
    return f"{view.style(method).title}{' (reported)' if source == 'reported' else ''}"


def names(rows: pd.DataFrame, view: View, ranges: Spans, among: pd.DataFrame, marks: Mapping[str, str]) -> Trace:
    """The methods' names beside points of the front, each once and only where nothing else is drawn.

    `ranges`: ends of the axes; `among`: every point of the picture; `marks`: run id → letters above its ring.
    """
    rooms = [_Room(among, view, ranges, marks, plot) for plot in _PLOTS]
    texts, places = [], []
    named: set[str] = set()
    for point, method in zip(rows[[view.x.column, view.y.column]].to_numpy(dtype=float), rows["method"], strict=True):
        title = style(str(method)).title
        width = _LETTER * len(title)
        spots = (
            [] if method in named else [spot for spot in _SPOTS if all(room.has(point, width, spot) for room in rooms)]
        )
        side, rise = spots[0] if spots else ("right", 0)
        if spots:
            named.add(method)
            for room in rooms:
                room.boxes = np.vstack([room.boxes, room.box(point, width, spots[0])])
        name = title if spots else ""
        texts.append(f"{_GAP}{name}" if side == "right" else f"{name}{_GAP}")
        places.append(f"{'top' if rise > 0 else 'bottom' if rise < 0 else 'middle'} {side}")
    look = {"mode": "text", "text": texts, "textposition": places, "textfont": {"size": 12}, "cliponaxis": False}
    return {"type": "scatter", **view.coordinates(rows), **look, "hoverinfo": "skip", "showlegend": False}


_PLOTS = ((300.0, 270.0), (640.0, 300.0))
"""Pixels of the plot on a telephone and on a desk; letters and points are as large on both"""
_POINT, _RING, _LETTER, _AWAY = 6.0, 11.0, 6.0, 13.0
"""Half of a point and of a ring, the width of a letter, and what `_GAP` takes, in pixels"""
_SPOTS = (("right", 0), ("right", 7), ("right", -7), ("left", 7), ("left", -7))
"""Where a name may stand beside its point, the best first: its side, and how many pixels it is raised. Straight to the
left comes the line of the front."""


class _Room:
    """What is drawn in a plot of so many pixels, as boxes: left, bottom, right, top."""

    def __init__(
        self, among: pd.DataFrame, view: View, ranges: Spans, marks: Mapping[str, str], plot: tuple[float, float]
    ) -> None:
        (left, right), (low, high) = ranges
        self.width = plot[0]
        self.corner = np.array([left, low], dtype=float)
        self.scale = np.array([plot[0] / (right - left), plot[1] / (high - low)])
        points = self._at(among[[view.x.column, view.y.column]].to_numpy(dtype=float))
        ringed = among["run_id"].isin(marks).to_numpy()
        half = np.where(ringed, _RING, _POINT)[:, None]
        wide = np.array([_LETTER * len(marks[run]) / 2 for run in among["run_id"][ringed]]).reshape(-1, 1)
        x, y = points[ringed, :1], points[ringed, 1:]
        letters = np.hstack([x - wide, y + 11, x + wide, y + 28])
        self.boxes = np.vstack([np.hstack([points - half, points + half]), letters])

    def _at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return (points - self.corner) * self.scale

    def box(self, point: NDArray[np.float64], width: float, spot: tuple[str, int]) -> NDArray[np.float64]:
        across, up = self._at(point)
        start = across + _AWAY if spot[0] == "right" else across - _AWAY - width
        return np.array([start, up + spot[1] - 7, start + width, up + spot[1] + 7])

    def has(self, point: NDArray[np.float64], width: float, spot: tuple[str, int]) -> bool:
        """Whether a name has room there. Its own point ends before it begins."""
        left, bottom, right, top = self.box(point, width, spot)
        boxes = self.boxes
        meets = (boxes[:, 0] < right) & (boxes[:, 2] > left) & (boxes[:, 1] < top) & (boxes[:, 3] > bottom)
        return bool(left >= 0 and right <= self.width and not meets.any())


def _edge(source: str, color: str) -> dict[str, Any]:
    return {"width": 1.6 if source == "reported" else 0.8, "color": color}


def _solid(method: str, source: str) -> str:
    symbol = style(method).symbol
    solid = next((solid for start, solid in _SOLIDS.items() if symbol.startswith(start)), "circle")
    return f"{solid}-open" if source == "reported" and solid in ("circle", "square", "diamond") else solid


def _method_front(rows: pd.DataFrame, view: View, method: str, *, dotted: bool) -> Trace:
    signs = [1.0 if measure.higher_is_better else -1.0 for measure in (view.x, view.y)]
    best = pareto_front(rows[[view.x.column, view.y.column]].to_numpy(dtype=float) * signs)
    look = style(method)
    line = {"color": look.color, "width": 1.3, "dash": "dot" if dotted else look.dash}
    return _steps(
        rows[best], view, line=line, name=look.title, legendgroup=method, showlegend=False, meta={"front_of": method}
    )


def _steps(rows: pd.DataFrame, view: View, *, line: dict[str, Any], **named: Any) -> Trace:
    rows = rows.sort_values(view.x.column, ascending=view.x.higher_is_better)
    # from one front point to the next the better y is lost first, then x is gained
    axes = {axis: rows[measure.column].to_numpy(dtype=float) for axis, measure in (("x", view.x), ("y", view.y))}
    return {"type": "scatter", **axes, "mode": "lines", "line": {"shape": "vh", **line}, "hoverinfo": "skip", **named}


def _with_bars(trace: Trace, rows: pd.DataFrame, view: View, color: str) -> Trace:
    for axis, measure in (("x", view.x), ("y", view.y)):
        if measure.has_interval and rows[f"{measure.column}_low"].notna().any():
            trace[f"error_{axis}"] = _bars(rows, measure, color)
    return trace


def _bars(rows: pd.DataFrame, measure: Measure, color: str) -> dict[str, object]:
    value = rows[measure.column].to_numpy(dtype=float)
    above = rows[f"{measure.column}_high"].to_numpy(dtype=float) - value
    below = value - rows[f"{measure.column}_low"].to_numpy(dtype=float)
    # a NaN would end plotly's drawing of the whole trace
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(above).clip(min=0),
        "arrayminus": np.nan_to_num(below).clip(min=0),
        "color": faded(color, 0.4),
        "thickness": 1.2,
        "width": 0,
    }


def _third(view: View) -> Measure:
    """The measure that the axes do not show and a reader must not forget."""
    if view.z is not None:
        return view.z
    for column in ("over_refusal", "utility", "resistance"):
        if column not in (view.x.column, view.y.column):
            return MEASURES[column]
    raise AssertionError("two axes cannot show three measures")


def needed(view: View) -> list[str]:
    """The columns of the runs that these traces read, where there are such."""
    found = ["run_id", "name", "method", "source", "pair", "split", "is_reference", "on_front"]
    for measure in (view.x, view.y, _third(view)):
        found += [measure.column, f"{measure.column}_low", f"{measure.column}_high", measure.n_column]
    return found


class _Custom:
    """Numbers that the browser puts into the hover lines: only what differs from point to point travels."""

    def __init__(self, rows: pd.DataFrame):
        self.rows = rows
        self.columns = [rows.index.to_numpy(dtype=np.float32)]  # which row, so that a click can be traced back

    def slot(self, column: str, digits: int) -> str:
        """The place of a column in a hover template, or its value where all points have the same; empty: no value."""
        if column not in self.rows:
            return ""
        values = pd.to_numeric(self.rows[column]).to_numpy(dtype=np.float32, na_value=np.nan)
        if np.isnan(values).all():
            return ""
        if len(values) > 1 and (values == values[0]).all():
            return f"{values[0]:.{digits}f}"
        self.columns.append(values)
        return f"%{{customdata[{len(self.columns) - 1}]:.{digits}f}}"


def _hover(
    rows: pd.DataFrame, view: View, title: str, reported: bool
) -> tuple[NDArray[Any] | None, NDArray[np.float32], str]:
    """Each point's text and numbers, and the template of five lines that the browser fills in with them.

    What it is, where from, the two measures with unit, interval and n, and the third measure.
    """
    name, text = _names(rows, title)
    custom = _Custom(rows)
    pairs = rows["pair"].unique()
    origin = f"{escape(str(pairs[0]))} · " if len(pairs) == 1 else ""
    lines = [f"<b>{name}</b>", f"{origin}{'reported in the literature' if reported else 'measured here'}"]
    for axis, measure in (("x", view.x), ("y", view.y)):
        lines.append(_measure_line(custom, measure, f"%{{{axis}:.3f}}", intervals=not reported))
    third = _third(view)
    if rows[third.column].isna().all():
        lines.append(f"{third.title} not {'reported' if reported else 'measured'}")
    else:
        value = "%{z:.3f}" if view.space else custom.slot(third.column, 3)
        lines.append(_measure_line(custom, third, value, intervals=False, n=not reported))
    return text, np.column_stack(custom.columns), "<br>".join(lines) + "<extra></extra>"


def _measure_line(custom: _Custom, measure: Measure, value: str, *, intervals: bool, n: bool | None = None) -> str:
    line = f"{measure.title} {value}{' ' + measure.unit if measure.unit else ''}"
    if intervals and measure.has_interval:
        ends = [custom.slot(f"{measure.column}_{end}", 3) for end in ("low", "high")]
        line += f" [{ends[0]}, {ends[1]}]" if all(ends) else ""
    if (intervals if n is None else n) and measure.n_column and (count := custom.slot(measure.n_column, 0)):
        line += f" n {count}"
    return line


def _names(rows: pd.DataFrame, title: str) -> tuple[str, NDArray[Any] | None]:
    """The first hover line as a template, and what of it differs from point to point; with the pair if several."""
    names = rows["name"].fillna(title)
    if not rows["is_reference"].all() and rows["pair"].nunique() > 1:
        names = names + " · " + rows["pair"]
    texts = [escape(str(name)) for name in names]  # Plotly takes it for HTML
    same = os.path.commonprefix(texts)  # noqa: RUF071 - of any texts, letter by letter
    if all(text == same for text in texts):
        return same, None
    return f"{same}%{{text}}", np.array([text[len(same) :] for text in texts])
