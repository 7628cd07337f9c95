"""Completion below the SQL editor, by Streamlit's own components: a few lines of script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core.store import dictionary

SCRIPT = Path(__file__).with_name("query_completion.js")
HINT = "As you type, Tab completes tables, columns and functions."
LOOK = """
.words { display: flex; gap: 0.35rem; height: 1.7rem; align-items: center; overflow-x: auto; white-space: nowrap;
  font-size: 0.8rem; color: color-mix(in srgb, var(--st-text-color) 72%, transparent); }
.words span { overflow: hidden; text-overflow: ellipsis; }
button { font: 0.8rem monospace; color: var(--st-text-color); background: var(--st-secondary-background-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-base-radius); padding: 0.1rem 0.45rem;
  cursor: pointer; }
button.first { border-color: var(--st-primary-color); }
"""
WORDS = (
    ("SELECT", ""),
    ("FROM", ""),
    ("WHERE", ""),
    ("GROUP BY ALL", "by every column that is not aggregated"),
    ("ORDER BY", ""),
    ("LIMIT", ""),
    ("JOIN", ""),
    ("LEFT JOIN", ""),
    ("USING", "columns of the same name on both sides"),
    ("HAVING", "a condition on groups"),
    ("QUALIFY", "a condition on window functions"),
    ("DISTINCT", ""),
    ("BETWEEN", ""),
    ("IS NOT NULL", ""),
    ("FILTER", "count(*) FILTER (condition)"),
    ("PARTITION BY", "within OVER (…)"),
    ("DESCRIBE", "the columns of a query"),
    ("SUMMARIZE", "minimum, maximum, quartiles, NULLs of every column"),
    ("count", "count(*)"),
    ("avg", "mean"),
    ("median", ""),
    ("quantile_cont", "quantile_cont(x, 0.9)"),
    ("stddev", ""),
    ("min", ""),
    ("max", ""),
    ("sum", ""),
    ("round", "round(x, 3)"),
    ("coalesce", "the first that is not NULL"),
    ("arg_max", "arg_max(what, where_this_is_largest)"),
    ("arg_min", "arg_min(what, where_this_is_smallest)"),
    ("string_agg", "string_agg(text, ', ')"),
    ("regexp_extract", "regexp_extract(text, pattern, group)"),
    ("split_part", "split_part(text, ':', 1)"),
    ("row_number", "row_number() OVER (PARTITION BY … ORDER BY …)"),
)
"""Keywords and functions that the examples and most questions need, each with a hint"""


def bar(schema: pd.DataFrame, *, editor: str) -> None:
    """The line below the text area of key `editor`. `schema`: columns table, column, type."""
    columns = {
        str(table): [(str(row["column"]), _about(str(table), row)) for row in rows.to_dict("records")]
        for table, rows in schema.groupby("table", sort=False)
    }
    tables = [(table, dictionary.TABLES.get(table, "")) for table in columns]
    data = {"area": f".st-key-{editor.replace('.', '-')} textarea", "hint": HINT, "words": list(WORDS)}
    _component()(data=data | {"tables": tables, "columns": columns}, key=f"{editor}.completion", height=28)


def _about(table: str, row: Mapping[Any, Any]) -> str:
    return " · ".join(filter(None, (row["type"], dictionary.describe(table, row["column"]))))


@st.cache_resource(show_spinner=False)
def _component() -> st.components.v2.types.ComponentRenderer:
    return st.components.v2.component(
        "sstmerge_completion",
        html='<div class="words" role="group" aria-label="Completions"></div>',
        css=LOOK,
        js=SCRIPT.read_text(encoding="utf-8"),
    )
