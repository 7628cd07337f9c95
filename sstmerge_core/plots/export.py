"""A figure that leaves the dashboard: one HTML file with everything inside."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b2430}}
h1{{font-size:1.4rem;margin-bottom:.2rem}} p{{color:#5c6672;margin-top:0}}</style></head>
<body><h1>{title}</h1><p>{note}</p>
{figures}
</body></html>
"""


def page(figures: Sequence[go.Figure], *, title: str, note: str = "") -> str:
    """A self-contained page (about 5 MB, plotly.js included once) that opens without a network."""
    parts = []
    for number, figure in enumerate(figures):
        light = go.Figure(figure).update_layout(template="plotly_white")
        parts.append(light.to_html(full_html=False, include_plotlyjs=number == 0, default_width="100%"))
    return _PAGE.format(title=html.escape(title), note=html.escape(note), figures="\n".join(parts))
