"""The experiments of the reports: what they found, and the button that runs them."""

from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core import access, experiments, jobs, methods, words
from sstmerge_core.plots import experiment_tables
from sstmerge_core.plots import experiments as pictures
from sstmerge_core.plots import table as table_text
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.words import plain
from studio import blocks, entrance, link, start

store = blocks.store_or_stop()
names = list(experiments.EXPERIMENTS)
state = link.Link("experiments")
workspace = start.workspace()
# the first with something to show
first = next((name for name in names if experiments.results(workspace, name)), names[0])
state.read({"experiment": (link.one_of(names), first)})

st.segmented_control(
    "Experiment",
    names,
    key="experiments.experiment",
    format_func=lambda name: experiments.get(name).title,
    label_visibility="collapsed",
    required=True,
)
experiment = experiments.get(st.session_state["experiments.experiment"])
blocks.problems(state.problems, warning=True)
found = experiments.results(workspace, experiment.name)
result = None
with blocks.failures():
    result = experiments.load(found[0]) if found else None


def mine() -> list[jobs.Job]:
    return [job for job in jobs.jobs(workspace) if job.kind == "experiment" and job.name == experiment.title]


def launch_form() -> None:
    """Its settings as text, and the button."""
    text = st.text_area(
        "Settings",
        experiments.write(experiment.read(result.settings if result else None)),
        key=f"experiments.settings.{experiment.name}",
        height=320,
        help="YAML. The defaults are those of the bundled model; name your own base and adapters here.",
    )
    known = " What is measured already is not measured again." if result else ""
    may = entrance.guard("launch")
    if st.button("Run", type="primary", icon=":material/play_arrow:", key="experiments.launch", **may):
        with blocks.failures():
            settings = experiment.read(text).model_dump(mode="json")
            given = {"name": experiment.name, "settings": settings}
            jobs.submit(workspace, [], name=experiment.title, kind="experiment", experiment=given)
            st.rerun()
    st.caption(f"Goes on where it was when it is stopped.{known}")


TITLED = {*methods.names(), "base", "adapter"}


def watch() -> None:
    """The newest job of this experiment while it runs; the whole page runs again when it ends."""
    newest = next(iter(mine()), None)
    if newest is None or not (newest.active or newest.state in ("failed", "lost")):
        if st.session_state.get("experiments:active"):
            st.session_state["experiments:active"] = False
            st.rerun(scope="app")
        return
    st.session_state["experiments:active"] = newest.active
    with st.container(border=True):
        blocks.job_progress(newest)
        may = entrance.guard(access.whose("cancel", newest.user) if newest.active else "launch")
        if newest.active and st.button("Cancel", key="experiments.cancel", icon=":material/cancel:", **may):
            jobs.cancel(workspace, newest.job_id)
        if not newest.active and st.button("Resume", key="experiments.resume", icon=":material/play_arrow:", **may):
            jobs.resume(workspace, newest.job_id)


def heading(column: str, values: pd.Series) -> Any:
    if column in ("alpha", "k"):  # settings, of which neither end is the better one
        return st.column_config.NumberColumn("α" if column == "alpha" else "k", format="%.4g")
    if column in MEASURES:
        return blocks.measure_column(column)
    title = column.replace("_percent", ", %").replace("_", " ")
    title = title[:1].upper() + title[1:]
    if not pd.api.types.is_float_dtype(values):
        return title
    told = column in ("score", "discrimination", "retention", "hypervolume", "tax")  # beside rates of three decimals
    return st.column_config.NumberColumn(title, format="%.3f" if told else "%.4g")


def table(one: experiments.Table) -> None:
    """Rows with a link to the run behind each; intervals and n are in the file."""
    rows = pd.DataFrame(one.rows)
    if "run_id" in rows:
        rows["open"] = [words.run_address(run_id) for run_id in rows["run_id"]]
    for column in {"method", "first", "second"} & set(rows):
        rows[column] = [pictures.style(name).title if name in TITLED else name for name in rows[column]]
    hidden = {column for column in rows if column.endswith(("_low", "_high", "_n"))} | {"run_id", "run_ids"}
    if len(rows) > 1:  # what every row has alike tells them apart by nothing
        hidden |= {column for column in ("pair", "goal") if column in rows and rows[column].nunique() == 1}
    order = [*(["open"] if "open" in rows else []), *(column for column in one.columns if column not in hidden)]
    config = {column: heading(column, rows[column]) for column in order}
    config["open"] = st.column_config.LinkColumn("", display_text=":material/open_in_new:", width=36)
    st.dataframe(
        rows[order],
        column_config=config,
        hide_index=True,
        placeholder="–",
        key=f"experiments.{experiment.name}.{one.name}",
        alt=one.title,
    )
    st.caption(one.about)


def as_json(one: experiments.Result) -> bytes:
    return pd.Series([asdict(one)]).to_json(orient="records", indent=2).encode()


left, right = st.columns([8, 4], gap="large")
with left:
    st.caption(experiment.question)
    if result is not None:
        best = result.analysis.get("best_method")
        answer = pictures.style(best).title if best else plain(result.why_none)
        answer = answer if best or answer.startswith("No winner") else f"No winner. {answer}"
        st.markdown(f"**Best method:** {answer}")
with right, st.popover("Run it" if result is None else "Run again", icon=":material/science:"):
    launch_form()
active = any(job.active for job in mine())
st.fragment(watch, run_every="2s" if active else None, key=f"experiments.{experiment.name}.{active}")()

if result is None:
    blocks.empty("Not run here yet. *Run it*, above, shows its settings; what it finds stands here then.")
else:
    picture = store.recall(("experiment", str(found[0]), found[0].stat().st_mtime_ns), partial(pictures.figure, result))
    with left:
        told = experiment_tables.summaries(result)
        for summary in told:
            st.markdown(f"**{plain(summary.title)}**")
            st.markdown(table_text.markdown(summary.rows))
            st.caption(plain(summary.note))
        with st.expander("In sentences", icon=":material/notes:") if told else st.container():
            for sentence in result.findings:
                st.markdown(f"- {plain(sentence)}")
        if picture is not None:
            st.plotly_chart(
                picture,
                key=f"experiments.{experiment.name}.chart",
                config=blocks.CHART_CONFIG,
                alt=f"{experiment.title}: {experiment.about}",
            )
        foreseen = pictures.predicted(result)
        if foreseen is not None:
            st.subheader("Predicted before anything was generated", anchor=False)
            st.plotly_chart(foreseen, key="experiments.predicted", config=blocks.CHART_CONFIG, alt="Predicted front")
    with right:
        st.caption(
            f"{plain(result.base)} · {words.count(len(result.run_ids), 'run')} · {result.prompts} · "
            f"judge {plain(result.judge)}. A method is called best only where every other is shown worse."
        )
        for note in result.left_out:
            st.caption(plain(note))
        st.download_button(
            "JSON",
            data=partial(as_json, result),
            file_name=f"{experiment.name}.json",
            mime="application/json",
            icon=":material/download:",
            on_click="ignore",
        )
    main_table, *others = result.tables
    st.subheader(main_table.title, anchor=False)
    table(main_table)
    for one in others:
        with st.expander(f"{one.title} · {words.count(len(one.rows), 'row')}"):
            table(one)

state.write({"experiment": experiment.name})
