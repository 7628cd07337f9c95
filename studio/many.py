"""A chart of thousands of points on a canvas, in place of Plotly, whose code and WebGL take a browser seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

SCRIPT = Path(__file__).with_name("many.js")
LOOK = Path(__file__).with_name("many.css")
MOST = 20_000
"""Numbers that a browser may tell of a selection at most"""


def chart(figure: str, *, key: str, height: int, alt: str) -> dict[str, Any]:
    """Draw `figure`, the JSON of one of `plots.pareto` without a third measure, `height` pixels high.

    Returns what was selected, as `st.plotly_chart` does: under ``selection``, points, boxes and lassos.
    """
    found = _component()(
        data={"figure": figure, "alt": alt},
        default={"selection": None},
        on_selection_change=lambda: None,
        key=key,
        height=height,
    )
    return {"selection": selection(found.selection)}


def selection(told: Any) -> dict[str, list[dict[str, Any]]]:
    """What a browser says is selected, without what no chart could say."""
    told = told if isinstance(told, Mapping) else {}
    areas = {
        kind: [
            {"x": list(map(float, area["x"])), "y": list(map(float, area["y"]))}
            for area in _listed(told.get(kind))
            if isinstance(area, Mapping) and _numbers(area.get("x")) and _numbers(area.get("y"))
            if len(area["x"]) == len(area["y"]) and (len(area["x"]) == 2 if kind == "box" else len(area["x"]) > 2)
        ]
        for kind in ("box", "lasso")
    }
    points = [
        {"customdata": point["customdata"]}
        for point in _listed(told.get("points"))
        if isinstance(point, Mapping) and _numbers(point.get("customdata")) and point["customdata"]
    ]
    return {"points": points, **areas}


def _listed(told: Any) -> list[Any]:
    return told[:MOST] if isinstance(told, list) else []


def _numbers(told: Any) -> bool:
    return (
        isinstance(told, list)
        and all(isinstance(one, (int, float)) and math.isfinite(one) for one in told[:MOST])
        and len(told) <= MOST
    )


@st.cache_resource(show_spinner=False)
def _component() -> st.components.v2.types.ComponentRenderer:
    return st.components.v2.component(
        "sstmerge_many",
        html='<div class="many-chart"></div>',
        css=LOOK.read_text(encoding="utf-8"),
        js=SCRIPT.read_text(encoding="utf-8"),
        isolate_styles=False,
    )
