"""Which should I ship? The card that Overview, Pareto and Report show of one pair, with its limits in the link."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from sstmerge_core.analysis.decision import Decision, decide
from sstmerge_core.analysis.goals import GOALS, Limits
from sstmerge_core.plots import beside, standing
from sstmerge_core.report.kept import kept_of_picks
from sstmerge_core.store import queries
from sstmerge_core.words import run_name
from studio import adapter, blocks, link, start

DEFAULT = "balanced"


def share(values: list[str]) -> float:
    value = float(values[-1])
    if not 0.0 <= value <= 1.0:
        raise ValueError("must be from 0 to 1")
    return value


def fields() -> link.Fields:
    """The goal and the two limits."""
    return {
        "goal": (link.one_of(list(GOALS)), DEFAULT),
        "over": (share, Limits.max_over_refusal),
        "floor": (share, Limits.min_resistance),
    }


def values(page: str) -> dict[str, object]:
    """For the link."""
    return {name: st.session_state[f"{page}.{name}"] for name in fields()}


def decided(store: start.Store, page: str, pair: str, runs: pd.DataFrame) -> Decision:
    """The decision of the pair's runs (`queries.pair_runs`) within the limits that the page has."""
    limits = Limits(st.session_state[f"{page}.over"], st.session_state[f"{page}.floor"])
    return store.finished.recall(("decision", pair, str(limits)), lambda: decide(runs, limits))


def card(store: start.Store, page: str, pair: str, choice: Decision, *, heading: str = "Which should I ship?") -> None:
    """The pick for a goal beside its parents, and what to do with it. Call `state.read(fields())` before."""
    st.subheader(heading, anchor=False, help=standing.about(choice))
    if not choice.told:
        blocks.empty(choice.why_none, page="pages/merge.py", label="Merge a pair")
        return
    kept = store.finished.query(kept_of_picks, choice.rows)
    st.segmented_control(
        "Goal",
        list(GOALS),
        key=f"{page}.goal",
        format_func=GOALS.__getitem__,
        required=True,
        label_visibility="collapsed",
    )
    goal = st.session_state[f"{page}.goal"]
    with st.container(horizontal=True, gap="medium"):
        st.slider("Over-refusal at most", 0.0, 1.0, step=0.05, key=f"{page}.over", width=160)
        st.slider(
            "Resistance at least",
            0.0,
            1.0,
            step=0.05,
            key=f"{page}.floor",
            width=160,
            disabled=goal != "utility_first",
            help=f"A limit of {GOALS['utility_first']} alone.",
        )
    told = choice.told[goal]
    row = told.row or told.chosen.row
    with st.container(border=True):
        st.markdown(f"**{beside.title(choice, goal)}**  \n{beside.words_of(choice, goal, kept)}")
        st.markdown(beside.table(choice, goal, kept))
        if row is not None and told.chosen.is_merge:
            _actions(str(row["run_id"]), run_name(row), choice, page)
    with st.expander("All three goals, and how it was chosen"):
        st.markdown(standing.picks_table(choice, kept, narrow=True))
        st.markdown(standing.picks_words(choice))


def pick_beside_utility(store: start.Store) -> list[str]:
    """Run ids of U alone and of the balanced pick of the first pair that has one; none where no merge is picked."""
    for pair in store.query(queries.merge_pairs):
        runs = store.finished.query(queries.pair_runs, pair)
        choice = store.finished.recall(("decision", pair, str(Limits())), partial(decide, runs))
        told, utility = choice.told.get(DEFAULT), choice.parents.get("utility")
        if told is not None and told.keeps and told.chosen.is_merge and told.row is not None and utility is not None:
            return [str(utility["run_id"]), str(told.row["run_id"])]
    return []


def _actions(run_id: str, label: str, choice: Decision, page: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        adapter.download(run_id, label, key=f"{page}.adapter")
        adapter.talk(run_id)
        utility = choice.parents.get("utility")
        if utility is not None:
            blocks.compare_link([str(utility["run_id"]), run_id])
        blocks.run_link(run_id, "Its answers")
    adapter.progress(run_id)
