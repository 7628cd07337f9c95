"""Runs between two measures, or three: where each method's points lie, and the front as a step line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sstmerge_core.analysis import comparable
from sstmerge_core.analysis.front import pareto_front
from sstmerge_core.plots import pareto_traces as traces
from sstmerge_core.plots.area import Area
from sstmerge_core.plots.measures import MEASURES, Measure, one_utility
from sstmerge_core.plots.style import GOOD_TO_BAD, LEGEND, NEUTRAL, order
from sstmerge_core.plots.table import named

WEBGL_ABOVE = 2_000
"""Points beyond which SVG is too slow; interval bars are then left to the front and to what is selected."""
HEIGHT = 480
"""Pixels"""
REFERENCE_METHODS = ("base", "adapter", "fine_tuned")
"""Not merges: drawn for orientation, never part of the front."""
APART = ("pair", "source", "utility_suite", "utility_metric", "split")
"""Runs that differ in one of these were measured on different models or prompts: none dominates another."""


def drawable(runs: pd.DataFrame, x: str, y: str, z: str | None = None) -> pd.DataFrame:
    """The rows that have all measures, in drawing order, with the columns `on_front` and `is_reference`.

    The front is over merges only, and within what `APART` keeps apart; with `z` it is over three measures. On an axis
    of utility stands one metric alone.
    """
    axes = [column for column in (x, y, z) if column]
    runs = one_utility(runs) if "utility" in axes else runs
    methods, names = pd.factorize(runs["method"].fillna(""))  # what a damaged event file says names none
    ranks = {name: rank for rank, name in enumerate(sorted(names, key=order))}
    codes = [
        np.array([ranks[name] for name in names], dtype=int)[methods],
        *(pd.factorize(runs[name], sort=True)[0] for name in ("source", "pair")),
    ]
    by = np.lexsort(codes[::-1])
    # the rows are put in order once: of 100,000 runs with all their columns that takes a tenth of a second
    shown = named(runs.take(by[runs[axes].notna().all(axis="columns").to_numpy()[by]]).reset_index(drop=True))
    shown["is_reference"] = shown["method"].isin(REFERENCE_METHODS)
    shown["ranked"] = ranked(shown)
    on_front, points = np.zeros(len(shown), dtype=bool), towards_good(shown, axes)
    for places in groups(shown):
        on_front[places] = pareto_front(points[places])
    shown["on_front"] = on_front
    return shown


def ranked(runs: pd.DataFrame) -> np.ndarray:
    """Mask of the rows that may be ranked: of each pair, source and split those of the leading comparable group.

    Others answered other prompts, or were judged otherwise: they are drawn, and are on no front.
    """
    mask = np.ones(len(runs), dtype=bool)
    if comparable.KEY not in runs:
        return mask
    keyed = comparable.keyed(runs).reset_index(drop=True)
    for places in keyed.groupby(["pair", "source", "split"], sort=False, dropna=False).indices.values():
        rows = keyed.iloc[places]
        if rows["is_reference"].all() or rows[comparable.KEY].nunique() == 1:
            continue
        leading = comparable.groups(rows[~rows["is_reference"]])[0].key
        mask[places] = rows[comparable.KEY].eq(leading).to_numpy() | rows["is_reference"].to_numpy()
    return mask


def groups(shown: pd.DataFrame) -> list[np.ndarray]:
    """The places of the merges of each front of its own: of one pair, source, suite and split."""
    codes = pd.DataFrame({name: pd.factorize(shown[name])[0] for name in APART if name in shown})
    in_contest = ~shown["is_reference"].to_numpy()
    if "ranked" in shown:
        in_contest &= shown["ranked"].to_numpy()
    merges = np.flatnonzero(in_contest)
    return [merges[places] for places in codes.iloc[merges].groupby(list(codes), sort=False).indices.values()]


def select(shown: pd.DataFrame, x: str, y: str, *, area: Area | None = None, runs: Sequence[str] = ()) -> pd.DataFrame:
    """The rows inside `area`, or those of `runs` (run ids); the front first, then by the sum of both."""
    if area is not None:
        inside = area.contains(shown[x].to_numpy(dtype=float), shown[y].to_numpy(dtype=float))
        return _best_first(shown[inside], x, y)
    return _best_first(shown[shown["run_id"].isin(runs)], x, y)


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
    z: str | None = None,
    space: bool = False,
    highlight: Sequence[str] = (),
    area: Area | None = None,
    marks: Mapping[str, str] | None = None,
    method_fronts: bool = False,
    height: int = HEIGHT,
    legend: bool = True,
    intervals: bool = True,
    families: bool = False,
) -> go.Figure:
    """The picture of `shown`, which comes from `drawable` with the same axes.

    `z`: the third measure, as colour or, with `space`, as an axis of its own. `highlight`: run ids that get a ring;
    `area`: drawn as a dotted line; `marks`: run id → a few letters beside its ring; `method_fronts`: a line for each
    method's own front too; `families`: by family, with the methods named at the front. Row numbers of `shown` are each
    point's first custom value, so that a click can be traced back. Dominated points are faded, reported ones hollow.
    """
    view = traces.View(
        x=MEASURES[x],
        y=MEASURES[y],
        z=MEASURES[z] if z else None,
        space=space and z is not None,
        large=len(shown) > WEBGL_ABOVE,
        intervals=intervals,
        families=families,
    )
    found: list[traces.Trace] = []
    shown = shown[[column for column in (*traces.needed(view), *APART) if column in shown]]
    shown = shown.loc[:, ~shown.columns.duplicated()]
    if z is None:
        found += traces.fronts([shown.iloc[places] for places in groups(shown)], view, each_method=method_fronts)
    bars = view.few_bars and int(shown["on_front"].sum()) <= traces.BARS
    listed: set[str] = set()
    for (method, source), rows in shown.groupby(["method", "source"], sort=False):
        found += traces.points(rows, view, str(method), str(source), bars=bars)
        entry = view.style(str(method)).title
        if entry not in listed:  # hollow says "reported": a method that is measured too needs one entry only
            found.append(traces.legend_entry(view, str(method), str(source)))
        listed.add(entry)
    if families and len(best := shown[shown["on_front"]]):
        found.append(traces.names(best, view, (limits(shown, view.x), limits(shown, view.y)), shown, marks or {}))
    if len(chosen := shown[shown["run_id"].isin(highlight)]):
        found.append(traces.rings(chosen, view, bars=view.few_bars and len(chosen) <= traces.BARS))
    if marks and len(chosen := shown[shown["run_id"].isin(marks)]):
        found.append(traces.rings(chosen, view, letters=[marks[run_id] for run_id in chosen["run_id"]]))
    fig = go.Figure(found)
    if area is not None and not view.space:
        fig.add_shape(type="path", path=area.outline, line={"color": NEUTRAL, "width": 1.2, "dash": "dot"})
    fig.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 24 if marks else 12, "b": 8},
        showlegend=legend,
        legend=LEGEND,
        hoverlabel={"align": "left"},
        uirevision="/".join(filter(None, (x, y, z, "space" if view.space else ""))),
    )
    _set_axes(fig, shown, view)
    return fig


def towards_good(rows: pd.DataFrame, axes: Sequence[str]) -> np.ndarray:
    """The columns, shape [n, axes], turned so that higher is better on all."""
    signs = [1.0 if MEASURES[column].higher_is_better else -1.0 for column in axes]
    return rows[list(axes)].to_numpy(dtype=float) * signs


def _best_first(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    score = towards_good(rows, (x, y)).sum(axis=1)
    return rows.assign(_score=score).sort_values(["on_front", "_score"], ascending=False).drop(columns="_score")


def _set_axes(fig: go.Figure, shown: pd.DataFrame, view: traces.View) -> None:
    if view.space:
        scene = {
            f"{axis}axis": {"title": {"text": measure.axis_title(axis == "x")}, "range": limits(shown, measure)}
            for axis, measure in (("x", view.x), ("y", view.y), ("z", view.z))
            if measure is not None
        }
        fig.update_layout(scene=scene | {"dragmode": "turntable", "camera": {"eye": {"x": 1.7, "y": -1.9, "z": 0.9}}})
        return
    shared: dict[str, Any] = {"automargin": True, "zeroline": False, "tickformat": ".3~g"}
    fig.update_xaxes(title=view.x.axis_title(True), range=limits(shown, view.x), **shared)
    fig.update_yaxes(title=view.y.axis_title(False), range=limits(shown, view.y), **shared)
    if view.z is not None:
        bar = {"title": {"text": view.z.axis_title(True), "side": "right"}, "thickness": 12, "tickformat": ".3~g"}
        low, high = float(shown[view.z.column].min()), float(shown[view.z.column].max())
        scale = {"colorscale": GOOD_TO_BAD, "cmin": low, "cmax": high if high > low else low + 1e-9}
        scale["reversescale"] = view.z.higher_is_better
        fig.update_layout(coloraxis=scale | {"colorbar": bar})


def limits(shown: pd.DataFrame, measure: Measure) -> list[float]:
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
