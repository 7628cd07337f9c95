"""A sweep that is screened first: said on the form, in the link and in the job, and told beside the points."""

from __future__ import annotations

from pathlib import Path

from sstmerge_core import jobs
from sstmerge_core.analysis import screening
from sstmerge_core.analysis.screening import Screening, Setting
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.workspace import Workspace
from tests.pages.test_sweep_page import TINY, Open, workspace

__all__ = ["workspace"]


def test_the_form_says_how_many_are_screened_and_by_what_rule(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "sweep", **TINY, method="linear", alpha="0.2,0.4,0.6", screen="2")
    assert not app.exception
    assert app.button("sweep.launch").label == "Screen 3 points, run the best 2"
    assert any(caption.value == screening.RULE for caption in app.caption)
    app.button("sweep.launch").click().run()
    [job] = [one for one in jobs.active(workspace) if one.kind == "sweep" and one.run_ids]
    assert Queue(workspace).spec(job.job_id)["screening"] == {"keep": 2, "n": Screening.n, "rule": screening.RULE}
    app.number_input("sweep.screen").set_value(0).run()
    assert app.button("sweep.launch").label == "Start 3 runs"
    assert app.query_params["screen"] == "0"


def test_what_was_screened_stands_beside_the_points(open_page: Open, workspace: Workspace, tmp_path: Path) -> None:
    app = open_page(workspace, "sweep", **TINY, method="linear", alpha="0.2,0.4", screen="1")
    app.button("sweep.launch").click().run()
    job_id = app.session_state["sweep.job"]
    figures = {"refusal_nll": 1.0, "near_refusal_nll": 2.0, "answer_nll": 0.5, "kl_to_utility": 0.125}
    run_ids = next(job for job in jobs.active(workspace) if job.job_id == job_id).run_ids
    settings = [Setting(run_id, "linear", f"Linear {run_id}", figures) for run_id in run_ids]
    screening.save(workspace, screening.choose(settings, Screening(1), job_id))
    app = open_page(workspace, "sweep", **TINY, method="linear", job=job_id)
    assert not app.exception
    assert any(one.label == "Screened: 1 point left out" for one in app.expander)
    table = next(frame.value for frame in app.dataframe if "KL to U" in frame.value)
    assert list(table["KL to U"]) == [0.125, 0.125] and list(table["place"]) == [1, 2]
    assert any(screening.RULE in caption.value for caption in app.caption)
