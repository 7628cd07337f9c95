"""Metrics that came after a run was measured: computed from its stored answers at a press."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st
from pydantic import ValidationError

from sstmerge_core import metrics
from sstmerge_core.evaluate.metric_rows import lacking
from sstmerge_core.recipe import Suite
from studio import blocks, entrance, start


def offer(run_id: str, recipe: Mapping[str, Any], measured: pd.DataFrame) -> None:
    """A button where metrics that need no judge are not computed yet; nothing where all are."""
    try:
        suites = [Suite.model_validate(suite) for suite in (recipe.get("evaluation") or {}).get("suites") or ()]
    except ValidationError:  # of a newer version
        return
    missing = lacking(suites, set(zip(measured["metric"], measured["suite"], strict=True)))
    if not missing:
        return
    names = ", ".join(dict.fromkeys(metrics.get(metric).title for metric, _ in missing))
    if st.button(
        f"Compute {names}",
        key="run.score",
        icon=":material/calculate:",
        **entrance.guard(
            "score", help="From the stored answers, without generating: these metrics came after this run was measured."
        ),
    ):
        from sstmerge_core.runs.rescore import score

        with blocks.failures():
            score(start.workspace(), run_id)
            st.rerun()
