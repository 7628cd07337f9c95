"""What the whole window does: links stay in their tab, "?" lists the page's shortcuts, a chart's code comes early."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import streamlit as st

from studio import navigation

SCRIPT = Path(__file__).with_name("window.js")
CHARTS = frozenset({"Overview", "Merge", "Alpha curves", "Report"})
"""Pages that nearly always have a chart of Plotly's"""


def furnish(title: str) -> None:
    """On every page, `title` being the one that is open."""
    files = [name for listed in navigation.PAGES.values() for name in listed]
    paths = ["" if name == navigation.FIRST else name for name in files]
    with st.container(key="window"):
        data = {"pages": paths, "keys": navigation.KEYS.get(title, []), "title": title}
        _component()(data=data | {"early": _chart_code() if title in CHARTS else ""}, key="window.js")


@cache
def _chart_code() -> str:
    """Streamlit's file with Plotly in it, 5 MB; empty where it has none of that name."""
    found = sorted((Path(st.__file__).parent / "static" / "static" / "js").glob("PlotlyChart.*.js"))
    return found[0].name if len(found) == 1 else ""


@st.cache_resource(show_spinner=False)
def _component() -> st.components.v2.types.ComponentRenderer:
    return st.components.v2.component("sstmerge_window", html="", js=SCRIPT.read_text(encoding="utf-8"))
