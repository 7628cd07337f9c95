"""Runs between two measures: where each method's points lie, and the front as a step line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sstmerge_core.analysis.front import pareto_front
from sstmerge_core.plots.measures import MEASURES, Measure
from sstmerge_core.plots.style import LEGEND, NEUTRAL, faded, marker_symbol, order, style
from sstmerge_core.plots.table import named

WEBGL_ABOVE = 2_000
"""Points beyond which SVG is too slow; interval bars and hover details are left out as well."""
REFERENCE_METHODS = ("base", "adapter", "fine_tuned")
"""Not merges: drawn for orientation, never part of the front."""


@dataclass(frozen=True)
class Box:
    """A rectangle in the units of the two axes, borders included."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def parse(cls, text: str) -> Box:
        """From ``0.1,0.5,0.2,0.9`` (x low, x high, y low, y high). Raises ValueError."""
        values = [float(part) for part in text.split(",")]
        if len(values) != 4 or not np.isfinite(values).all():
            raise ValueError("a box is four numbers: x low, x high, y low, y high")
        return cls(*sorted(values[:2]), *sorted(values[2:]))

    def __str__(self) -> str:
        return ",".join(f"{value:.4g}" for value in (self.x_low, self.x_high, self.y_low, self.y_high))


def drawable(runs: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The rows that have both measures, in drawing order, with the columns `on_front` and `is_reference`.

    The front is taken within each pair, source and split, over merges only: of runs that were measured on different
    models or prompts, none dominates another.
    """
    shown = named(runs.dropna(subset=[x, y]).reset_index(drop=True))
    shown["is_reference"] = shown["method"].isin(REFERENCE_METHODS)
    shown["on_front"] = False
    merges = shown[~shown["is_reference"]]
    for _, group in merges.groupby(["pair", "source", "split"], sort=False, dropna=False):
        shown.loc[group.index, "on_front"] = pareto_front(_towards_good(group, x, y))
    shown["_order"] = [order(name) for name in shown["method"]]
    return shown.sort_values(["_order", "source", "pair"], kind="stable").drop(columns="_order").reset_index(drop=True)


def select(shown: pd.DataFrame, x: str, y: str, *, box: Box | None = None, runs: Sequence[str] = ()) -> pd.DataFrame:
    """The rows inside `box`, or those of `runs` (run ids); the front first, then by the sum of both."""
    if box is not None:
        chosen = shown[shown[x].between(box.x_low, box.x_high) & shown[y].between(box.y_low, box.y_high)]
    else:
        chosen = shown[shown["run_id"].isin(runs)]
    return _best_first(chosen, x, y)


def front(shown: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The rows on a front, measured ones before reported ones, best first."""
    rows = _best_first(shown[shown["on_front"]], x, y)
    return rows.sort_values("source", kind="stable")


def clicked(shown: pd.DataFrame, points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The run ids of a chart's selected points (plotly's event data)."""
    custom = [point["customdata"] for point in points if point.get("customdata")]
    # a typed array of plotly arrives as an object with its indices as keys
    numbers = [values["0"] if isinstance(values, Mapping) else values[0] for values in custom]
    return list(dict.fromkeys(shown["run_id"].iloc[int(number)] for number in numbers if 0 <= number < len(shown)))


def figure(
    shown: pd.DataFrame,
    *,
    x: str = "resistance",
    y: str = "utility",
    highlight: Sequence[str] = (),
    box: Box | None = None,
    height: int = 480,
    legend: bool = True,
    intervals: bool = True,
) -> go.Figure:
    """The picture of `shown`, which comes from `drawable`.

    `highlight`: run ids that get a ring; `box`: drawn as a dotted rectangle. Row numbers of `shown` are each point's
    first custom value, so that a click can be traced back. Dominated points are faded, reported ones hollow.
    """
    horizontal, vertical = MEASURES[x], MEASURES[y]
    large = len(shown) > WEBGL_ABOVE
    fig = go.Figure()
    limits = _limits(shown, horizontal), _limits(shown, vertical)
    _add_fronts(fig, shown, x, y)
    listed: set[str] = set()
    for (method, source), rows in shown.groupby(["method", "source"], sort=False):
        trace = _points(rows, horizontal, vertical, str(method), str(source), large, intervals)
        fig.add_trace(trace)
        if method not in listed:  # hollow says "reported": a method that is measured too needs one entry only
            fig.add_trace(_legend_entry(trace))
        listed.add(str(method))
    _add_highlight(fig, shown, x, y, highlight)
    if box is not None:
        corners = {"x0": box.x_low, "x1": box.x_high, "y0": box.y_low, "y1": box.y_high}
        fig.add_shape(type="rect", **corners, line={"color": NEUTRAL, "width": 1.2, "dash": "dot"})
    fig.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
        showlegend=legend,
        legend=LEGEND,
        hoverlabel={"align": "left"},
        uirevision=f"{x}/{y}",
    )
    fig.update_xaxes(
        title=horizontal.axis_title(True), range=limits[0], automargin=True, zeroline=False, tickformat=".3~g"
    )
    fig.update_yaxes(
        title=vertical.axis_title(False), range=limits[1], automargin=True, zeroline=False, tickformat=".3~g"
    )
    return fig


def _best_first(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    score = _towards_good(rows, x, y).sum(axis=1)
    return rows.assign(_score=score).sort_values(["on_front", "_score"], ascending=False).drop(columns="_score")


def _towards_good(rows: pd.DataFrame, x: str, y: str) -> np.ndarray:
    """The two columns, shape [n, 2], turned so that higher is better on both."""
    signs = [1.0 if MEASURES[column].higher_is_better else -1.0 for column in (x, y)]
    return rows[[x, y]].to_numpy(dtype=float) * signs


def _limits(shown: pd.DataFrame, measure: Measure) -> list[float]:
    """Axis range: the data with 6 % air, never narrower than 0.1 so that noise does not look like a difference."""
    if shown.empty:
        return [0.0, 1.0]
    low, high = float(shown[measure.column].min()), float(shown[measure.column].max())
    air = max(0.06 * (high - low), 0.03 if measure.bounded else 0.03 * max(abs(high), 1e-9))
    if measure.bounded and high - low < 0.1:
        air = (0.16 - (high - low)) / 2
    low, high = low - air, high + air
    if measure.bounded:  # no empty stripes where no rate can be
        up = max(-0.04 - low, 0.0) - max(high - 1.04, 0.0)
        low, high = max(low + up, -0.04), min(high + up, 1.04)
    return [low, high]


def _add_fronts(fig: go.Figure, shown: pd.DataFrame, x: str, y: str) -> None:
    front = shown[shown["on_front"]]
    legend_named: set[str] = set()
    for (pair, source, split), rows in front.groupby(["pair", "source", "split"], sort=False, dropna=False):
        rows = rows.sort_values(x, ascending=MEASURES[x].higher_is_better)
        apart = "reported" if source != "measured" else "" if pd.isna(split) or split == "test" else str(split)
        fig.add_trace(
            go.Scatter(
                x=rows[x].to_numpy(dtype=float),
                y=rows[y].to_numpy(dtype=float),
                mode="lines",
                # from one front point to the next the better y is lost first, then x is gained
                line={
                    "shape": "vh",
                    "color": NEUTRAL,
                    "width": 1.6,
                    "dash": "dot" if apart else "solid",
                },
                name=f"Front ({apart})" if apart else "Front",
                legendgroup=f"front {apart}",
                showlegend=apart not in legend_named,
                hoverinfo="skip",
                meta={"pair": str(pair)},
            )
        )
        legend_named.add(apart)


def _points(
    rows: pd.DataFrame,
    horizontal: Measure,
    vertical: Measure,
    method: str,
    source: str,
    large: bool,
    intervals: bool,
) -> go.Scatter | go.Scattergl:
    look = style(method)
    reported = source == "reported"
    kind = go.Scattergl if large else go.Scatter
    dominated = ~(rows["on_front"] | rows["is_reference"])
    trace = kind(
        x=rows[horizontal.column].to_numpy(dtype=float),
        y=rows[vertical.column].to_numpy(dtype=float),
        mode="markers",
        name=f"{look.title}{' (reported)' if reported else ''}",
        legendgroup=method,
        showlegend=False,
        marker={
            "color": look.color,
            "symbol": marker_symbol(method, source),
            "size": 9 if large else 11,
            "opacity": np.where(dominated, 0.55, 1.0),
            "line": {"width": 1.6 if reported else 0.8, "color": look.color},
        },
        text=_names(rows, look.title),
        customdata=_custom(rows, horizontal, vertical),
        hovertemplate=_hover(rows, horizontal, vertical, reported),
        meta={"method": method, "source": source},
        selected={"marker": {"opacity": 1.0}},
        unselected={"marker": {"opacity": 0.15}},
    )
    if intervals and not large and not reported:
        for axis, measure in (("x", horizontal), ("y", vertical)):
            if measure.has_interval and rows[f"{measure.column}_low"].notna().any():
                trace[f"error_{axis}"] = _bars(rows, measure, look.color)
    return trace


def _legend_entry(trace: go.Scatter | go.Scattergl) -> go.Scatter:
    """The trace's place in the legend in full colour: by itself it would look like its first point, be it faded."""
    look = trace.marker.to_plotly_json()
    marker = {key: look[key] for key in ("color", "symbol", "size", "line")}
    return go.Scatter(x=[None], y=[None], mode="markers", name=trace.name, legendgroup=trace.legendgroup, marker=marker)


def _names(rows: pd.DataFrame, title: str) -> pd.Series:
    """Each point's first hover line; it says the pair where the trace has several."""
    names = rows["name"].fillna(title)
    return names if rows["is_reference"].all() or rows["pair"].nunique() == 1 else names + " · " + rows["pair"]


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
        "color": faded(color, 0.28),
        "thickness": 1.2,
        "width": 0,
    }


def _third(horizontal: Measure, vertical: Measure) -> Measure:
    """The measure that the axes do not show and a reader must not forget."""
    for column in ("over_refusal", "utility", "resistance"):
        if column not in (horizontal.column, vertical.column):
            return MEASURES[column]
    raise AssertionError("two axes cannot show three measures")


def _custom(rows: pd.DataFrame, horizontal: Measure, vertical: Measure) -> np.ndarray:
    """Per point: row number, x low, high, n, y low, high, n, third value, third n; float32, NaN where absent."""
    third = _third(horizontal, vertical)
    columns = [pd.Series(rows.index, index=rows.index)]
    for measure in (horizontal, vertical):
        for name in (f"{measure.column}_low", f"{measure.column}_high", measure.n_column):
            columns.append(rows[name] if name in rows else pd.Series(np.nan, index=rows.index))
    columns += [rows[third.column], rows[third.n_column] if third.n_column in rows else pd.Series(np.nan, rows.index)]
    return np.column_stack([pd.to_numeric(column).to_numpy(dtype=np.float32, na_value=np.nan) for column in columns])


def _hover(rows: pd.DataFrame, horizontal: Measure, vertical: Measure, reported: bool) -> str:
    """Five lines: what it is, where from, the two measures with unit, interval and n, and the third measure."""
    third = _third(horizontal, vertical)
    pairs = rows["pair"].unique()
    origin = f"{pairs[0]} · " if len(pairs) == 1 else ""
    lines = ["<b>%{text}</b>", f"{origin}{'reported in the literature' if reported else 'measured here'}"]
    for axis, measure, start in (("x", horizontal, 1), ("y", vertical, 4)):
        line = f"{measure.title} %{{{axis}:.3f}}{' ' + measure.unit if measure.unit else ''}"
        if not reported and measure.has_interval:
            line += f" [%{{customdata[{start}]:.3f}}, %{{customdata[{start + 1}]:.3f}}]"
        if not reported and measure.n_column:
            line += f" n %{{customdata[{start + 2}]:.0f}}"
        lines.append(line)
    if rows[third.column].notna().any():
        lines.append(f"{third.title} %{{customdata[7]:.3f}}" + ("" if reported else " n %{customdata[8]:.0f}"))
    else:
        lines.append(f"{third.title} not measured" if not reported else f"{third.title} not reported")
    return "<br>".join(lines) + "<extra></extra>"


def _add_highlight(fig: go.Figure, shown: pd.DataFrame, x: str, y: str, highlight: Sequence[str]) -> None:
    rows = shown[shown["run_id"].isin(highlight)]
    if rows.empty:
        return
    fig.add_trace(
        go.Scatter(
            x=rows[x],
            y=rows[y],
            mode="markers",
            marker={"symbol": "circle-open", "size": 22, "color": NEUTRAL, "line": {"width": 2.2, "color": NEUTRAL}},
            hoverinfo="skip",
            showlegend=False,
        )
    )
