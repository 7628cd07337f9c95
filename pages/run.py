"""One run: what was merged and how, what came out, and every answer behind the figures."""

from typing import Literal

import streamlit as st

from pages.parts import run_again, run_answers, run_bits, run_delete, run_score, run_tidy, run_two_judges
from sstmerge_core import words
from sstmerge_core.errors import Problem
from sstmerge_core.evaluate import judges_measured
from sstmerge_core.merge.cautions import cautions
from sstmerge_core.plots import beside, similarity, spectrum, table
from sstmerge_core.store import queries, trash
from sstmerge_core.words import plain, run_name, shortened
from studio import adapter, blocks, link, present, remarks, start

COLORS: dict[str, Literal["green", "blue", "red", "orange", "gray"]] = {  # by status
    "finished": "green",
    "running": "blue",
    "failed": "red",
    "cancelled": "orange",
    "interrupted": "orange",
}

store = blocks.store_or_stop()
state = link.Link("run")
run_id = state.given("run")

if run_id is None:
    recent = present.recent(store, 50)
    if recent.empty:
        blocks.title("Run")
        blocks.empty("No run yet. A run is a merge that was measured.", page="pages/merge.py", label="Merge a pair")
    else:
        blocks.title("Run", f"The last {len(recent)}: open one here, or from a table or a chart of another page.")
        columns = ("pair", "tags", "status", "created_at")
        blocks.run_table(recent, key="run.recent", columns=columns, height=600 if len(recent) > 16 else "content")
    run_delete.problem()
    run_delete.contents()
    run_tidy.offer()
    st.stop()

run = store.query(queries.run, run_id)
if run is None:
    blocks.title("Run")
    run_delete.problem()
    if run_delete.in_trash(run_id, trash.RUN):
        st.page_link("pages/pareto.py", label="All runs", icon=":material/scatter_plot:")
        st.stop()
    fix = "It may belong to another workspace, or its folder was deleted. The runs of this workspace are on Pareto."
    blocks.problems([Problem(f"run={shortened(run_id)} in the link", "there is no such run in this workspace", fix)])
    st.page_link("pages/pareto.py", label="All runs", icon=":material/scatter_plot:")
    st.stop()

run["status"] = present.status_of(run_id, run["status"])
reported = run["source"] == "reported"
stats = store.query(queries.module_stats, run_id)
with st.container(horizontal=True, vertical_alignment="center"):
    st.header(plain(run_name(run)), anchor=False, width="content")
    if not reported:
        remarks.rename(run)
    st.badge(plain(run["pair"] or "no pair"), color="gray")
    color = COLORS.get(run["status"], "gray")
    st.badge("reported in the literature" if reported else plain(run["status"]), color=color)
    if (alpha := similarity.pooled(stats).get("alpha")) is not None:
        st.badge(f"α = {alpha:.3g} found", color="violet", help=similarity.describe("alpha").help)
    if run["split"] not in (None, "test"):
        st.badge(f"{plain(run['split'])} prompts", color="orange", help="Not the test prompts that are reported.")
if not reported:
    remarks.tags_and_notes(store, run_id)
if run["error"]:
    st.error(plain(run["error"]), icon=":material/error:")
blocks.problems(cautions(stats.to_dict("records")), warning=True)
if lost := store.query(queries.unreadable_lines, run_id):
    fault = f"{words.count(lost, 'line')} of its events cannot be read: the file was damaged on the disk"
    fix = "Its figures may lack what they held. Restore a backup, or delete the run and measure it again."
    blocks.problems([Problem(f"run {shortened(run_id)}", fault, fix)], warning=True)
run_again.retry(run)
run_again.progress(run)
run_bits.progress(run_id)
run_delete.problem()
run_delete.in_trash(run_id, trash.WEIGHTS)

row = store.query(queries.leaderboard_row, run_id)
blocks.cards(row)
if (
    row is not None
    and not reported
    and (stands := beside.standing_of(store.query(queries.pair_runs, run["pair"]), run_id))
):
    st.markdown(stands)

metrics = store.query(queries.run_metrics, run_id)
if not reported and row is not None and isinstance(row.get("judge"), str) and run["base"]:
    st.caption(plain(judges_measured.family_words(row["judge"], str(run["base"]))))
    unjudged = metrics[
        metrics["metric"].eq("unjudged") & metrics["suite"].eq("all") & metrics["judge"].eq(row["judge"])
    ]
    for count, n in zip(unjudged["value"] * unjudged["n"], unjudged["n"], strict=True):
        st.caption(plain(judges_measured.unjudged_words(round(count), int(n), row["judge"])))
judges = judges_measured.stored_judges(metrics["judge"])
answered = store.query(queries.answered, run_id)
eigenvalues = store.query(queries.spectrum, run_id)
stages = store.query(queries.run_stages, run_id)

names = ["Metrics", "Recipe"]
names += ["Answers"] if answered else []
names += ["Spectrum"] if len(eigenvalues) else []
names += ["Modules"] if len(stats) else []
names += ["Timeline"] if len(stages) else []
state.read({"tabs": (link.one_of(names), names[0]), **run_answers.fields(), **run_two_judges.fields()})
if st.session_state["run.tabs"] not in names:  # another run's
    st.session_state["run.tabs"] = names[0]
blocks.problems(state.problems, warning=True)
tabs = dict(zip(names, st.tabs(names, key="run.tabs", on_change="rerun"), strict=True))

with tabs["Metrics"]:
    if metrics.empty:
        st.caption("Nothing is measured yet: the figures stand here once its answers are judged.")
    else:
        if answered and not reported:
            run_score.offer(run_id, run["recipe"], metrics)
        st.dataframe(
            table.metric_rows(metrics, blocks.STATUS_WORDS),
            hide_index=True,
            column_config={
                "metric": st.column_config.TextColumn("Measure"),
                "suite": st.column_config.TextColumn("Prompts"),
                "value": st.column_config.NumberColumn("Value", format="%.3f"),
                "interval": st.column_config.TextColumn("95 % interval"),
                "n": st.column_config.NumberColumn("n", format="%d", help="Prompts", width=52),
                "judge": st.column_config.TextColumn("Judge", help=blocks.judges_help(judges)),
                "status": st.column_config.TextColumn("Why no figure", width=250),
                "compared with": st.column_config.LinkColumn("Compared with", display_text="#(.*)"),
            },
            height="content",
            placeholder="–",
            alt="Metrics of this run",
        )
        if not reported:
            run_bits.show(store, run_id)
            run_two_judges.show(store, state, run, metrics, judges)

if tabs["Recipe"].open:
    with tabs["Recipe"]:
        facts, full = st.columns(2, gap="large")
        facts.dataframe(table.facts(run), hide_index=True, alt="What was merged and how", height="content")
        with full:
            run_again.recipe(run)

if "Answers" in tabs and tabs["Answers"].open:
    with tabs["Answers"]:
        run_answers.answers(store, state, run, metrics, judges)

if "Spectrum" in tabs and tabs["Spectrum"].open:
    with tabs["Spectrum"]:
        modules = list(dict.fromkeys(eigenvalues["module"]))
        module = modules[0]
        if len(modules) > 1:
            module = st.selectbox("Module", modules, format_func=lambda name: name or "all modules", key="run.module")
        chosen = eigenvalues[eigenvalues["module"] == module]
        st.plotly_chart(
            spectrum.figure(chosen, kept=run["k"], method=run["method"]), config=blocks.CHART_CONFIG, alt="Spectrum"
        )
        st.caption("λ large: the direction lowers the loss on refusals much and costs little benign curvature.")

if "Modules" in tabs and tabs["Modules"].open:
    with tabs["Modules"]:
        blocks.pooled(stats)
        blocks.module_map(stats, key="run.stat")

if "Timeline" in tabs:
    with tabs["Timeline"]:
        st.dataframe(
            table.timeline(stages),
            hide_index=True,
            column_config={
                "started": st.column_config.DatetimeColumn("Time (UTC)", format="YYYY-MM-DD HH:mm:ss"),
                "what": st.column_config.TextColumn("What"),
                "status": st.column_config.TextColumn("Status"),
                "seconds": st.column_config.NumberColumn("Seconds", format="%.1f"),
                "units": st.column_config.NumberColumn("Steps", help="Prompts, or 1 for a stage that is one step."),
                "note": st.column_config.TextColumn("Note"),
            },
            height="content",
            placeholder="–",
            alt="Stages of this run",
        )

_SAID = ("tabs", *run_answers.fields(), *run_two_judges.fields())
values = {"run": run_id} | {name: st.session_state[f"run.{name}"] for name in _SAID}
adapter.progress(run_id)
with st.container(horizontal=True, vertical_alignment="center"):
    run_again.change(run)
    if answered and run["status"] == "finished" and not reported:
        run_again.rescore(run, answered, judges)
        run_bits.offer(run)
    against = [reference for reference in metrics["reference"].dropna().unique() if reference]
    if against and run["status"] == "finished":
        blocks.compare_link([against[0], run_id], label="Compare with its utility adapter alone")
    st.page_link(
        "pages/pareto.py",
        label="On the Pareto plot",
        icon=":material/scatter_plot:",
        query_params={"pair": run["pair"], "run": run_id},
    )
    if not reported and run["job_id"]:
        st.page_link("pages/sweep.py", label="Its job", icon=":material/work:", query_params={"job": run["job_id"]})
    if any(artifact.get("name") == "adapter" for artifact in run["artifacts"]):
        adapter.talk(run_id)
        adapter.download(run_id, run_name(run))
        adapter.to_the_hub(run_id, run_name(run))
    blocks.share_box(link.share(start.base_url(), "run", values))
    if not reported:
        run_delete.delete(store, run)
state.write(values)
