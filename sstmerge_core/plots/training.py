"""The loss curve of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from sstmerge_core.methods.palette import BLUE, VERMILION
from sstmerge_core.plots.style import LEGEND, NEUTRAL, faded

SMOOTH = 20
"""A long training's line is a running mean over one part in so many of its steps, with the single steps behind it"""
LONG = 100


def figure(curve: Mapping[str, Any], *, height: int = 360) -> go.Figure:
    """Training loss per step and validation loss per epoch, in nats per response token, over all planned steps.

    `curve`: ``steps`` (planned), ``loss`` (of each step so far), optionally ``validation`` (``epoch``, ``step`` and
    ``loss`` of each epoch) and ``patience``, as in an adapter's record. With a patience the epoch that is kept is
    marked.
    """
    losses = [float(loss) for loss in curve["loss"]]
    steps = list(range(1, len(losses) + 1))
    window = len(losses) // SMOOTH if len(losses) >= LONG else 1
    picture = go.Figure()
    picture.add_scattergl(
        x=steps,
        y=losses,
        mode="lines" if len(losses) > 1 else "markers",
        name="training, each step" if window > 1 else "training",
        line={"color": faded(BLUE, 0.5) if window > 1 else BLUE, "width": 1 if window > 1 else 2},
        hovertemplate="step %{x}<br>loss %{y:.3f}<extra></extra>",
    )
    if window > 1:
        picture.add_scattergl(
            x=steps,
            y=_running_mean(losses, window),
            mode="lines",
            name=f"training, mean of {window}",
            line={"color": BLUE, "width": 2},
            hoverinfo="skip",
        )
    if validation := curve.get("validation"):
        best = min(validation, key=lambda one: one["loss"])
        picture.add_scatter(
            x=[one["step"] for one in validation],
            y=[one["loss"] for one in validation],
            customdata=[one["epoch"] for one in validation],
            mode="lines+markers",
            name="validation, each epoch",
            line={"color": VERMILION, "width": 2, "dash": "dash"},
            marker={"symbol": "diamond", "size": 9},
            hovertemplate="epoch %{customdata:g}, step %{x}<br>validation loss %{y:.3f}<extra></extra>",
        )
        if curve.get("patience"):
            picture.add_scatter(
                x=[best["step"]],
                y=[best["loss"]],
                mode="markers",
                name="kept",
                marker={"symbol": "circle-open", "size": 18, "color": NEUTRAL, "line": {"width": 2}},
                hoverinfo="skip",
            )
    picture.update_xaxes(title="Step →", range=[0, max(int(curve["steps"]), 2) * 1.02], rangemode="tozero")
    picture.update_yaxes(title="Loss, nats per response token ↓", rangemode="tozero")
    return picture.update_layout(height=height, legend=LEGEND, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def summary(training: Mapping[str, Any]) -> str:
    """A finished or running training in one line: steps, last losses, early stop."""
    losses, planned = training["loss"], int(training["steps"])
    parts = [f"{len(losses):,} of {planned:,} steps" if len(losses) < planned else f"{planned:,} steps"]
    if losses:
        parts.append(f"training loss {losses[0]:.2f} → {losses[-1]:.2f}")
    if validation := training.get("validation"):
        best = min(validation, key=lambda one: one["loss"])
        parts.append(f"lowest validation loss {best['loss']:.2f} at epoch {best['epoch']:g}")
        if training.get("patience") and best is not validation[-1]:
            parts.append("those weights are kept")
    return " · ".join(parts)


def _running_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and those up to `window` − 1 before it."""
    found, total = [], 0.0
    for place, value in enumerate(values):
        total += value - (values[place - window] if place >= window else 0.0)
        found.append(total / min(place + 1, window))
    return found
