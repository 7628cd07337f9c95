"""The points of a job: what has come out so far, the way on to its curves, and what failed."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages.parts import sweep_mattered
from sstmerge_core import jobs, metrics, words
from sstmerge_core.analysis import screening
from sstmerge_core.store import queries
from sstmerge_core.words import plain, run_link
from studio import blocks, entrance, queue, start, visitor

FAILED = 10
"""Failed points shown with a button each"""


def follow(job_id: str) -> None:
    """A job while it runs, and its points as they come."""
    if queue.watched(job_id, key="sweep.watch") is None:
        return
    live = bool(jobs.active(start.workspace()))  # a retry of one of its points is another job
    st.fragment(_results, run_every="3s" if live else None, key=f"sweep.points.{live}")(job_id)


def _results(job_id: str) -> None:
    job = jobs.job(start.workspace(), job_id)
    if job is None or not job.run_ids:
        return
    screened = screening.load(start.workspace(), job_id)
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
                query = shown | {name: list(dict.fromkeys(curve[name].dropna())) for name in ("method", "split")}
                st.switch_page("pages/alpha_curves.py", query_params=query)
            st.page_link("pages/pareto.py", label="Pareto", icon=":material/scatter_plot:", query_params=shown)
            wanted = sum(one.generated for one in screened.settings) if screened else len(job.run_ids)
            st.caption(f"{len(runs):,} of {words.count(wanted, 'run')} finished.", width="content")
        blocks.run_table(
            runs,
            key=f"sweep.points.{job_id}",
            columns=("seconds", "memory", "tokens"),
            height="auto" if len(runs) < 11 else 400,
        )
    if screened is not None:
        _screening(screened)
    if not job.active:
        full = start.query(queries.report_runs, run_ids=job.run_ids)
        sweep_mattered.draw(full, key=f"sweep.mattered.{job_id}")
    _failed(job, finished=len(runs))


def _screening(record: screening.Record) -> None:
    """Every point that was screened, the best first, with what it was chosen by."""
    heads = [metrics.get(name) for name in screening.FIGURES]
    left_out = sum(not one.generated for one in record.settings)
    with st.expander(f"Screened: {words.count(left_out, 'point')} left out", icon=":material/filter_alt:"):
        st.caption(record.words())
        st.dataframe(
            pd.DataFrame(
                [
                    {"place": one.place, "point": one.label}
                    | {metric.title: one.figures.get(metric.name) for metric in heads}
                    | {"": "generated" if one.generated else "left out"}
                    for one in record.settings
                ]
            ),
            hide_index=True,
            placeholder="–",
            column_config={
                metric.title: st.column_config.NumberColumn(
                    f"{metric.title} {metric.arrow}", format="%.3f", help=f"{metric.help} {metric.unit}".strip()
                )
                for metric in heads
            },
            height="auto" if len(record.settings) < 11 else 400,
            alt="Screened points",
        )


def _failed(job: jobs.Job, finished: int) -> None:
    """Each failed point with its reason and a button, and one for all of them."""
    failed = start.query(queries.failed_runs, job.run_ids)
    if failed.empty:
        if job.state == "failed" and finished == len(job.run_ids):
            st.success("Every point is finished now, after a retry.", icon=":material/check_circle:")
        return
    again = {run_id for each in jobs.active(start.workspace()) for run_id in each.run_ids} if not job.active else set()
    st.markdown(f":red[:material/error:] **{words.count(len(failed), 'point')} failed.**")
    if len(failed) > 1:
        _retry(job, list(failed["run_id"]), f"Retry all {len(failed):,}", again)
    for run in failed.head(FAILED).to_dict("records"):
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch", gap=None):
                st.markdown(run_link(run["label"], run["run_id"]))
                st.caption(plain(run["error"] or "It says no reason."))
            _retry(job, [run["run_id"]], "Retry", again)
    if len(failed) > FAILED:
        st.caption(f"Showing {FAILED} of {len(failed):,}.")


def _retry(job: jobs.Job, run_ids: list[str], label: str, again: set[str]) -> None:
    """The button that queues these points once more. `again`: those that wait already."""
    waits = set(run_ids) <= again
    if st.button(
        "Waiting" if waits else label,
        key=f"sweep.retry.{'all' if len(run_ids) > 1 else run_ids[0]}",
        icon=":material/replay:",
        **entrance.guard("launch", disabled=waits),
        width="content",
    ):
        with blocks.failures():
            job_id = jobs.retry(start.workspace(), job.job_id, run_ids, user=start.user())
            st.toast("Queued. The point appears here when it is finished.")
            visitor.remember(job_id)
            st.rerun(scope="app")
