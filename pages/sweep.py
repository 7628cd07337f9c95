"""A grid of methods × α × k × seeds as one job, and the queue of all jobs."""

import streamlit as st

from sstmerge_core import grid, jobs, methods, preflight, presets, words
from sstmerge_core.plots import table
from sstmerge_core.store import queries
from sstmerge_core.words import plain
from studio import blocks, families, link, pick, queue, start, visitor

FIRST = presets.sweeps()["compare"]
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
FAILED = 10  # failed points shown with a button each


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


def values_of(preset: presets.SweepPreset) -> dict:
    lists = {name: getattr(preset, name) for name in LISTS}
    return {"method": [name for name in families.names() if name in preset.methods], "n": preset.n, **lists}


def take_preset() -> None:
    if name := st.session_state["sweep.preset"]:
        for field, value in values_of(presets.sweeps()[name]).items():
            st.session_state[f"sweep.{field}"] = value


def choose_preset() -> None:
    """The preset that the form says now is lit; a click on another fills the form."""

    def same(preset: presets.SweepPreset) -> bool:
        wanted = values_of(preset)
        used = {name for method in wanted["method"] for name in varied(method)}
        fields = {name for name in wanted if name not in LISTS or name in used}
        said = {name: st.session_state[f"sweep.{name}"] for name in fields}
        said["method"] = sorted(said["method"], key=families.names().index)
        return said == {name: wanted[name] for name in fields}

    known = presets.sweeps()
    st.session_state["sweep.preset"] = next((name for name, preset in known.items() if same(preset)), None)
    st.pills(
        "Presets",
        list(known),
        key="sweep.preset",
        format_func=lambda name: known[name].title,
        on_change=take_preset,
        wrap=True,
        help="  \n".join(f"**{plain(preset.title)}** {plain(preset.about)}" for preset in known.values()),
    )


store = blocks.store_or_stop()
shelf = pick.Shelf()
if pick.missing(shelf):
    st.stop()

state = link.Link("sweep")
state.read(shelf.fields() | shelf.expert_fields() | pick.measured_fields())
state.read({"method": (link.some_of(methods.names()), list(FIRST.methods))})
state.read({name: (link.text, getattr(FIRST, name)) for name in LISTS} | {"job": (link.text, "")})
blocks.problems(state.problems, warning=True)

left, right = st.columns([6, 6], gap="large")
with left:
    trio = pick.trio(state, shelf, several=True)
    choose_preset()
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
        measured = pick.measured(state)
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
            options=measured.options,
        )
        problems = [*measured.problems, *plan.problems]
        blocks.problems(problems)
    if plan is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            launch = st.button(
                f"Start {words.count(len(plan.recipes), 'run')}",
                type="primary",
                icon=":material/play_arrow:",
                disabled=bool(problems) or not plan.recipes,
                key="sweep.launch",
            )
            if plan.points and not problems:
                known = f", {plan.skipped} of them known already" if plan.skipped else ""
                st.caption(f"{words.count(plan.points, 'point')}{known}.", width="content")
            if plan.recipes:
                pick.estimate(plan, plan.recipes, trio.base)
        if launch:
            with blocks.failures():
                name = f"Sweep {trio.pair}: {words.count(len(plan.recipes), 'run')}"
                st.session_state["sweep.job"] = visitor.submit(plan.recipes, name=name, kind="sweep")

said = trio.values | {"method": chosen, **texts, **measured.values}
said |= {"job": st.session_state["sweep.job"]}
state.write(said)


def follow(job_id: str) -> None:
    st.session_state["sweep.job"] = job_id
    st.rerun(scope="app")


def results(job_id: str) -> None:
    """What has come out so far, the way on to its curves, and what failed."""
    job = jobs.job(start.workspace(), job_id)
    if job is None or not job.run_ids:
        return
    runs = start.query(queries.runs_by_id, job.run_ids)
    if len(runs):
        curve = runs[runs["alpha"].notna()]
        shown = {"pair": str(runs["pair"].iloc[0])}
        with st.container(horizontal=True, vertical_alignment="center"):
            if len(curve) and st.button(
                "Alpha curves",
                type="primary" if job.state == "done" else "secondary",
                icon=":material/show_chart:",
                key="sweep.curves",
                help="Safety and utility against α, with a link to share.",
            ):
                query = shown | {"method": list(dict.fromkeys(curve["method"]))}
                st.switch_page("pages/alpha_curves.py", query_params=query)
            st.page_link("pages/pareto.py", label="Pareto", icon=":material/scatter_plot:", query_params=shown)
            st.caption(f"{len(runs):,} of {words.count(len(job.run_ids), 'run')} finished.", width="content")
        blocks.run_table(
            runs, key=f"sweep.points.{job_id}", columns=("seconds",), height="auto" if len(runs) < 11 else 400
        )
    failed_points(job, finished=len(runs))


def failed_points(job: jobs.Job, finished: int) -> None:
    """Each failed point with its reason and a button, and one for all of them."""
    failed = start.query(queries.failed_runs, job.run_ids)
    if failed.empty:
        if job.state == "failed" and finished == len(job.run_ids):
            st.success("Every point is finished now, after a retry.", icon=":material/check_circle:")
        return
    again = {run_id for each in jobs.active(start.workspace()) for run_id in each.run_ids} if not job.active else set()
    st.markdown(f":red[:material/error:] **{words.count(len(failed), 'point')} failed.**")
    if len(failed) > 1:
        retry_button(job, list(failed["run_id"]), f"Retry all {len(failed):,}", again)
    for run in failed.head(FAILED).to_dict("records"):
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch", gap=None):
                st.markdown(f"[{plain(run['label'])}](run?run={run['run_id']})")
                st.caption(plain(run["error"] or "It says no reason."))
            retry_button(job, [run["run_id"]], "Retry", again)
    if len(failed) > FAILED:
        st.caption(f"Showing {FAILED} of {len(failed):,}.")


def retry_button(job: jobs.Job, run_ids: list[str], label: str, again: set[str]) -> None:
    waits = set(run_ids) <= again
    if st.button(
        "Waiting" if waits else label,
        key=f"sweep.retry.{'all' if len(run_ids) > 1 else run_ids[0]}",
        icon=":material/replay:",
        disabled=waits,
        width="content",
    ):
        with blocks.failures():
            job_id = jobs.retry(start.workspace(), job.job_id, run_ids, user=start.user())
            st.toast("Queued. The point appears here when it is finished.")
            visitor.remember(job_id)
            st.rerun(scope="app")


def all_jobs(watched_id: str) -> None:
    visitor.desk(jobs.jobs(start.workspace()), watched=watched_id, key="sweep")
    queue.draw(key="queue", watched=watched_id, watch=follow)


with right:
    watched_id = st.session_state["sweep.job"]
    if watched_id:
        watched = blocks.watch(watched_id, key="sweep.watch")
        if watched is None:
            st.warning(f"There is no job “{watched_id}” in this workspace.", icon=":material/search_off:")
        else:
            live = bool(jobs.active(start.workspace()))  # a retry of one of its points is another job
            st.fragment(results, run_every="3s" if live else None, key=f"sweep.points.{live}")(watched_id)
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
    with blocks.failures():
        busy = bool(jobs.active(start.workspace()))
        st.fragment(all_jobs, run_every="2s" if busy else None, key=f"queue.{busy}")(watched_id)
