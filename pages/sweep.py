"""A grid of methods × α × k × seeds as one job, and the queue of all jobs."""

import streamlit as st

from sstmerge_core import grid, jobs, methods, preflight, words
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from studio import blocks, families, link, pick, start

DEFAULTS = {"alpha": "0.1:0.9:0.2", "strength": "0.5, 1, 1.5, 2", "k": "20, 60", "seed": "42"}
LISTS = {
    "alpha": (
        "α = share",
        "0 is the utility side alone, 1 the safety adapter. Where α is the share of the tuned model, "
        "0 is the base model and 1 the utility side.",
    ),
    "strength": ("α = strength", "How much safety is added to the whole utility side; may exceed 1."),
    "k": ("k", "Directions kept."),
    "seed": ("Seeds", "Of the random masks."),
}


def varied(name: str) -> list[str]:
    """The lists that a method takes its values from."""
    method = methods.get(name)
    point = preflight.grid(name, [0.5], [0.5], [1], [1])[0]
    return ["strength" if each == "alpha" and method.axis == "strength" else each for each in point]


def toggle_family() -> None:
    """A family that was switched on brings all of its methods, one that was switched off takes them along."""
    before, now = set(st.session_state["sweep:whole"]), set(st.session_state["sweep.families"])
    chosen = [name for name in st.session_state["sweep.method"] if families.of(name) not in before - now]
    wanted = {*chosen, *(name for family in now - before for name in families.names(family))}
    st.session_state["sweep.method"] = [name for name in families.names() if name in wanted]


store = blocks.store_or_stop()
shelf = pick.Shelf()
if pick.missing(shelf):
    st.stop()

state = link.Link("sweep")
state.read(shelf.fields() | shelf.expert_fields() | pick.SPLIT)
state.read({"method": (link.some_of(methods.names()), ["linear", "task_arithmetic", "sst_gevp"])})
state.read({name: (link.text, default) for name, default in DEFAULTS.items()} | {"job": (link.text, "")})
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 6], gap="large")
with left:
    trio = pick.trio(state, shelf, several=True)
    chosen = st.multiselect(
        "Methods",
        families.names(),
        key="sweep.method",
        wrap=True,
        format_func=families.label,
        help="Type to search: a name, or a family (SST-Merge, averaging, sparse, safety-aware).",
    )
    whole = [family for family in families.FAMILIES if set(families.names(family)) <= set(chosen)]
    st.session_state["sweep.families"] = st.session_state["sweep:whole"] = whole
    st.pills(
        "All of a family",
        families.FAMILIES,
        selection_mode="multi",
        key="sweep.families",
        format_func=lambda family: f"all {len(families.names(family))} {family}",
        on_change=toggle_family,
        wrap=True,
        label_visibility="collapsed",
    )
    texts = {name: st.session_state[f"sweep.{name}"] for name in LISTS}
    with st.container(horizontal=True, gap="small"):
        for name, (label, about) in LISTS.items():
            if users := [method for method in chosen if name in varied(method)]:
                with st.container(width=290, gap=None):
                    help_ = f"{about} Numbers with commas, or start:stop:step."
                    texts[name] = st.text_input(label, key=f"sweep.{name}", help=help_)
                    tuned = [method for method in users if name == "alpha" and methods.get(method).axis == "tuned"]
                    of_safety = table.method_titles([method for method in users if method not in tuned])
                    of_tuned = f"Share of the tuned model: {table.method_titles(tuned)}" if tuned else ""
                    st.caption("  \n".join(filter(None, [of_safety, of_tuned])))
        split = pick.split(state)
    if alone := [name for name in chosen if not varied(name)]:
        st.caption(f"One point each, without α: {table.method_titles(alone)}")
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
            experts=trio.experts,
            options=preflight.Options(split=split),
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
            if not plan.problems:
                st.caption(
                    f"{words.count(plan.points, 'point')}{known}. Takes about {words.duration(plan.seconds)}.",
                    width="content",
                )
        if launch:
            with blocks.failures():
                name = f"Sweep {trio.pair}: {words.count(len(plan.recipes), 'run')}"
                st.session_state["sweep.job"] = jobs.submit(
                    start.workspace(), plan.recipes, name=name, user=start.user(), kind="sweep"
                )

said = {**trio.values, "method": chosen, **texts, "split": split, "job": st.session_state["sweep.job"]}
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
            pair = {"pair": trio.pair}
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
