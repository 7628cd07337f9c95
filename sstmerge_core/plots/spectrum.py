"""The eigenvalues of the generalized problem: how many directions carry harm per benign curvature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sstmerge_core.plots.style import NEUTRAL, style


def figure(
    spectrum: pd.DataFrame, *, kept: int | None = None, method: str = "sst_gevp", height: int = 360
) -> go.Figure:
    """`spectrum`: columns `idx` (0-based) and `eigenvalue`, descending. `kept`: the k of the run, drawn as a border."""
    rows = spectrum[spectrum["eigenvalue"] > 0].sort_values("idx")
    rank = rows["idx"].to_numpy(dtype=int) + 1
    look = style(method)
    inside = np.ones(len(rows), dtype=bool) if kept is None else rank <= kept
    fig = go.Figure(
        go.Scatter(
            x=rank,
            y=rows["eigenvalue"].to_numpy(dtype=float),
            mode="lines+markers",
            line={"color": look.color, "width": 1.2},
            marker={"color": look.color, "symbol": look.symbol, "size": 7, "opacity": np.where(inside, 1.0, 0.3)},
            hovertemplate="direction %{x} of " + str(len(rows)) + "<br>λ = %{y:.3~g}<extra></extra>",
            showlegend=False,
        )
    )
    if kept is not None and len(rows) and kept < len(rows):
        fig.add_vline(x=kept + 0.5, line={"color": NEUTRAL, "dash": "dash", "width": 1.2})
        fig.add_annotation(
            x=kept + 0.5, y=1, yref="paper", text=f"kept: k = {kept}", showarrow=False, xanchor="left", xshift=6
        )
    fig.update_layout(height=height, margin={"l": 8, "r": 8, "t": 12, "b": 8})
    fig.update_xaxes(title="Direction, most harm per benign curvature first", automargin=True, zeroline=False)
    fig.update_yaxes(title="Eigenvalue λ (log)", type="log", automargin=True, dtick=1, tickformat="~g")
    return fig
