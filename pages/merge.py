"""Pick two adapters and a method, merge, watch, and see where the result lands."""

from dataclasses import replace
from typing import Any

import streamlit as st

from pages.parts import first_merge
from pages.parts import merge_parameters as parameters
from sstmerge_core import jobs, merge, methods, words
from sstmerge_core.builder import preflight, presets
from sstmerge_core.plots import beside, pareto
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import adapter, blocks, entrance, families, link, navigation, pick, preset, queue, start, visitor


def choose_preset() -> None:
    """The merges that ship, and the way to a sweep of this pair."""
    form = {parameter.name: st.session_state[state.key(parameter.name, method.name)] for parameter in method.parameters}

    def said(one: presets.MergePreset) -> bool:
        same_form = (one.method, one.n) == (method.name, st.session_state["merge.n"])
        return same_form and method.complete(one.parameters) == method.complete(form)

    def fill(one: presets.MergePreset) -> dict[str, Any]:
        complete = methods.get(one.method).complete(one.parameters)
        values = {state.key(name, one.method): value for name, value in complete.items()}
        return values | {"merge.method": one.method, "merge.n": one.n}

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        preset.choose(state, presets.merges(), said=said, fill=fill, width="content", wrap=True)
        if st.button(
            "Sweep over α", icon=":material/show_chart:", type="tertiary", help="A grid of merges as one job."
        ):
            st.switch_page("pages/sweep.py", query_params=link.spelled(inputs.values))


store = blocks.store_or_stop()
shelf = pick.Shelf()
if pick.missing(shelf):
    st.stop()

state = link.Link("merge")
state.read(shelf.fields() | shelf.expert_fields() | shelf.unaligned_fields() | pick.measured_fields())
state.read(pick.saved_fields())
state.read({"method": (link.one_of(methods.names()), "sst_gevp"), "job": (link.text, "")})
method = methods.get(st.session_state["merge.method"])
state.read(parameters.fields(method), group=method.name, trust=(state.given("method") or "sst_gevp") == method.name)
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 6], gap="large")
with left:
    inputs = pick.merge_inputs(state, shelf, several=True)
    choose_preset()
    st.selectbox(
        "Method",
        families.names(),
        key="merge.method",
        format_func=families.label,
        help=f"Type to search: a name, or a family ({', '.join(families.FAMILIES)}).",
    )
    st.caption(method.summary + (f" [{method.paper}]({method.url})" if method.url else ""))
    blocks.formula(method.formula)
    unaligned = pick.unaligned_model(state, shelf, [method], inputs.base)
    whole = pick.trained_whole(state, (inputs.utility, *inputs.further, inputs.safety))
    values, measured = parameters.form(state, method)
    plan = None
    with blocks.failures():
        plan = preflight.plan(
            start.workspace(),
            base=inputs.base,
            utility=inputs.utility,
            safety=inputs.safety,
            method=method.name,
            parameters=values,
            further=inputs.further,
            unaligned=unaligned,
            options=replace(measured.options, modules_to_save=whole.get("saved", "refuse")),
        )
        if plan.recipe is not None:
            blocks.weights(merge.effective_weights(method.name, values, 1 + len(inputs.further)), inputs.names)
        problems = [*measured.problems, *plan.problems]
        blocks.problems(problems)
        blocks.problems(plan.warnings, warning=True)
        with st.container(horizontal=True, vertical_alignment="center"):
            running = jobs.working_on(start.workspace(), [plan.run_id] if plan.recipe else [])
            launch = st.button(
                "This is running: watch it" if running else "Merge",
                type="secondary" if plan.known or running else "primary",
                icon=":material/visibility:" if running else ":material/merge:",
                **entrance.guard(
                    "look" if running else "launch",
                    disabled=bool(problems),
                    help="See the problems above." if problems else None,
                ),
                key="merge.launch",
                shortcut=navigation.MAIN,
            )
            if plan.known:
                st.caption("Already known: the same recipe has finished here.", width="content")
                blocks.run_link(plan.run_id, "Open its result")
            elif plan.recipe is not None:
                pick.estimate(plan, [plan.recipe], inputs.base)
        at_once = st.session_state.pop(first_merge.AT_ONCE, False) and not plan.known and not problems
        if (launch or at_once) and plan.recipe is not None:
            if running is None:
                st.toast("Started. Its progress is on this page; it goes on when you leave.")
            name = f"{plan.recipe.label} · {plan.recipe.pair}"
            st.session_state["merge.job"] = visitor.submit([plan.recipe], name=name)

said = {**inputs.values, "method": method.name, **values, **measured.values}
said |= {"unaligned": st.session_state["merge.unaligned"]} if unaligned else {}
said |= whole
said |= {"job": st.session_state["merge.job"]}
state.write(said)

with right:
    shown_run = plan.run_id if plan and plan.known else ""
    if job_id := st.session_state["merge.job"]:
        job = queue.watched(job_id, key="merge.watch")
        if job is not None and job.state == "done" and job.run_ids:
            shown_run = job.run_ids[0]
        visitor.desk([job] if job else [], watched=job_id, key="merge")
    if shown_run and (row := store.query(queries.leaderboard_row, shown_run)):
        st.subheader(plain(words.run_name(row)), anchor=False)
        blocks.cards(row)
        if stands := beside.standing_of(store.finished.query(queries.pair_runs, inputs.pair), shown_run):
            st.markdown(stands)
        with st.container(horizontal=True, vertical_alignment="center"):
            blocks.run_link(shown_run, "Answers, spectrum, recipe")
            adapter.download(shown_run, words.run_name(row))
            adapter.talk(shown_run)
        adapter.progress(shown_run)

    pair = inputs.pair
    measured_runs = store.finished.query(queries.pair_runs, pair, sources=["measured"])
    runs = store.finished.recall(("merge shown", pair), lambda: pareto.drawable(measured_runs, "resistance", "utility"))
    if runs.empty:
        blocks.empty(
            f"No merge of {plain(pair)} has been measured yet. It will appear here between safety and utility."
        )
    else:
        st.caption(f"Measured runs of {plain(pair)}{'; the ring is the run above' if shown_run else ''}.")
        st.plotly_chart(
            store.finished.recall(
                ("merge", pair, shown_run),
                lambda: pareto.figure(runs, highlight=[shown_run], height=400, intervals=False, families=True),
            ),
            config=blocks.CHART_CONFIG,
            key="merge.chart",
            alt=f"Measured runs of {pair}",
        )
        st.page_link(
            "pages/pareto.py",
            label="Open on the Pareto page",
            icon=":material/scatter_plot:",
            query_params={"pair": pair} | ({"run": shown_run} if shown_run else {}),
        )
    blocks.share_box(link.share(start.base_url(), "merge", said))
