"""Another judge, asked for from a page: a job of the queue."""

from __future__ import annotations

import pytest

from sstmerge_core import jobs
from sstmerge_core.errors import JobError, RecipeError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe.record import answered
from sstmerge_core.worker import rescore_job
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import eventually
from tests.store.conftest import write_run
from tests.there import there


def test_the_job_judges_the_stored_answers_and_the_page_finds_it_again(workspace: Workspace) -> None:
    write_run(workspace, "aaaa", recipe={})
    job_id = rescore_job.submit(workspace, "aaaa", "advbench_strings", label="Linear", user="ada")
    assert there(rescore_job.last(workspace, "aaaa")).job_id == job_id and rescore_job.last(workspace, "bbbb") is None
    done = jobs.wait(workspace, job_id, timeout=60)
    assert done.state == "done", jobs.log_tail(workspace, job_id)
    assert done.name == "advbench_strings on Linear" and done.user == "ada"
    assert answered(workspace, "aaaa").not_judged("advbench_strings", "harmful") == []
    assert there(rescore_job.predict(workspace, "advbench_strings", 100)) < 60


def test_a_judge_without_a_model_does_not_wait_for_the_device(workspace: Workspace, monkeypatch) -> None:
    write_run(workspace, "aaaa", recipe={})
    monkeypatch.setattr("sstmerge_core.jobs.settle", lambda workspace: None)
    devices = [
        there(Queue(workspace).job(rescore_job.submit(workspace, "aaaa", judge))).device
        for judge in ("advbench_strings", "wildguard", "hf_classifier:some/model")
    ]
    assert devices == ["inspection", "cpu", "cpu"]


def test_a_model_that_is_not_here_ends_the_job_with_the_way_to_get_it(workspace: Workspace) -> None:
    write_run(workspace, "aaaa", recipe={})
    job_id = rescore_job.submit(workspace, "aaaa", "hf_classifier:/nowhere/model")
    failed = eventually(lambda: (job := jobs.job(workspace, job_id)) and not job.active and job, 60)
    assert failed.state == "failed" and "/nowhere/model" in there(failed.error)


def test_what_cannot_be_judged_is_refused_before_anything_waits(workspace: Workspace) -> None:
    write_run(workspace, "aaaa", finish=False, recipe={})
    with pytest.raises(RecipeError, match="no such judge"):
        rescore_job.submit(workspace, "aaaa", "advbench")
    with pytest.raises(JobError, match="has not finished"):
        rescore_job.submit(workspace, "aaaa", "advbench_strings")
    assert not workspace.queue.exists()


def test_nobody_guesses_how_long_a_model_takes_before_its_first_time(workspace: Workspace) -> None:
    assert rescore_job.predict(workspace, "wildguard", 64) is None
    Queue(workspace).learn("cpu/", {"start": 5.0, "judge:wildguard": 2.0})
    assert 100 < there(rescore_job.predict(workspace, "wildguard", 64)) < 200
