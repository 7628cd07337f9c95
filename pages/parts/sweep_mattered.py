"""What mattered in a sweep: its runs along their parameters, and how much of a measure each parameter explains."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sstmerge_core.analysis import importance
from sstmerge_core.plots import sweeps
from sstmerge_core.plots.measures import MEASURES
from studio import blocks

LEAST = 3
"""Runs that make lines worth drawing"""
NARROW = """<style>
.st-key-parallel { overflow-x: auto; }
.st-key-parallel [data-testid="stElementContainer"], .st-key-parallel [data-testid="stFullScreenFrame"],
.st-key-parallel [data-testid="stPlotlyChart"] { min-width: 600px; }
</style>"""
"""On a telephone the axes keep their distance, and the box scrolls"""
MEASURED = ("resistance", "utility", "over_refusal")


def draw(runs: pd.DataFrame, *, key: str) -> None:
    """`runs`: of `queries.report_runs`. Nothing where fewer than three have finished, or nothing varies."""
    known = [name for name in MEASURED if name in runs and runs[name].notna().all()]
    rows = sweeps.settings(runs)
    if len(runs) < LEAST or not known or not sweeps.tried(rows):
        return
    with st.expander("What mattered", icon=":material/tune:"):
        colour = st.segmented_control(
            "Coloured by",
            known,
            default=known[0],
            format_func=lambda name: MEASURES[name].title,
            key=f"{key}.colour",
            required=True,
        )
        st.html(NARROW)
        with st.container(key="parallel"):
            st.plotly_chart(
                sweeps.parallel(runs, str(colour or known[0])),
                config=blocks.CHART_CONFIG,
                key=f"{key}.parallel",
                alt=f"{len(runs)} runs along their parameters and measures",
            )
        st.caption("A line is a run. Drag along an axis to keep the runs that pass there; drag an axis to move it.")
        _importance(runs, rows, known, key)


def _importance(runs: pd.DataFrame, rows: list[dict[str, object]], known: list[str], key: str) -> None:
    if not importance.installed():
        st.caption(f"How much each parameter mattered is told by optuna. {importance.INSTALL}")
        return
    if len(runs) < importance.LEAST:
        st.caption(f"How much each parameter mattered is told of {importance.LEAST} runs or more.")
        return
    found = {
        name: importance.importances(rows, runs[name].tolist(), maximize=MEASURES[name].higher_is_better)
        for name in known
    }
    found = {name: shares for name, shares in found.items() if shares}
    if found:
        st.plotly_chart(
            sweeps.bars(found), config=blocks.CHART_CONFIG, key=f"{key}.importance", alt="Importance of each parameter"
        )
        st.caption(
            f"{importance.evaluator()} of {len(runs)} runs: how much each parameter alone explains of what differs. "
            "It says nothing of prompts that were not asked."
        )
