"""One picture for each of the reports' experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from sstmerge_core.experiments.result import PARENTS, Result, title
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.plots.style import LEGEND, NEUTRAL, style

Row = Mapping[str, Any]


def figure(result: Result, *, height: int = 420) -> go.Figure | None:
    """The experiment's picture, None where it has measured nothing to draw."""
    draw = {
        "safety-tax": lambda: _plane(result.table("tax").rows, lambda row: f"{row['model']} · {row['pair']}"),
        "interference": lambda: _retention(result.table("retention").rows),
        "baselines": lambda: _spread(result.table("runs").rows),
        "alpha-k": lambda: _plane(_once(result.table("finalists").rows), _finalist),
        "search": lambda: _plane(result.table("trials").rows, lambda row: f"{row['parameters']}, selection split"),
        "contest": lambda: _plane(result.table("contest").rows, lambda row: f"{row['pair']}: {title(row['method'])}"),
        "pre-post": lambda: _plane(result.table("runs").rows, lambda row: f"{row['model']}: {row['run']}"),
    }[result.experiment]
    found = draw()
    if not found.data:
        return None
    return found.update_layout(height=height, legend=LEGEND, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def predicted(result: Result, *, height: int = 420) -> go.Figure | None:
    """The front that a search predicted before anything was generated: a line per method along α."""
    rows = result.table("predicted").rows if result.experiment == "search" else []
    picture = go.Figure()
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        look = style(method)
        picture.add_scatter(
            x=[-row["harm_change"] for row in own],
            y=[row["benign_cost"] for row in own],
            mode="lines+markers",
            name=look.title,
            line={"color": look.color, "dash": look.dash},
            marker={"symbol": look.symbol, "size": 7},
            text=["no α" if row["alpha"] is None else f"α = {row['alpha']:g}" for row in own],
            hovertemplate="%{text}<br>refusal loss falls by %{x:.3g}<br>benign loss rises by %{y:.3g}"
            f"<extra>{look.title}</extra>",
        )
    if not picture.data:
        return None
    picture.update_xaxes(title="Predicted fall of the refusal loss, nats per token →")
    picture.update_yaxes(title="Predicted benign cost, nats per token ↓")
    return picture.update_layout(height=height, legend=LEGEND, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def _plane(rows: Sequence[Row], name: Any) -> go.Figure:
    """Every row between resistance and utility with both intervals, a colour per method."""
    picture = go.Figure()
    known = [row for row in rows if row.get("resistance") is not None and row.get("utility") is not None]
    groups: dict[str, list[Row]] = {}
    for row in known:
        groups.setdefault(_group(row), []).append(row)
    for group, own in groups.items():
        look = style(group)
        picture.add_scatter(
            x=[row["resistance"] for row in own],
            y=[row["utility"] for row in own],
            error_x=_bars(own, "resistance", look.color),
            error_y=_bars(own, "utility", look.color),
            mode="markers",
            name=look.title,
            marker={"color": look.color, "symbol": look.symbol, "size": 10},
            # of several seeds the first one's run stands for all
            customdata=[row["run_id"] if "run_id" in row else row["run_ids"][0] for row in own],
            text=[escape(name(row)) for row in own],
            hovertemplate="%{text}<br>resistance %{x:.3f}<br>utility %{y:.3f}<extra></extra>",
        )
    picture.update_xaxes(title=MEASURES["resistance"].axis_title(True), range=[-0.04, 1.04])
    return picture.update_yaxes(title=MEASURES["utility"].axis_title(False), rangemode="tozero")


def _retention(rows: Sequence[Row]) -> go.Figure:
    """Retention against the number of experts, a line per method and setting; a method's second is hollow."""
    picture = go.Figure()
    known = [row for row in rows if row["retention"] is not None]
    drawn: set[str] = set()
    for method, parameters in dict.fromkeys((row["method"], row.get("parameters")) for row in known):
        own = [row for row in known if (row["method"], row.get("parameters")) == (method, parameters)]
        look = style(method)
        name = f"{look.title} {parameters}" if parameters else look.title
        hollow = "-open" if method in drawn else ""
        drawn.add(method)
        picture.add_scatter(
            x=[row["experts"] for row in own],
            y=[row["retention"] for row in own],
            error_y=_bars(own, "retention", look.color),
            mode="lines+markers",
            name=name,
            line={"color": look.color, "dash": look.dash},
            marker={"symbol": look.symbol + hollow, "size": 9},
            customdata=[row["run_id"] for row in own],
            hovertemplate="%{x} experts<br>retention %{y:.3f}<extra>" + name + "</extra>",
        )
    picture.update_xaxes(title="Experts merged →", tickvals=sorted({row["experts"] for row in rows}))
    return picture.update_yaxes(title="Retention ↑", rangemode="tozero")


def _spread(rows: Sequence[Row]) -> go.Figure:
    """Every training seed's score, a row per method, its mean as a line."""
    picture = go.Figure()
    for method in reversed(list(dict.fromkeys(row["method"] for row in rows))):
        own = [row for row in rows if row["method"] == method and row["score"] is not None]
        look, name = style(_group({"method": method})), title(method)
        values = [row["score"] for row in own]
        picture.add_scatter(
            x=values,
            y=[name] * len(own),
            mode="markers",
            marker={"color": look.color, "symbol": look.symbol, "size": 10},
            customdata=[row["run_id"] for row in own],
            text=[f"training seed {row['seed']}" for row in own],
            hovertemplate="%{text}<br>score %{x:.3f}<extra>" + name + "</extra>",
            showlegend=False,
        )
        if values:
            picture.add_scatter(
                x=[sum(values) / len(values)],
                y=[name],
                mode="markers",
                marker={"color": NEUTRAL, "symbol": "line-ns-open", "size": 22, "line": {"width": 2}},
                hovertemplate="mean %{x:.3f}<extra>" + name + "</extra>",
                showlegend=False,
            )
    return picture.update_xaxes(title="Score over training seeds →")


def _group(row: Row) -> str:
    """The method that gives a row its colour."""
    if "method" in row and row["method"] not in PARENTS.values():
        return str(row["method"])
    model = str(row.get("model") or row["method"])
    if model in ("Base model", "Before tuning"):
        return "base"
    if model.endswith(" alone") or model == "After tuning":
        return "adapter"
    return next((name for name in _BY_TITLE if model.startswith(_BY_TITLE[name])), "adapter")


def _titles() -> dict[str, str]:
    from sstmerge_core import methods

    found = {name: methods.get(name).title for name in methods.names()}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


_BY_TITLE = _titles()
"""Longest first, so that a title that begins another is not taken for it"""


def _bars(rows: Sequence[Row], column: str, color: str) -> dict[str, Any]:
    """Distances to the interval's ends, no bar where there is none."""
    up, down = [], []
    for row in rows:
        low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
        up.append(0.0 if high is None else high - row[column])
        down.append(0.0 if low is None else row[column] - low)
    return {"type": "data", "array": up, "arrayminus": down, "color": color, "thickness": 1, "width": 0}


def _once(rows: Sequence[Row]) -> list[Row]:
    """Two goals may choose the same run."""
    return list({row["run_id"]: row for row in rows}.values())


def _finalist(row: Row) -> str:
    own = [f"{axis} {row[axis]:g}" for axis in ("alpha", "k", "seed") if row.get(axis) is not None]
    return f"{' '.join([title(row['method']), *own])} · {row['pair']}"
