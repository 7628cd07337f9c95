"""Pick two adapters and a method, merge, watch, and see where the result lands."""

import streamlit as st

from sstmerge_core import jobs, merge, methods, preflight, words
from sstmerge_core.plots import pareto
from sstmerge_core.store import queries
from studio import blocks, families, link, parameters, pick, start

store = blocks.store_or_stop()
shelf = pick.Shelf()
if pick.missing(shelf):
    st.stop()

state = link.Link("merge")
state.read(shelf.fields() | shelf.expert_fields() | pick.SPLIT)
state.read({"method": (link.one_of(methods.names()), "sst_gevp"), "job": (link.text, "")})
method = methods.get(st.session_state["merge.method"])
state.read(parameters.fields(method), group=method.name, trust=(state.given("method") or "sst_gevp") == method.name)
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 6], gap="large")
with left:
    trio = pick.trio(state, shelf, several=True)
    st.selectbox(
        "Method",
        families.names(),
        key="merge.method",
        format_func=families.label,
        help="Type to search: a name, or a family (SST-Merge, averaging, sparse, safety-aware).",
    )
    st.caption(method.summary + (f" [{method.paper}]({method.url})" if method.url else ""))
    blocks.formula(method.formula)
    values, split = parameters.form(state, method)
    with blocks.failures():
        blocks.weights(merge.effective_weights(method.name, values, 1 + len(trio.experts)), trio.names)
        plan = preflight.plan(
            start.workspace(),
            base=trio.base,
            utility=trio.utility,
            safety=trio.safety,
            method=method.name,
            parameters=values,
            experts=trio.experts,
            options=preflight.Options(split=split),
        )
        blocks.problems(plan.problems)
        blocks.problems(plan.warnings, warning=True)
        with st.container(horizontal=True, vertical_alignment="center"):
            launch = st.button(
                "Merge",
                type="secondary" if plan.known else "primary",
                icon=":material/merge:",
                disabled=bool(plan.problems),
                help="See the problems above." if plan.problems else None,
                key="merge.launch",
            )
            if plan.known:
                st.caption("Already known: the same recipe has finished here.", width="content")
                blocks.run_link(plan.run_id, "Open its result")
            elif not plan.problems:
                memory = f", up to {words.size(plan.memory_bytes)} of memory" if plan.memory_bytes else ""
                st.caption(f"Takes about {words.duration(plan.seconds)}{memory}.", width="content")
        if launch and plan.recipe is not None:
            st.toast("Started. Its progress is on this page; it goes on when you leave.")
            st.session_state["merge.job"] = jobs.submit(
                start.workspace(), [plan.recipe], name=f"{plan.recipe.label} · {plan.recipe.pair}", user=start.user()
            )

said = {**trio.values, "method": method.name, **values, "split": split, "job": st.session_state["merge.job"]}
state.write(said)

with right:
    shown_run = plan.run_id if plan.known else ""
    if job_id := st.session_state["merge.job"]:
        job = blocks.watch(job_id, key="merge.watch")
        if job is None:
            st.warning(f"There is no job “{job_id}” in this workspace.", icon=":material/search_off:")
        elif job.state == "done" and job.run_ids:
            shown_run = job.run_ids[0]
    if shown_run and (row := store.query(queries.leaderboard_row, shown_run)):
        st.subheader(row["label"], anchor=False)
        blocks.cards(row)
        with st.container(horizontal=True):
            blocks.run_link(shown_run, "Answers, spectrum, recipe")
            blocks.adapter_download(shown_run, row["label"])

    pair = trio.pair
    runs = pareto.drawable(store.query(queries.pair_runs, pair, sources=["measured"]), "resistance", "utility")
    if runs.empty:
        blocks.empty(f"No merge of {pair} has been measured yet. It will appear here between safety and utility.")
    else:
        st.caption(f"Measured runs of {pair}; the ring is the run above." if shown_run else f"Measured runs of {pair}.")
        st.plotly_chart(
            store.recall(("merge", pair, shown_run), lambda: pareto.figure(runs, highlight=[shown_run], height=400)),
            config=blocks.CHART_CONFIG,
            key="merge.chart",
            alt=f"Measured runs of {pair}",
        )
        st.page_link(
            "pages/pareto.py",
            label="Open on the Pareto page",
            icon=":material/scatter_plot:",
            query_params={"pair": pair},
        )
    blocks.share_box(link.share(start.base_url(), "merge", said))
