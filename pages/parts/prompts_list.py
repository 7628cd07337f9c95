"""The sets of prompts of this workspace: what is here with its rows, what is not with the way to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import streamlit as st

from sstmerge_core import words
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites import bundled, declared, own, prepare
from sstmerge_core.suites.declared import SPLITS, DeclaredSuite
from sstmerge_core.suites.rows import Row, read_rows
from sstmerge_core.words import plain
from studio import blocks, entrance, start

SPLIT_WORDS = {"fisher": "Fisher", "selection": "selection", "test": "test", "train": "training", "unseen": "unseen"}
MEASURED_AS = {"harmful": "harmful", "benign": "benign", "utility": "suite"}
"""Role → what the Merge page's link calls a set of it"""
SHOWN = 12
"""Rows of a set that are shown"""


@dataclass
class Found:
    here: list[DeclaredSuite] = field(default_factory=list)
    absent: list[DeclaredSuite] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)


def found() -> Found:
    """Every set of prompts, the workspace's own first; a declaration that cannot be read with its fault."""
    workspace = start.workspace()
    all_of = Found()
    for one in declared.suites(workspace):
        if isinstance(one, DataError):
            all_of.broken += one.problems
        elif one.role == "academic":
            continue  # measured by lm-evaluation-harness, which has its own prompts
        elif prepare.is_here(one, workspace):
            all_of.here.append(one)
        else:
            all_of.absent.append(one)
    all_of.here.sort(key=lambda one: (not own.is_own(workspace, one.name), one.name not in bundled.ROLES, one.name))
    return all_of


def here(all_of: Found) -> None:
    """A table of the sets that are here; a row that is selected is shown."""

    def select() -> None:
        if rows := st.session_state["prompts.table"]["selection"]["rows"]:
            st.session_state["prompts.show"] = all_of.here[rows[0]].name

    rows = [
        {"name": one.name, "title": one.title, "role": one.role, "metric": one.metric, "licence": one.licence}
        for one in all_of.here
    ]
    st.dataframe(
        pd.DataFrame(rows, columns=["name", "title", "role", "metric", "licence"]),
        hide_index=True,
        column_config={name: name.capitalize() for name in ("name", "title", "role", "metric", "licence")},
        key="prompts.table",
        on_select=select,
        selection_mode="single-row",
        alt="Sets of prompts that are here",
    )


def show(all_of: Found) -> None:
    """One set: where it comes from, its rows by split, and the way out where it is the user's own."""
    workspace = start.workspace()
    by_name = {one.name: one for one in all_of.here}
    name = st.selectbox("Set", list(by_name), key="prompts.show", width=300)
    suite = by_name[name]
    st.markdown(
        f"**{plain(suite.title)}** · {plain(suite.licence)}" + (f"  \n{plain(suite.note)}" if suite.note else "")
    )
    with blocks.failures():
        prepared = prepare.prepare(suite, workspace, fetch=False)
        st.caption(counted(prepared))
        table(read_rows(prepared.path, limit=200)[:SHOWN])
    if suite.role in MEASURED_AS:
        st.page_link(
            "pages/merge.py",
            label="Measure a merge on it",
            icon=":material/merge:",
            query_params={MEASURED_AS[suite.role]: name},
        )
    if own.is_own(workspace, name):
        if st.button(
            "Remove",
            icon=":material/delete:",
            type="tertiary",
            key="prompts.remove",
            **entrance.guard(
                "remove",
                help="It moves into the workspace's trash; runs measured on it keep their answers. It can be undone.",
            ),
        ):
            with blocks.failures():
                st.session_state["prompts:gone"] = own.remove(workspace, name)
                st.rerun()
    elif name in bundled.ROLES:
        st.caption("Ships with the program.")


def removed() -> None:
    """The set removed last can be put back at once."""
    place = st.session_state.get("prompts:gone")
    if not place:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/delete: **{plain(place.partition('.')[0])}** was removed.", width="content")
        if st.button("Undo", icon=":material/undo:", key="prompts.undo", **entrance.guard("remove")):
            with blocks.failures():
                back = own.restore(start.workspace(), place)
                st.session_state["prompts:gone"] = None
                st.session_state["prompts:next"] = back.name
                st.rerun()


def absent(all_of: Found) -> None:
    """What is not here, and the exact way to get it."""
    for one in all_of.absent:
        st.markdown(
            f"**{plain(one.title)}** (`{one.name}`, {one.role}) · {plain(one.licence)}  \n"
            f"{one.how_to_get(start.workspace())}"
        )


def table(rows: list[Row]) -> None:
    """Some rows as they will be asked."""
    shown = [{"split": row.split, "topic": row.topic, "prompt": row.prompt, "reference": row.response} for row in rows]
    frame = pd.DataFrame(shown).replace("", None).dropna(axis="columns", how="all")
    st.dataframe(
        frame,
        hide_index=True,
        column_config={name: name.capitalize() for name in frame},
        placeholder="–",
        alt="Some of the rows",
    )


def counted(prepared: prepare.Prepared) -> str:
    """``50 rows: Fisher 10, selection 15, test 25.``"""
    counts = ", ".join(f"{SPLIT_WORDS.get(split, split or 'no split')} {count:,}" for split, count in ordered(prepared))
    again = f" {words.count(prepared.dropped, 'row')} left out whose prompt came before." if prepared.dropped else ""
    return plain(f"{words.count(prepared.n, 'row')}: {counts}.{again}")


def ordered(prepared: prepare.Prepared) -> list[tuple[str, int]]:
    """Splits in the order in which they are used, with their rows."""
    order = {name: place for place, name in enumerate(SPLITS)}
    return sorted(prepared.splits.items(), key=lambda item: order.get(item[0], len(order)))
