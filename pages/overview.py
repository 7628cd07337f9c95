"""What is here, what runs, what came out last, and the way to the first merge."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from pages.parts import first_merge
from sstmerge_core import jobs
from sstmerge_core.builder import presets
from sstmerge_core.plots import pareto, standing, table
from sstmerge_core.plots.told import told_on
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, decision, entrance, link, navigation, pick, present, queue, start, visitor

store = blocks.store_or_stop()
counts = store.query(queries.counts)

Query = dict[str, str | Sequence[str]]
LOOK: dict[str, Any] = {"height": 420, "intervals": False, "families": True}

left, right = st.columns([7, 5], gap="large")
with left:
    st.header("SST-Merge Studio", anchor=False)
    st.markdown(
        "Merge a LoRA adapter that is good at a task with one that makes the model safe, and see what each method "
        "costs. Every merge is answered by the real model, judged, and kept with its answers."
    )
    shelf = pick.Shelf()
    with st.container(horizontal=True, vertical_alignment="center"):
        if not pick.missing(shelf):
            query: Query = {name: str(default) for name, (_, default) in shelf.fields().items()}
            if st.button(
                f"Try it: merge {plain(query['utility'])} with {plain(query['safety'])}",
                type="primary",
                icon=":material/merge:",
                key="overview.merge",
                shortcut=navigation.MAIN,
                **entrance.guard(
                    "launch",
                    help=f"A merge that was not made yet, measured on {first_merge.PROMPTS} prompts of each set: about "
                    "a minute on two cores. You see it run, and its point in the chart.",
                ),
            ):
                with blocks.failures():
                    st.session_state[first_merge.AT_ONCE] = True
                    st.switch_page("pages/merge.py", query_params={**query, **first_merge.fresh(shelf, query)})
            quick = presets.sweeps()["quick"]
            if st.button("Sweep over 5 α", icon=":material/show_chart:", key="overview.sweep", help=quick.about):
                grid: Query = {"method": list(quick.methods), "alpha": quick.alpha, "n": str(quick.n)}
                st.switch_page("pages/sweep.py", query_params=query | grid)

    pairs = store.query(queries.merge_pairs)
    state = link.Link("overview")
    if pairs:
        state.read({"pair": (link.one_of(pairs), pairs[0]), **decision.fields()})
        blocks.problems(state.problems, warning=True)
        pair = st.session_state["overview.pair"]
        runs = store.finished.query(queries.pair_runs, pair)
        choice = decision.decided(store, "overview", pair, runs)
        # what a first look can take in: measured here, on the prompts that tell; the rest is on the Pareto page
        told = runs[runs["source"].eq("measured") & runs["split"].fillna("test").eq("test")]
        shown = store.finished.recall(
            ("overview shown", pair), lambda: pareto.drawable(told if len(told) else runs, "resistance", "utility")
        )
        stands = standing.standing(shown, ("resistance", "utility"), choice)
        marks = stands.marks if stands else {}
        st.plotly_chart(
            store.finished.recall(("overview", pair, str(marks)), lambda: pareto.figure(shown, marks=marks, **LOOK)),
            config=blocks.CHART_CONFIG,
            key="overview.chart",
            alt=f"Runs of {pair} between resistance and utility",
        )
        st.caption(
            "Up and to the right is better on both; the line is the front, beyond which no merge gives more of one "
            f"without less of the other. {standing.marks_words(marks)} Dominated merges are faded."
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{len(shown):,} of {len(runs):,} runs of {plain(pair)}. {told_on(shown)}", width="content")
            st.page_link("pages/pareto.py", label="Pareto", icon=":material/scatter_plot:", query_params={"pair": pair})

with right:
    if pairs:
        decision.card(store, "overview", pair, choice, heading=f"Which should I ship? {plain(pair)}")

last, now = st.columns([7, 5], gap="large")
with now:
    with st.container(horizontal=True, gap="small"):
        for label, number in (
            ("Runs here", counts["finished"]),
            ("Answers", counts["samples"]),
            ("Published", counts["reported"]),
        ):
            st.metric(label, f"{number:,}", border=True, width=108)

    def watch(job_id: str) -> None:
        st.switch_page("pages/sweep.py", query_params={"job": job_id})

    def running() -> None:
        """Jobs at work and in the queue; the whole page runs again when their number changes."""
        listed = jobs.jobs(start.workspace())
        active = [job for job in listed if job.active]
        if st.session_state.get("overview:active") not in (None, len(active)):
            st.session_state["overview:active"] = len(active)
            st.rerun(scope="app")
        st.session_state["overview:active"] = len(active)
        if active:
            visitor.desk(listed, key="overview")
            queue.draw(key="overview.queue", watch=watch, ended=False)

    busy = bool(jobs.active(start.workspace()))
    st.fragment(running, run_every="2s" if busy else "15s", key=f"overview.{busy}")()
with last:
    recent = present.recent(store, 8)
    if recent.empty:
        st.caption("No run of your own yet. The hollow points are figures reported in the literature.")
        with st.container(border=True):
            st.markdown(
                "**How it goes**\n\n"
                "1. Pick a utility and a safety adapter, a method and α, and press *Merge*.\n"
                "2. Watch it run; the base model is loaded once and answers every held-out prompt.\n"
                "3. See where the merge lands, sweep over α, and share the curve by its link."
            )
            st.page_link("pages/adapters.py", label="See the adapters", icon=":material/extension:")
    else:
        st.subheader("Last runs", anchor=False)
        st.markdown(
            table.brief(recent.assign(label=recent["label"] + " · " + recent["pair"].fillna("no pair").astype(str)))
        )

if pairs:
    state.write({"pair": pair} | decision.values("overview"))
