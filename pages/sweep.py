"""A grid of methods × α × k × seeds as one job, and the queue of all jobs."""

import streamlit as st

from sstmerge_core import grid, jobs, methods, preflight, words
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from studio import blocks, link, pick, start

DEFAULTS = {"alpha": "0.1:0.9:0.2", "strength": "0.5, 1, 1.5, 2", "k": "20, 60", "seed": "42"}

store = blocks.store_or_stop()
shelf = pick.Shelf()
if pick.missing(shelf):
    st.stop()

state = link.Link("sweep")
state.read(shelf.fields())
state.read({"method": (link.some_of(methods.names()), ["linear", "task_arithmetic", "sst_gevp"])})
state.read({name: (link.text, default) for name, default in DEFAULTS.items()} | {"job": (link.text, "")})
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 6], gap="large")
with left:
    trio = pick.trio(state, shelf)
    chosen = st.multiselect(
        "Methods", methods.names(), key="sweep.method", wrap=True, format_func=lambda name: methods.get(name).title
    )
    texts = {}
    with st.container(horizontal=True, gap="small"):
        for name, label, about in (
            ("alpha", "α of share methods", "0 is the utility adapter, 1 the safety adapter: Linear, TIES, DARE."),
            ("strength", "α of strength methods", "How much safety is added, may exceed 1: Task Arithmetic and SST."),
            ("k", "k", "Directions kept, for the methods that have k."),
            ("seed", "Seeds", "For the methods that draw at random."),
        ):
            help_ = f"{about} Numbers with commas, or start:stop:step."
            texts[name] = st.text_input(label, key=f"sweep.{name}", help=help_, width=200)
    plan = None
    with blocks.failures():
        lists = {name: grid.numbers(text, where=name, whole=name in ("k", "seed")) for name, text in texts.items()}
        plan = preflight.plan_sweep(
            start.workspace(),
            base=trio.base,
            utility=trio.utility,
            safety=trio.safety,
            methods=chosen,
            alphas=lists["alpha"],
            strengths=lists["strength"],
            ks=lists["k"],
            seeds=lists["seed"],
        )
        blocks.problems(plan.problems)
    if plan is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            launch = st.button(
                f"Start {words.count(len(plan.recipes), 'run')}",
                type="primary",
                icon=":material/play_arrow:",
                disabled=bool(plan.problems) or not plan.recipes,
                key="sweep.launch",
            )
            known = f", {plan.skipped} of them known already" if plan.skipped else ""
            st.caption(
                f"{words.count(plan.points, 'point')}{known}. Takes about {words.duration(plan.seconds)}.",
                width="content",
            )
        if launch:
            with blocks.failures():
                name = f"Sweep {trio.utility.name}_{trio.safety.name}: {words.count(len(plan.recipes), 'run')}"
                st.session_state["sweep.job"] = jobs.submit(
                    start.workspace(), plan.recipes, name=name, user=start.user(), kind="sweep"
                )

said = {**trio.values, "method": chosen, **texts, "job": st.session_state["sweep.job"]}
state.write(said)


def finished_points(job_id: str) -> None:
    job = jobs.job(start.workspace(), job_id)
    runs = start.query(queries.runs_by_id, job.run_ids if job else [])
    if len(runs):
        st.caption(f"{len(runs):,} of {len(job.run_ids):,} runs are finished.")
        blocks.run_table(
            runs, key=f"sweep.points.{job_id}", columns=("seconds",), height="auto" if len(runs) < 11 else 400
        )


def queue() -> None:
    listed = jobs.jobs(start.workspace())
    if not listed:
        st.caption("No job yet.")
    for job in listed:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(blocks.job_line(job), width="content")
            st.caption(blocks.job_summary(job), width="content")
            if st.button(
                "Watch",
                key=f"queue.watch.{job.job_id}",
                type="tertiary",
                disabled=job.job_id == st.session_state["sweep.job"],
            ):
                st.session_state["sweep.job"] = job.job_id
                st.rerun(scope="app")


with right:
    if job_id := st.session_state["sweep.job"]:
        watched = blocks.watch(job_id, key="sweep.watch")
        if watched is None:
            st.warning(f"There is no job “{job_id}” in this workspace.", icon=":material/search_off:")
        else:
            running = watched.active
            st.fragment(finished_points, run_every="3s" if running else None, key=f"sweep.points.{running}")(job_id)
            pair = {"pair": f"{trio.utility.name}_{trio.safety.name}"}
            with st.container(horizontal=True):
                st.page_link(
                    "pages/alpha_curves.py", label="Alpha curves", icon=":material/show_chart:", query_params=pair
                )
                st.page_link("pages/pareto.py", label="Pareto", icon=":material/scatter_plot:", query_params=pair)
    elif plan is not None and plan.recipes:
        st.subheader("What will run", anchor=False)
        st.dataframe(
            table.grid(plan.recipes),
            hide_index=True,
            placeholder="–",
            height="auto" if len(plan.recipes) < 11 else 360,
            alt="Points of the sweep",
        )
    st.subheader("All jobs", anchor=False)
    try:
        busy = any(job.active for job in jobs.jobs(start.workspace()))
        st.fragment(queue, run_every="2s" if busy else None, key=f"queue.{busy}")()
    except SSTMergeError as error:
        blocks.problems(error.problems)
