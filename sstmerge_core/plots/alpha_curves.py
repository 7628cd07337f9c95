"""Measures against α, one line per method and its other parameters: together, or a small panel per method or pair.

Runs that differ only by their seed are one line: the mean, in a band from the least to the greatest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sstmerge_core import methods
from sstmerge_core.errors import RecipeError
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.plots.style import LEGEND, faded, marker_symbol, order, style

AXES = {
    "share": "α = share of the safety adapter",
    "strength": "α = strength of the safety patch",
    "tuned": "α = share of the tuned model",
}
"""Meanings of α that must never share an axis: a share of 1 is the safety adapter alone, a strength of 1 is not."""
MEASURE_DASH = {"resistance": "solid", "utility": "dash", "over_refusal": "dot"}
"""In a panel of its own a measure is told by its line, for the colour is the method"""
PANEL_HEIGHT = 300
Trace = dict[str, Any]
"""As in `pareto_traces`: a figure checks it once"""
_ALPHA = r"\s*(?:α|seed)=\S+"
_TOKEN = re.compile(r"\S+=\S+|layer-wise")


def axis_of(method: str) -> str:
    """What α means; in figures of methods that we do not run it is a share, as in their tables, but for SST's."""
    try:
        return methods.get(method).axis or "share"
    except RecipeError:
        return "strength" if method.startswith("sst_") else "share"


def with_series(curves: pd.DataFrame) -> pd.DataFrame:
    """`curves` with `axis`, `series` (identifies one line), `series_name` and `series_note` (only what varies), by α.

    Two runs belong to one line when nothing but α and the seed differs: neither a parameter, nor the prompts.
    """
    rows = curves.dropna(subset=["alpha"]).copy()
    known = rows["method"].unique()
    rows["axis"] = rows["method"].map({method: axis_of(method) for method in known})
    rest = rows["label"].fillna("").str.replace(_ALPHA, "", regex=True).str.strip()
    splits = rows["split"].fillna("test")
    rest = rest.where(splits == "test", rest + " split=" + splits)
    if "prompts" in rows:
        counts = {n: f" prompts={n:.0f}" for n in rows["prompts"].dropna().unique()}
        rest = rest + rows["prompts"].astype(object).map(counts).fillna("").astype(rest.dtype)
    rows["series"] = rows["source"] + "|" + rows["method"] + "|" + rest
    names: dict[str, str] = {}
    notes: dict[str, str] = {}
    lines = rows[["method", "source", "series"]].assign(rest=rest).drop_duplicates("series")
    for (method, source), group in lines.groupby(["method", "source"], sort=False):
        tokens = {key: _TOKEN.findall(text) for key, text in zip(group["series"], group["rest"], strict=True)}
        shared = set.intersection(*(set(found) for found in tokens.values()))
        title = style(str(method)).title + (" (reported)" if source == "reported" else "")
        for key, found in tokens.items():
            names[key] = " ".join([title, *(token for token in found if token not in shared)])
            notes[key] = " ".join(token for token in found if token not in shared)
    rows["series_name"], rows["series_note"] = rows["series"].map(names), rows["series"].map(notes)
    rows["series_number"] = rows["series"].map({key: number for number, key in enumerate(sorted(names))})
    rows["_order"] = rows["method"].map({method: place for place, method in enumerate(sorted(known, key=order))})
    return (
        rows.sort_values(["_order", "source", "series", "alpha"], kind="stable")
        .drop(columns="_order")
        .reset_index(drop=True)
    )


def keep(rows: pd.DataFrame, *, methods: Sequence[str] = (), reported: bool = True) -> pd.DataFrame:
    """The rows of these methods (none named: all), with or without the reported figures."""
    chosen = rows if reported else rows[rows["source"] != "reported"]
    return chosen[chosen["method"].isin(methods)] if methods else chosen


def figure(
    rows: pd.DataFrame,
    *,
    axis: str,
    measures: Sequence[str] = ("resistance", "utility", "over_refusal"),
    intervals: bool = True,
    row_height: int = 190,
    legend: bool = True,
) -> go.Figure:
    """One panel per measure above each other with a shared α axis; `rows` comes from `with_series`.

    Measures that no run of this axis has are left out, so there are no empty axes.
    """
    chosen = rows[rows["axis"] == axis]
    present = [name for name in measures if chosen[name].notna().any()]
    fig = make_subplots(rows=max(len(present), 1), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    found: list[tuple[Trace, int]] = []
    for number, name in enumerate(present, start=1):
        measure = MEASURES[name]
        for _, line in chosen.dropna(subset=[name]).groupby("series", sort=False):
            found += [(trace, number) for trace in _traces(line, name, intervals, show_legend=number == 1)]
        fig.update_yaxes(
            title={"text": f"{measure.title} →" if measure.higher_is_better else f"← {measure.title}", "standoff": 14},
            range=[-0.04, 1.04] if measure.bounded else None,
            tickformat=".3~g",
            automargin=True,
            zeroline=False,
            row=number,
            col=1,
        )
    fig.add_traces([trace for trace, _ in found], rows=[row for _, row in found], cols=[1] * len(found))
    fig.update_xaxes(zeroline=False, automargin=True)
    fig.update_xaxes(title=AXES[axis], row=max(len(present), 1), col=1)
    fig.update_layout(
        height=90 + row_height * max(len(present), 1),
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
        showlegend=legend,
        legend=LEGEND,
        hoverlabel={"align": "left"},
        uirevision=axis,
    )
    return fig


def over_seeds(line: pd.DataFrame, name: str) -> pd.DataFrame:
    """One row per α of a line that has the measure: mean over its seeds, their number, the least and the greatest.

    Where there is one seed, its interval (`low`, `high`) and `n`; a mean of several has a range instead.
    """
    others = {"low": f"{name}_low", "high": f"{name}_high", "n": MEASURES[name].n_column}
    values = {key: line[key].to_numpy(dtype=float, na_value=np.nan) for key in ("alpha", name)}
    by_alpha = np.argsort(values["alpha"], kind="stable")
    alpha, first, seeds = np.unique(values["alpha"][by_alpha], return_index=True, return_counts=True)
    value = values[name][by_alpha]
    found = {
        "alpha": alpha,
        "value": np.add.reduceat(value, first) / seeds,
        "least": np.minimum.reduceat(value, first),
        "greatest": np.maximum.reduceat(value, first),
        "seeds": seeds.astype(float),
    }
    for title, column in others.items():
        known = line[column].to_numpy(dtype=float, na_value=np.nan) if column in line else np.full(len(line), np.nan)
        known = known[by_alpha[first]]
        found[title] = known if title == "n" else np.where(seeds > 1, np.nan, known)
    return pd.DataFrame(found)


def crossings(line: pd.DataFrame, first: str = "resistance", second: str = "utility") -> list[tuple[float, float]]:
    """(α, value) where two measures of one line are equal, by linear interpolation between its points."""
    rows = line.dropna(subset=[first, second])
    means = rows.groupby("alpha")[[first, second]].mean().reset_index().astype(float)
    alpha, one, two = (means[name].to_numpy() for name in ("alpha", first, second))
    gap = one - two
    found = []
    for left in range(len(alpha) - 1):
        if gap[left] == 0 or gap[left] * gap[left + 1] < 0:
            share = gap[left] / (gap[left] - gap[left + 1]) if gap[left] else 0.0
            at = alpha[left] + share * (alpha[left + 1] - alpha[left])
            found.append((float(at), float(one[left] + share * (one[left + 1] - one[left]))))
    if len(gap) and gap[-1] == 0:
        found.append((float(alpha[-1]), float(one[-1])))
    return found


def panel(rows: pd.DataFrame, *, measures: Sequence[str] = tuple(MEASURE_DASH), intervals: bool = True) -> go.Figure:
    """Safety and utility of a few lines on one α axis, with a ring where the two cross; `rows` of one meaning of α.

    The dash says the measure, colour and marker the method.
    """
    found: list[Trace] = []
    present = [name for name in measures if rows[name].notna().any()]
    for name in present:
        for _, line in rows.dropna(subset=[name]).groupby("series", sort=False):
            found += _traces(line, name, intervals, show_legend=name == present[0], dash=MEASURE_DASH.get(name))
    for _, line in rows.groupby("series", sort=False):
        met = crossings(line) if {"resistance", "utility"} <= set(present) else []
        if met:
            found.append(_rings(line, met))
    fig = go.Figure(found)
    fig.update_xaxes(title=AXES[str(rows["axis"].iloc[0])], zeroline=False, automargin=True)
    fig.update_yaxes(range=[-0.04, 1.04], tickformat=".3~g", automargin=True, zeroline=False)
    fig.update_layout(
        height=PANEL_HEIGHT,
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
        showlegend=rows["series"].nunique() > 1,
        legend=LEGEND,
        hoverlabel={"align": "left"},
    )
    return fig


def _rings(line: pd.DataFrame, met: Sequence[tuple[float, float]]) -> Trace:
    look = style(str(line["method"].iloc[0]))
    title = str(line["series_name"].iloc[0])
    return dict(
        type="scatter",
        x=[at for at, _ in met],
        y=[value for _, value in met],
        mode="markers",
        marker={"symbol": "circle-open", "size": 15, "color": look.color, "line": {"width": 2}},
        showlegend=False,
        legendgroup=str(line["series"].iloc[0]),
        hovertemplate=f"<b>{title}</b><br>Resistance and utility meet<br>at α %{{x:.3f}}, both %{{y:.3f}}"
        "<br>interpolated between measured points<extra></extra>",
        meta={"method": str(line["method"].iloc[0]), "crossing": True},
    )


def _traces(
    line: pd.DataFrame, name: str, intervals: bool, *, show_legend: bool, dash: str | None = None
) -> list[Trace]:
    """The line of one measure, and the band over its seeds where there are several."""
    points = over_seeds(line, name)
    trace = _line(line, points, name, intervals, show_legend=show_legend)
    if dash:
        trace["line"]["dash"] = dash
    several = points[points["seeds"] > 1]
    if several.empty:
        return [trace]
    ring = (
        pd.concat([several["alpha"], several["alpha"][::-1]]),
        pd.concat([several["greatest"], several["least"][::-1]]),
    )
    color = style(str(line["method"].iloc[0])).color
    band = dict(
        type="scatter",
        x=ring[0].to_numpy(),
        y=ring[1].to_numpy(),
        mode="lines",
        fill="toself",
        fillcolor=faded(color, 0.18),
        line={"width": 3 if len(several) == 1 else 0, "color": faded(color, 0.35)},
        showlegend=False,
        legendgroup=str(line["series"].iloc[0]),
        hoverinfo="skip",
        meta={"method": str(line["method"].iloc[0]), "measure": name, "band": True},
    )
    return [band, trace]


def _line(line: pd.DataFrame, points: pd.DataFrame, name: str, intervals: bool, *, show_legend: bool) -> Trace:
    measure = MEASURES[name]
    method, source = str(line["method"].iloc[0]), str(line["source"].iloc[0])
    look = style(method)
    reported = source == "reported"
    title = str(line["series_name"].iloc[0])
    trace: Trace = dict(
        type="scatter",
        x=points["alpha"].to_numpy(),
        y=points["value"].to_numpy(),
        mode="lines+markers",
        cliponaxis=False,
        name=title,
        legendgroup=str(line["series"].iloc[0]),
        showlegend=show_legend,
        line={"color": look.color, "dash": "dot" if reported else look.dash, "width": 1.4 if reported else 2},
        marker={"color": look.color, "symbol": marker_symbol(method, source), "size": 8},
        opacity=0.75 if reported else 1.0,
        customdata=points[["low", "high", "n", "least", "greatest", "seeds"]].to_numpy(dtype=np.float32),
        hovertemplate=_hover(name, title, reported, bool((points["seeds"] > 1).any())),
        meta={"method": method, "source": source, "measure": name},
    )
    if intervals and not reported and measure.has_interval and points["low"].notna().any():
        value = points["value"].to_numpy()
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(points["high"].to_numpy() - value).clip(min=0),
            "arrayminus": np.nan_to_num(value - points["low"].to_numpy()).clip(min=0),
            "color": faded(look.color, 0.3),
            "thickness": 1.2,
            "width": 0,
        }
    if note := str(line["series_note"].iloc[0]):
        first = bool(line["series_number"].iloc[0] % 2)
        # what distinguishes this line from the others of its method, written at one end: lines meet at the other
        trace |= {
            "mode": "lines+markers+text",
            "text": [note] + [""] * (len(points) - 1) if first else [""] * (len(points) - 1) + [note],
            "textposition": "bottom center" if first else "top center",
            "textfont": {"size": 11, "color": look.color},
        }
    return trace


def _hover(name: str, title: str, reported: bool, seeds: bool) -> str:
    measure = MEASURES[name]
    value = f"{measure.title} %{{y:.3f}} ({measure.direction})"
    lines = [f"<b>{title}</b>", "α %{x:.3~g}", value]
    if reported:
        lines.append("reported, without interval")
    elif seeds:
        lines.append("mean of %{customdata[5]:.0f} seeds, [%{customdata[3]:.3f}, %{customdata[4]:.3f}]")
        lines.append("n %{customdata[2]:.0f} prompts each")
    else:
        if measure.has_interval:
            lines.append("95 % interval [%{customdata[0]:.3f}, %{customdata[1]:.3f}]")
        lines.append("n %{customdata[2]:.0f} prompts")
    return "<br>".join(lines) + "<extra></extra>"
