"""What the workspace can do without, listed with why before anything goes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sstmerge_core import words
from sstmerge_core.upkeep import tidy
from sstmerge_core.upkeep.uses import DAY
from sstmerge_core.words import plain
from studio import blocks, entrance, start

SHOWN = {
    tidy.LEFTOVER: "left by a killed process",
    tidy.LOG: "log",
    tidy.CACHE: "cache",
    tidy.WEIGHTS: "weights of a run",
    tidy.RUN: "run without a result",
    tidy.JOBS: "jobs that ended",
    tidy.SHELVE: "runs that move",
}


def offer() -> None:
    """An expander that looks only while it is open."""
    folded = st.expander("Tidy up", icon=":material/cleaning_services:", key="run.tidy", on_change="rerun")
    if not folded.open:
        return
    with folded, blocks.failures():
        days = st.number_input("Older than, days", 0, 3650, 30, key="run.tidy.days", width=150)
        items = tidy.plan(start.workspace(), older_than=days * DAY)
        if said := st.session_state.pop("run:tidied", None):
            st.success(said, icon=":material/check_circle:")
        st.caption(
            "  \n".join(
                f"{'⚠ ' if one.over else ''}{one.what}: {one.now} of at most {one.most}"
                for one in tidy.held(start.workspace())
            )
        )
        if not items:
            st.caption("Nothing: all that is here is younger, needed, tagged, noted or shipped.")
            return
        st.dataframe(
            pd.DataFrame(
                [(SHOWN[item.kind], item.name, words.size(item.bytes), item.why) for item in items],
                columns=["What", "Which", "Size", "Why it can go"],
            ),
            hide_index=True,
            alt="What the workspace can do without",
        )
        total = words.size(sum(item.bytes for item in items))
        with st.popover(f"Put away {total}", icon=":material/cleaning_services:"):
            st.markdown(
                "Runs and weights go to the trash and can be brought back; caches, logs and leftovers for good."
            )
            st.button(
                "Put it away",
                key="run.tidy.go",
                type="primary",
                on_click=_do,
                args=(items,),
                **entrance.guard("empty"),
            )


def _do(items: list[tidy.Item]) -> None:
    with blocks.failures():
        gone, kept = tidy.carry_out(start.workspace(), items)
        start.take_in()
        stayed = f" {words.count(len(kept), 'thing')} stayed: {plain(kept[0])}" if kept else ""
        st.session_state["run:tidied"] = f"{words.count(len(gone), 'thing')} put away.{stayed}"
