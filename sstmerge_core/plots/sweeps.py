"""Runs of a sweep along their parameters: parallel coordinates, and which parameter mattered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sstmerge_core import methods
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.plots.style import GOOD_TO_BAD, LEGEND, NEUTRAL, style

SHOWN = ("resistance", "utility", "over_refusal", "seconds")
MOST = 8
"""Axes beside each other; with more nobody can follow a line"""
LATEX_FREE = {"alpha": "α", "method": "Method"}


def settings(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each run's method and parameters (of `queries.report_runs`: JSON text), those that every run has."""
    found = []
    for method, text in zip(runs["method"], runs["parameters"], strict=True):
        given = json.loads(text or "{}")
        given = given if isinstance(given, dict) else {}
        complete = methods.get(method).complete(given) if method in methods.names() else given
        found.append({"method": str(method), **complete})
    return found


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that differ between the runs, in the order in which the first ones name them."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if len({repr(row.get(name)) for row in rows}) > 1]


def tried(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that the sweep varied: the method, then those in which two runs of one method differ."""
    within = []
    for method in dict.fromkeys(row["method"] for row in rows):
        within += varying([row for row in rows if row["method"] == method])
    methods_vary = ["method"] if len({row["method"] for row in rows}) > 1 else []
    return [*methods_vary, *dict.fromkeys(within)]


def parallel(runs: pd.DataFrame, colour: str = "resistance", *, height: int = 380) -> go.Figure:
    """A line a run through every parameter that was tried and every measure that is known, `MOST` axes at most.

    `colour`: by which measure.
    """
    rows = settings(runs)
    measured = [
        {"label": MEASURES[name].title, "values": runs[name].astype(float).fillna(0.0).to_numpy(), "tickformat": ".3~g"}
        for name in SHOWN
        if name in runs and runs[name].notna().all()
    ]
    axes = [_axis(name, [row.get(name) for row in rows]) for name in tried(rows)[: MOST - min(3, len(measured))]]
    axes += measured[: MOST - len(axes)]
    values = runs[colour].astype(float)
    low, high = float(values.min()), float(values.max())
    scale = (
        [[1 - at, color] for at, color in reversed(GOOD_TO_BAD)]
        if MEASURES[colour].higher_is_better
        else [[at, color] for at, color in GOOD_TO_BAD]
    )
    line = {
        "color": values.to_numpy(),
        "colorscale": scale,
        "showscale": True,
        "cmin": low,
        "cmax": max(high, low + 1e-9),
    }
    line["colorbar"] = {"title": MEASURES[colour].title, "thickness": 12}
    figure = go.Figure(
        go.Parcoords(dimensions=axes, line=line, labelfont={"size": 12}, unselected={"line": {"opacity": 0.05}})
    )
    return figure.update_layout(height=height, margin={"l": 110, "r": 20, "t": 50, "b": 24})


def bars(shares: Mapping[str, Mapping[str, float]], *, height: int = 0) -> go.Figure:
    """`shares`: measure → parameter → share; a group of bars a parameter, the measure told by shade and name."""
    figure = go.Figure()
    names = sorted(
        {name for own in shares.values() for name in own},
        key=lambda name: sum(own.get(name, 0) for own in shares.values()),
    )
    shades = (style("linear").color, style("sst_gevp").color, NEUTRAL)
    for (measure, own), color in zip(shares.items(), shades, strict=False):
        figure.add_bar(
            y=[LATEX_FREE.get(name, name) for name in names],
            x=[own.get(name, 0.0) for name in names],
            orientation="h",
            name=MEASURES[measure].title,
            marker={"color": color},
            hovertemplate="%{y}: %{x:.0%} of " + MEASURES[measure].title.lower() + "<extra></extra>",
        )
    figure.update_xaxes(title="Share of what the parameters explain →", tickformat=".0%", range=[0, 1])
    height = height or 150 + 40 * len(names)
    return figure.update_layout(height=height, barmode="group", legend=LEGEND, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def _axis(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A parameter's axis: numbers as they are, anything else by its place among what there is."""
    label = LATEX_FREE.get(name, name)
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        ticks = sorted({float(value) for value in values})
        own: dict[str, Any] = {"tickvals": ticks} if len(ticks) <= 8 else {"tickformat": ".3~g"}
        return {"label": label, "values": [float(value) for value in values], **own}
    kinds = sorted({"–" if value is None else str(value) for value in values}, key=_by_number)
    texts = [style(kind).title if name == "method" else kind for kind in kinds]
    places = [float(kinds.index("–" if value is None else str(value))) for value in values]
    return {"label": label, "values": places, "tickvals": list(range(len(kinds))), "ticktext": texts}


def _by_number(text: str) -> tuple[int, float, str]:
    """Numbers by their size, then words, what there is none of last."""
    try:
        return 0, float(text), ""
    except ValueError:
        return (2 if text == "–" else 1), 0.0, text
