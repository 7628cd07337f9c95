"""A statistic of every module as a heat map: layers downwards, kinds of module across."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sstmerge_core.plots.style import DIVERGING, NEUTRAL, SEQUENTIAL

_LAYER = re.compile(r"\.(\d+)\.")
_KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Statistic:
    name: str
    title: str
    help: str
    signed: bool = False


_ALL = (
    Statistic(
        "cosine",
        "Cosine of ΔU and ΔS",
        "1: the adapters pull a module the same way; −1: against each other; 0: unrelated.",
        signed=True,
    ),
    Statistic("overlap_out", "Overlap of output spaces", "Share of ΔS's output directions that ΔU uses too."),
    Statistic("overlap_in", "Overlap of input spaces", "Share of ΔS's input directions that ΔU uses too."),
    Statistic("norm_utility", "Size of ΔU", "Frobenius norm of the utility adapter's weight change."),
    Statistic("norm_safety", "Size of ΔS", "Frobenius norm of the safety adapter's weight change."),
    Statistic("alpha", "α found", "The largest strength that keeps to the limits, at most 4; the method chose it."),
    Statistic(
        "selection_rouge_l", "Utility at α found", "In points of 100, on the selection prompts that α was chosen on."
    ),
    Statistic(
        "selection_rouge_l_utility",
        "Utility at α = 0",
        "In points of 100, on the selection prompts: the utility side alone, which the budget counts from.",
    ),
    Statistic(
        "selection_over_refusal",
        "Over-refusal at α found",
        "Share of the harmless look-alikes refused, on the selection prompts that α was chosen on.",
    ),
    Statistic(
        "kept_harm_energy",
        "Kept harm energy",
        "δᵀF_hδ / φᵀF_hφ: how much of what the safety update φ does to harmful prompts the added part δ does too. Of a "
        "single module it can exceed 1: the directions are found over all modules together.",
    ),
    Statistic(
        "benign_cost",
        "Predicted benign cost",
        "αḡᵀδ + ½α²δᵀF_bδ, in nats per token: by how much the loss on benign answers should rise. A proxy.",
    ),
    Statistic("norm_ratio", "Size of ΔW ÷ size of ΔU", "Near 0: the merge is nearly the base model."),
    Statistic(
        "proxy_direction",
        "ΔS stands in for the safe direction",
        "1: no aligned − unaligned pair of models was given, so V = ΔS.",
    ),
    Statistic(
        "mask_mean",
        "Mean of the mask",
        "From 0 to 1: how much of a module's safety update is let through, on average over its coordinates.",
    ),
    Statistic("directions_kept", "Directions kept", "k, or the rank of the problem where that is smaller."),
    Statistic(
        "edited", "Modules edited", "1: the merged weight of this module was edited; of the whole merge: the share."
    ),
    Statistic("norm_patch", "Size of the patch", "Frobenius norm of δ, before α."),
    Statistic(
        "weight_utility",
        "Weight of ΔU",
        "What multiplies the first utility adapter, found from the angle.",
    ),
    Statistic("weight_safety", "Weight of ΔS", "What multiplies the safety adapter, found from the angle."),
    Statistic(
        "changed",
        "Changed modules",
        "1 where the merge departs from the utility side, 0 where it is ΔU as it was. All modules: their share.",
    ),
    Statistic(
        "linear_rule",
        "Linear rule",
        "1 where base and tuned weights were almost parallel (|cos| > 0.9995), so that the straight line was taken "
        "instead of the arc. All modules: their share.",
    ),
    Statistic(
        "rank_error",
        "Error of the low-rank adapter",
        "‖ΔW − BA‖ / ‖ΔW‖: what is lost where the exact merge, which was measured, is written as a LoRA adapter.",
    ),
    Statistic(
        "rounding_error",
        "Error of rounding",
        "‖ΔW − written‖ / ‖ΔW‖: what is lost in the number format of the written adapter.",
    ),
)
STATISTICS = {statistic.name: statistic for statistic in _ALL}


def describe(stat: str) -> Statistic:
    return STATISTICS.get(stat, Statistic(stat, stat.replace("_", " ").capitalize(), ""))


def present(stats: pd.DataFrame) -> list[str]:
    """The statistics that `stats` has per module, in the order above, unknown ones last."""
    found = set(stats.loc[stats["module"] != "", "stat"])
    return [name for name in STATISTICS if name in found] + sorted(found - set(STATISTICS))


def pooled(stats: pd.DataFrame) -> dict[str, float]:
    """The statistics of the whole merge, in the order above, unknown ones last."""
    found = dict(stats.loc[stats["module"] == "", ["stat", "value"]].itertuples(index=False))
    return {name: found[name] for name in [*STATISTICS, *sorted(found)] if name in found}


def by_layer(stats: pd.DataFrame, stat: str) -> pd.DataFrame:
    """`stats` (columns module, stat, value) as a table: index = layer number, columns = kind of module."""
    rows = stats[(stats["stat"] == stat) & (stats["module"] != "")]
    layers = [_layer(module) for module in rows["module"]]
    kinds = [escape(module.rsplit(".", 1)[-1]) for module in rows["module"]]
    table = (
        pd.DataFrame({"layer": layers, "kind": kinds, "value": rows["value"].to_numpy(dtype=float)})
        .groupby(["layer", "kind"])["value"]
        .mean()
        .unstack()
    )
    known = [kind for kind in _KINDS if kind in table]
    return table[[*known, *(kind for kind in table if kind not in known)]].sort_index()


def figure(stats: pd.DataFrame, stat: str) -> go.Figure:
    """Heat map of `stat` with each layer's mean beside it; gaps are modules that an adapter does not change."""
    table = by_layer(stats, stat)
    statistic = describe(stat)
    # most values are small: a fixed −1…1 would be one flat colour, so the bar beside it gives the numbers
    high = float(table.abs().max().max()) if table.size else 0.0
    signed = statistic.signed or bool((table < 0).any(axis=None))
    high = max(high, 0.05) if statistic.signed else high or 1.0
    low = -high if signed else 0.0
    fig = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.76, 0.24], horizontal_spacing=0.03)
    layers = [str(layer) for layer in table.index]
    fig.add_trace(
        go.Heatmap(
            z=table.to_numpy(dtype=float),
            x=list(table.columns),
            y=layers,
            colorscale=DIVERGING if signed else SEQUENTIAL,
            zmin=low,
            zmax=high,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate="layer %{y} · %{x}<br>" + statistic.title + " %{z:.3~g}<extra></extra>",
            colorbar={"thickness": 10, "outlinewidth": 0, "tickformat": ".2~g"},
        ),
        row=1,
        col=1,
    )
    fig.add_trace(
        go.Bar(
            x=table.mean(axis="columns").to_numpy(dtype=float),
            y=layers,
            orientation="h",
            marker={"color": NEUTRAL, "line": {"width": 0}},
            hovertemplate="layer %{y}, mean of its modules<br>" + statistic.title + " %{x:.3~g}<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=2,
    )
    fig.update_layout(height=max(260, 90 + 13 * len(table)), margin={"l": 8, "r": 8, "t": 12, "b": 8})
    fig.update_xaxes(automargin=True, showgrid=False, side="bottom")
    fig.update_xaxes(title="mean", nticks=3, tickformat=".2~g", zeroline=True, row=1, col=2)
    fig.update_yaxes(automargin=True, showgrid=False, autorange="reversed", type="category")
    fig.update_yaxes(title="Layer", row=1, col=1)
    return fig


def _layer(module: str) -> int:
    match = _LAYER.search(f".{module}.")
    return int(match.group(1)) if match else -1
