"""A run measured again with its base's weights in 8 and 4 bits, and the figures of each precision side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from sstmerge_core import jobs
from sstmerge_core.analysis import precision
from sstmerge_core.builder import in_bits, recipe_command
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.plots import precisions, table
from sstmerge_core.recipe import Recipe
from sstmerge_core.store import queries
from studio import blocks, entrance, start

ABOUT = (
    "Refusals may go where the base is quantised, though its quality holds: the same merge, prompts and judge, with "
    "the base's linear weights as they were, in 8 bits and in 4."
)


def progress(run_id: str) -> None:
    """How far the job is that this session asked for."""
    asked, job_id = st.session_state.get("run:bits", ("", ""))
    if asked == run_id:
        with blocks.failures():
            blocks.watch(job_id, key="run.bits.job")


def show(store: Any, run_id: str, of: str = "", but: set[frozenset[str]] | None = None) -> None:
    """Resistance, over-refusal and utility of each precision that was measured; nothing where it is one.

    `of` is the run's letter where several are on the page, `but` the groups that are shown already.
    """
    found = precision.beside(run_id, store.query(queries.same_setting, run_id))
    group = frozenset(found.values())
    if len(found) < 2 or (but is not None and group in but):
        return
    if but is not None:
        but.add(group)
    figures = precision.figures(found, store.query(queries.runs_by_id, list(found.values())))
    shown = precisions.side_by_side(figures)
    if shown.empty:
        return
    st.markdown(f"**By precision of the base's weights{f', {of}' if of else ''}**")
    st.markdown(table.markdown(shown))
    st.caption(f"{ABOUT} 95 % intervals, n prompts.")
    if not of:
        blocks.compare_link(list(found.values()), label="Compare the precisions")


def offer(run: Mapping[str, Any]) -> None:
    """The button that measures the run again in 8 and 4 bits, and how far that is."""
    known = recipe_command.stored(run["recipe"])
    if known is None or known.evaluation is None or known.evaluation.bits or run["status"] != "finished":
        return
    lacking = in_bits.lacking()
    about = f"{lacking.fault.capitalize()}. {lacking.fix}" if lacking else ABOUT
    st.button(
        "Measure at 8 and 4 bits",
        icon=":material/compress:",
        key="run.bits",
        on_click=_launch,
        args=(known,),
        **entrance.guard("launch", disabled=lacking is not None, help=about),
    )
    if error := st.session_state.pop("run:bits problem", None):
        blocks.problems(error.problems)


def _launch(known: Recipe) -> None:
    workspace = start.workspace()
    try:
        recipes = [in_bits.recipe(known, few, workspace) for few in in_bits.BITS]
        name = f"{known.label} · {known.pair} · 8 and 4 bits"
        st.session_state["run:bits"] = known.run_id, jobs.submit(workspace, recipes, name=name, user=start.user())
    except SSTMergeError as error:
        st.session_state["run:bits problem"] = error
