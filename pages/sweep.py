"""A grid of methods × α × k × seeds as one job, and the queue of all jobs."""

from dataclasses import replace

import streamlit as st

from pages.parts import sweep_form, sweep_points
from sstmerge_core import jobs, methods, words
from sstmerge_core.recipe import with_kept
from studio import blocks, link, pick, queue, start, visitor

blocks.store_or_stop()
shelf = pick.Shelf()
if pick.missing(shelf):
    st.stop()

state = link.Link("sweep")
state.read(shelf.fields() | shelf.expert_fields() | shelf.unaligned_fields() | pick.measured_fields())
state.read(pick.saved_fields() | sweep_form.fields() | {"job": (link.text, "")})
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 6], gap="large")
with left:
    inputs = pick.merge_inputs(state, shelf, several=True)
    sweep_form.choose_preset(state)
    chosen = sweep_form.choose_methods()
    unaligned = pick.unaligned_model(state, shelf, [methods.get(name) for name in chosen], inputs.base)
    whole = pick.trained_whole(state, (inputs.utility, *inputs.further, inputs.safety))
    texts, measured = sweep_form.choose_values(state, chosen)
    with st.container(horizontal=True, gap="small"):
        kept = sweep_form.choose_kept(state)
        screening = sweep_form.choose_screening(state)
    options = replace(measured.options, modules_to_save=whole.get("saved", "refuse"))
    plan = None
    with blocks.failures():
        plan = sweep_form.plan(inputs, chosen, texts, options, unaligned, screening)
        problems = [*measured.problems, *plan.problems]
        blocks.problems(problems)
        blocks.problems(plan.warnings, warning=True)
        shared = {} if plan.screening else sweep_form.workers(plan)
        if sweep_form.launch(plan, inputs, blocked=bool(problems)):
            name = f"Sweep {inputs.pair}: {words.count(len(plan.asked), 'run')}"
            more = {"screening": plan.screening} if plan.screening else shared
            st.session_state["sweep.job"] = visitor.submit(with_kept(plan.asked, kept), name=name, kind="sweep", **more)

said = inputs.values | {"method": chosen, "keep": kept, **texts, **measured.values}
said |= {"unaligned": st.session_state["sweep.unaligned"]} if unaligned else {}
said |= whole | {"screen": st.session_state["sweep.screen"]}
said |= {"job": st.session_state["sweep.job"]}
state.write(said)


def watch(job_id: str) -> None:
    st.session_state["sweep.job"] = job_id
    st.rerun(scope="app")


def all_jobs(watched_id: str) -> None:
    visitor.desk(jobs.jobs(start.workspace()), watched=watched_id, key="sweep")
    queue.draw(key="queue", watched=watched_id, watch=watch)


with right:
    if watched_id := st.session_state["sweep.job"]:
        sweep_points.follow(watched_id)
    elif plan is not None and plan.recipes:
        sweep_form.preview(plan)
    st.subheader("All jobs", anchor=False)
    with blocks.failures():
        busy = bool(jobs.active(start.workspace()))
        st.fragment(all_jobs, run_every="2s" if busy else None, key=f"queue.{busy}")(watched_id)
