"""A run made again: its recipe as a file and as commands, the Merge page filled in with it, another judge, a retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from sstmerge_core import jobs, metrics, words
from sstmerge_core.builder import recipe_command, recipe_file
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.evaluate.judges import MODEL_JUDGES, judge_names
from sstmerge_core.recipe import Recipe
from sstmerge_core.words import plain, run_name
from sstmerge_core.worker import rescore_job
from studio import blocks, entrance, pick, start

WITH_MODEL = tuple(dict.fromkeys(name.partition(":")[0] for name in MODEL_JUDGES))


def recipe(run: Mapping[str, Any]) -> None:
    """The recipe to copy: YAML, and the commands that make its result again."""
    known = recipe_command.stored(run["recipe"])
    if known is None:
        st.json(run["recipe"] or run["parameters"], expanded=1)
        return
    workspace, run_id = start.workspace(), run["run_id"]
    with blocks.failures():
        command = recipe_command.by_options(known, workspace)
        if command:
            st.caption("The merged adapter again, bit for bit on the same machine and versions:")
            st.code(command, language="bash", wrap_lines=True)
        if known.method in ("adapter", "base"):
            if measuring := recipe_command.measuring(known, workspace):
                st.caption("The same measurement again:")
                st.code(measuring, language="bash", wrap_lines=True)
        else:
            st.caption(
                ("Or from" if command else "From") + " the recipe file, which also says whether the bits are the same:"
            )
            st.code(recipe_command.by_file(run_id), language="bash", wrap_lines=True)
        text = recipe_file.of_run(workspace, run_id)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption("As YAML: every input by its hash, no path of this machine.", width="stretch")
            st.download_button(
                recipe_file.NAME,
                text,
                file_name=f"{run_id}-{recipe_file.NAME}",
                mime="application/yaml",
                on_click="ignore",
                icon=":material/download:",
                key="run.yaml",
            )
        st.code(text, language="yaml", height=420)


def change(run: Mapping[str, Any]) -> None:
    """The way to the Merge page with everything of this recipe filled in."""
    known = recipe_command.stored(run["recipe"])
    if known is None or len(known.adapters) < 2 or known.method in ("adapter", "base"):
        return
    shelf = pick.Shelf()
    found = recipe_command.inputs(known, list(shelf.bases.values()), list(shelf.adapters.values()))
    values: dict[str, Any] | None = None
    if isinstance(found, recipe_command.Inputs):
        names = {base.sha256: name for name, base in shelf.bases.items()}
        names |= {entry.sha256: name for name, entry in shelf.adapters.items()}
        values = recipe_command.form(known, found, names)
        lost = recipe_command.not_in_the_form(known, start.workspace(), found)
        about = f"Not in that form, so at its default: {', '.join(map(plain, lost))}." if lost else None
    else:
        about = f"Not registered here: {', '.join(map(plain, found))}."
    st.page_link(
        "pages/merge.py",
        label="Change and run again",
        icon=":material/tune:",
        query_params=values,
        disabled=values is None,
        help=about,
    )


def retry(run: Mapping[str, Any]) -> None:
    """A failed, cancelled or interrupted run once more: finished stages are not repeated."""
    known = recipe_command.stored(run["recipe"])
    if known is None or run["status"] not in ("failed", "cancelled", "interrupted"):
        return
    if run["status"] == "interrupted":
        with blocks.failures():
            if _job(run) is not None:
                return  # which is resumed whole, below
        st.warning("Its process is gone. Run again, it goes on from where it stopped.", icon=":material/sync_problem:")
    st.button(
        "Try again",
        icon=":material/replay:",
        key="run.retry",
        type="primary",
        on_click=_retry,
        args=(known,),
        **entrance.guard("launch"),
    )
    if error := st.session_state.pop("run:retry problem", None):
        blocks.problems(error.problems)


def _retry(known: Recipe) -> None:
    try:
        here = recipe_file.locate(known, start.workspace())
        name = f"{known.label} · {known.pair}"
        st.session_state["run:job"] = jobs.submit(start.workspace(), [here], name=name, user=start.user())
    except SSTMergeError as error:
        st.session_state["run:retry problem"] = error


def progress(run: Mapping[str, Any]) -> None:
    """What is going on with this run just now: its own job, or another judge at work."""
    workspace = start.workspace()
    with blocks.failures():
        if (job := _job(run)) is not None:
            blocks.watch(job.job_id, key="run.job")
        scoring = rescore_job.last(workspace, run["run_id"])
        if scoring is not None and (scoring.active or scoring.job_id == st.session_state.get("run:rescore")):
            blocks.watch(scoring.job_id, key="run.rescoring")


def _job(run: Mapping[str, Any]) -> jobs.Job | None:
    """What works on the run or could not: the job that this session asked for, else the one that it belongs to."""
    own = run["job_id"] if run["status"] in ("running", "interrupted") else ""
    wanted = st.session_state.get("run:job") or own
    job = jobs.job(start.workspace(), wanted) if wanted else None
    if job is None or run["run_id"] not in job.run_ids:
        return None
    return job if job.active or job.state in ("failed", "lost") else None


def rescore(run: Mapping[str, Any], answers: int, known: Sequence[str]) -> None:
    """Another judge on the stored answers: which one, how long, go. `known`: those that judged them already."""
    with st.popover("Another judge", icon=":material/gavel:"):
        st.caption("Judges the stored answers: nothing is generated, and the verdicts so far stay beside the new ones.")
        others = [name for name in judge_names() if name not in known]
        encoded = metrics.by_encoder()
        judge = st.selectbox(
            "Judge",
            [*others, *WITH_MODEL, *encoded],
            key="run.new judge",
            help=blocks.judges_help(others),
            format_func=lambda name: f"{metrics.get(name).title}, by an encoder" if name in encoded else name,
        )
        if judge in (*WITH_MODEL, *encoded):
            needed = judge not in (*MODEL_JUDGES, *encoded)
            model = st.text_input(
                "Model" if needed else "Model, if not the usual one",
                key="run.judge model",
                placeholder="folder#layer, or name on the hub"
                if judge == "bertscore"
                else "folder, or name on the hub",
                help="Its files must be on this machine already.",
            ).strip()
            judge = f"{judge}:{model}" if model else "" if needed else judge
        seconds = rescore_job.predict(start.workspace(), judge, answers) if judge else None
        took = f"about {words.duration(seconds)}" if seconds is not None else "not known before its first time here"
        st.caption(f"{words.count(answers, 'answer')}: {took}.")
        st.button(
            "Judge them",
            icon=":material/gavel:",
            key="run.rescore",
            type="primary",
            **entrance.guard("launch", disabled=not judge),
            on_click=_rescore,
            args=(run["run_id"], judge, run_name(run)),
        )
    if error := st.session_state.pop("run:rescore problem", None):
        blocks.problems(error.problems)


def _rescore(run_id: str, judge: str, label: str | None) -> None:
    try:
        st.session_state["run:rescore"] = rescore_job.submit(
            start.workspace(), run_id, judge, label=label or "", user=start.user()
        )
    except SSTMergeError as error:
        st.session_state["run:rescore problem"] = error
