"""Measures against α, one line per method and its other parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
_ALPHA = re.compile(r"\s*α=\S+")
_TOKEN = re.compile(r"\S+=\S+|layer-wise")


def axis_of(method: str) -> str:
    """What α means; in figures of methods that we do not run it is a share, as in their tables, but for SST's."""
    try:
        return methods.get(method).axis or "share"
    except RecipeError:
        return "strength" if method.startswith("sst_") else "share"


def with_series(curves: pd.DataFrame) -> pd.DataFrame:
    """`curves` with `axis`, `series` (identifies one line), `series_name` and `series_note` (only what varies), by α.

    Two runs belong to one line when nothing but α differs.
    """
    rows = curves.dropna(subset=["alpha"]).copy()
    rows["axis"] = [axis_of(method) for method in rows["method"]]
    rest = [_ALPHA.sub("", label or "").strip() for label in rows["label"].fillna("")]
    splits = rows["split"].fillna("test")
    rest = [text if split == "test" else f"{text} split={split}" for text, split in zip(rest, splits, strict=True)]
    rows["series"] = [
        f"{source}|{method}|{text}" for source, method, text in zip(rows["source"], rows["method"], rest, strict=True)
    ]
    names: dict[str, str] = {}
    notes: dict[str, str] = {}
    for (method, source), group in rows.assign(_rest=rest).groupby(["method", "source"], sort=False):
        tokens = {key: _TOKEN.findall(text) for key, text in zip(group["series"], group["_rest"], strict=True)}
        shared = set.intersection(*(set(found) for found in tokens.values()))
        title = style(str(method)).title + (" (reported)" if source == "reported" else "")
        for key, found in tokens.items():
            names[key] = " ".join([title, *(token for token in found if token not in shared)])
            notes[key] = " ".join(token for token in found if token not in shared)
    rows["series_name"], rows["series_note"] = rows["series"].map(names), rows["series"].map(notes)
    rows["series_number"] = rows["series"].map({key: number for number, key in enumerate(sorted(names))})
    rows["_order"] = [order(method) for method in rows["method"]]
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
    for number, name in enumerate(present, start=1):
        measure = MEASURES[name]
        for _, line in chosen.dropna(subset=[name]).groupby("series", sort=False):
            fig.add_trace(_line(line, name, intervals, show_legend=number == 1), row=number, col=1)
        fig.update_yaxes(
            title={"text": f"{measure.title} →" if measure.higher_is_better else f"← {measure.title}", "standoff": 14},
            range=[-0.04, 1.04] if measure.bounded else None,
            tickformat=".3~g",
            automargin=True,
            zeroline=False,
            row=number,
            col=1,
        )
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


def _line(line: pd.DataFrame, name: str, intervals: bool, *, show_legend: bool) -> go.Scatter:
    measure = MEASURES[name]
    method, source = str(line["method"].iloc[0]), str(line["source"].iloc[0])
    look = style(method)
    reported = source == "reported"
    title = str(line["series_name"].iloc[0])
    trace = go.Scatter(
        x=line["alpha"].to_numpy(dtype=float),
        y=line[name].to_numpy(dtype=float),
        mode="lines+markers+text",
        text=_notes(line),
        textposition="bottom center" if line["series_number"].iloc[0] % 2 else "top center",
        textfont={"size": 11, "color": look.color},
        cliponaxis=False,
        name=title,
        legendgroup=str(line["series"].iloc[0]),
        showlegend=show_legend,
        line={"color": look.color, "dash": "dot" if reported else look.dash, "width": 1.4 if reported else 2},
        marker={"color": look.color, "symbol": marker_symbol(method, source), "size": 8},
        opacity=0.75 if reported else 1.0,
        customdata=_custom(line, name),
        hovertemplate=_hover(name, title, reported),
        meta={"method": method, "source": source, "measure": name},
    )
    if intervals and not reported and measure.has_interval and line[f"{name}_low"].notna().any():
        value = line[name].to_numpy(dtype=float)
        trace.error_y = {
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(line[f"{name}_high"].to_numpy(dtype=float) - value).clip(min=0),
            "arrayminus": np.nan_to_num(value - line[f"{name}_low"].to_numpy(dtype=float)).clip(min=0),
            "color": faded(look.color, 0.3),
            "thickness": 1.2,
            "width": 0,
        }
    return trace


def _notes(line: pd.DataFrame) -> list[str]:
    """What distinguishes this line from the others of its method, written at one end: lines meet at the other."""
    text = [""] * len(line)
    text[0 if line["series_number"].iloc[0] % 2 else -1] = str(line["series_note"].iloc[0])
    return text


def _custom(line: pd.DataFrame, name: str) -> np.ndarray:
    """Per point: low, high, n; NaN where the measure has none. Shape [points, 3]."""
    columns = (f"{name}_low", f"{name}_high", MEASURES[name].n_column)
    return np.column_stack(
        [
            pd.to_numeric(line[column]).to_numpy(dtype=np.float32, na_value=np.nan)
            if column in line
            else np.full(len(line), np.nan, np.float32)
            for column in columns
        ]
    )


def _hover(name: str, title: str, reported: bool) -> str:
    measure = MEASURES[name]
    value = f"{measure.title} %{{y:.3f}} ({measure.direction})"
    lines = [f"<b>{title}</b>", "α %{x:.3~g}", value]
    if reported:
        lines.append("reported, without interval")
    else:
        if measure.has_interval:
            lines.append("95 % interval [%{customdata[0]:.3f}, %{customdata[1]:.3f}]")
        lines.append("n %{customdata[2]:.0f} prompts")
    return "<br>".join(lines) + "<extra></extra>"
