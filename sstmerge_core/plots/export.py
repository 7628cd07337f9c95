"""Figures and figures' numbers that leave the dashboard: one HTML file with everything inside, pictures, LaTeX."""

from __future__ import annotations

import base64
import csv
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sstmerge_core import words
from sstmerge_core.errors import Problem, StoreError
from sstmerge_core.plots import standalone, tex
from sstmerge_core.plots.measures import MEASURES

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b2430}}
h1{{font-size:1.4rem;margin-bottom:.2rem}} h2{{font-size:1.1rem}} p{{color:#5c6672;margin-top:0}}
table{{border-collapse:collapse;font-size:.85rem}} .wide,pre{{overflow-x:auto}} pre{{background:#f5f6f8;padding:.8rem}}
td,th{{padding:.25rem .6rem;border-bottom:1px solid #dde1e6;text-align:right;vertical-align:top}}
td small{{color:#5c6672;white-space:nowrap}} .plotly-graph-div{{overflow:hidden}}
@media (max-width:34rem){{table{{font-size:.72rem;width:100%}} td,th{{padding:.2rem .15rem}}
td small{{white-space:normal}}}}
td:first-child,th:first-child{{text-align:left}}
</style></head>
<body><h1>{title}</h1><p>{note}</p>
{figures}
{data}{recipes}
</body></html>
"""
PICTURES = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
"""Formats of `picture` and their media types"""
_ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$"}
_COLUMNS = ("resistance", "utility", "over_refusal")


def page(
    figures: Sequence[go.Figure],
    *,
    title: str,
    note: str = "",
    data: pd.DataFrame | None = None,
    recipes: Mapping[str, str] | None = None,
) -> str:
    """A self-contained page (1.2 MB and what is in it) that opens without a network and without us.

    Of `data` the measures are shown as a table, and all of it can be saved from the page as CSV; `recipes` (text by
    name) are folded below it.
    """
    return _PAGE.format(
        title=html.escape(title),
        note=html.escape(note),
        figures="\n".join([standalone.script(figures), *map(standalone.drawn, figures)]),
        data="" if data is None else _data(data),
        recipes=_recipes(recipes or {}),
    )


def _data(rows: pd.DataFrame) -> str:
    link = _saved("data.csv", "text/csv", csv_text(rows))
    count = words.count(len(rows), "run")
    return f'<h2>Data</h2><p>{count}; every column: {link}</p><div class="wide">{_table(rows)}</div>\n'


def _table(rows: pd.DataFrame) -> str:
    """What a reader looks for: the run, α, what varies, and each measure with its interval below it."""
    name = next((one for one in ("series_name", "label", "run_id") if one in rows), None)
    texts = [one for one in ("pair", "split", "seed") if one in rows and rows[one].nunique() > 1]
    heads = {"series_name": "Run", "label": "Run", "run_id": "Run", "pair": "Pair", "split": "Prompts", "seed": "Seed"}
    columns: list[tuple[str, list[str]]] = []
    if name is not None:
        own = rows["own_name"] if "own_name" in rows else pd.Series(None, index=rows.index, dtype=object)
        called = [
            f"{given} ({usual})" if isinstance(given, str) else str(usual)
            for given, usual in zip(own, rows[name], strict=True)
        ]
        columns.append((heads[name], list(map(html.escape, called))))
    columns += [(heads[one], [html.escape(_cell(value)) for value in rows[one]]) for one in texts]
    if "alpha" in rows:
        columns.append(("α", [_cell(value) for value in rows["alpha"]]))
    for measure in (one for one in _COLUMNS if one in rows and rows[one].notna().any()):
        about = MEASURES[measure]
        cells = [_measured(row, measure) for row in rows.to_dict("records")]
        columns.append((f"{about.title}\N{NO-BREAK SPACE}{'↑' if about.higher_is_better else '↓'}", cells))
    if "resistance_n" in rows:
        columns.append(("n", [_cell(value) for value in rows["resistance_n"]]))
    head = "".join(f"<th>{title}</th>" for title, _ in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for cells in zip(*(cells for _, cells in columns), strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, (int, float, np.number)) else str(value)


def _measured(row: Mapping[Any, Any], measure: str) -> str:
    value, low, high = (row.get(key) for key in (measure, f"{measure}_low", f"{measure}_high"))
    if pd.isna(value):
        return "–"
    between = "" if pd.isna(low) or pd.isna(high) else f"<br><small>{low:.3f} to {high:.3f}</small>"
    return f"{value:.3f}{between}"


def _recipes(recipes: Mapping[str, str]) -> str:
    if not recipes:
        return ""
    folded = [
        f"<details><summary>{html.escape(name)} {_saved(f'{name}.yaml', 'text/yaml', text)}</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
        for name, text in recipes.items()
    ]
    return f"<h2>Recipes</h2><p>The same recipe gives the same run.</p>{''.join(folded)}"


def _saved(name: str, kind: str, text: str) -> str:
    content = base64.b64encode(text.encode()).decode()
    return f'<a download="{html.escape(name)}" href="data:{kind};base64,{content}">{html.escape(name)}</a>'


def can_draw_pictures() -> bool:
    """Whether kaleido and a Chromium-like browser are here, which `picture` needs."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return False
    return Chromium.find_browser(skip_local=False) is not None


def picture(figure: go.Figure, kind: str, *, width: int = 900) -> bytes:
    """`figure` as PNG (twice the pixels), SVG or PDF on white. Raises StoreError where what draws it is missing."""
    fix = 'Install the extra [export] and Chrome or Chromium: pip install "sstmerge[export]", then kaleido_get_chrome.'
    if not can_draw_pictures():
        raise StoreError(Problem(f"picture as {kind}", "needs kaleido and a Chromium-like browser", fix))
    light = go.Figure(figure).update_layout(template="plotly_white", width=width)
    try:
        return light.to_image(format=kind, scale=2 if kind == "png" else 1)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StoreError(Problem(f"picture as {kind}", f"could not be drawn: {reason}", fix)) from error


def latex(rows: pd.DataFrame, *, caption: str, label: str) -> str:
    """Rows of the leaderboard as a booktabs table: run, α, each measure with its 95 % interval, and n."""
    measured = [name for name in _COLUMNS if name in rows and rows[name].notna().any()]
    heads = [f"{MEASURES[name].title} {_ARROWS[MEASURES[name].higher_is_better]}" for name in measured]
    lines = []
    for row in rows.to_dict("records"):
        alpha = "--" if pd.isna(row["alpha"]) else f"{row['alpha']:.3g}"
        n = row.get("resistance_n")
        cells = [tex.text(str(row["series_name"])), alpha, *(_tex_value(row, name) for name in measured)]
        lines.append([*cells, "--" if pd.isna(n) else f"{n:.0f}"])
    table = tex.table(["Run", r"$\alpha$", *heads, "$n$"], lines, caption=tex.text(caption), label=label)
    return f"% \\usepackage{{array,booktabs,longtable}}\n{tex.CHARACTER}\n{table}\n"


def _tex_value(row: Mapping[str, object], name: str) -> str:
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if pd.isna(value):
        return "--"
    interval = "" if pd.isna(low) or pd.isna(high) else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{interval}"


def csv_text(rows: pd.DataFrame) -> str:
    """The rows as CSV in which no text is a formula: one that a spreadsheet would compute has an apostrophe before it.

    Numbers stay as they are, and so do texts that are numbers.
    """
    safe = rows.rename(columns=lambda name: _no_formula(name))
    for index, kind in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_datetime64_any_dtype(kind):
            safe.isetitem(index, safe.iloc[:, index].map(_no_formula, na_action="ignore"))
    told = safe.to_csv(index=False)
    # a lone carriage return ends a row for some readers, and pandas leaves it bare
    return safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC) if "\r" in told else told


def _no_formula(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(_FORMULAS) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a text begins with that a spreadsheet computes (OWASP, CSV injection)"""
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
