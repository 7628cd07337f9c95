"""Presets, estimates, the queue that several people see, failed points."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import catalog, jobs
from sstmerge_core.builder import preflight
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, remarks
from sstmerge_core.workspace import Workspace
from tests.there import there
from tests.tiny_models import make_adapter

Open = Callable[..., AppTest]
TINY = {"base": "tiny-llama", "utility": "tiny-utility", "safety": "tiny-safety"}


@pytest.fixture
def workspace(tmp_path: Path, tiny_base: Path, tiny_pair: tuple[Path, Path]) -> Iterator[Workspace]:
    """An adapter pair to merge, and a device that another job keeps busy, so that nothing starts."""
    workspace = Workspace(tmp_path / "w").create()
    catalog.add_base(workspace, tiny_base)
    for path, name, role in zip(tiny_pair, ("tiny-utility", "tiny-safety"), ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=name, role=role)
    queue = Queue(workspace)
    add(queue, "busy", user="cleo", seconds=60)
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    yield workspace
    queue.end("busy", "done")
    for job in queue.active():
        queue.ask_to_stop(job.job_id)


def add(queue: Queue, name: str, *, user: str = "", seconds: float | None = None, run_ids: list[str] | None = None):
    device = jobs.default_device()
    spec: dict[str, Any] = {"recipes": []}
    queue.add(
        name, kind="sweep", name=name, user=user, device=device, spec=spec, run_ids=run_ids or [], seconds=seconds
    )


def recipes(workspace: Workspace, *alphas: float) -> list:
    shelf = {one.name: one for one in catalog.entries(workspace)}
    base = next(one for one in catalog.bases(workspace) if one.name == "tiny-llama")
    pair = base, shelf["tiny-utility"], shelf["tiny-safety"]
    return preflight.plan_sweep(workspace, *pair, methods=["linear"], alphas=alphas).recipes


def test_a_preset_fills_the_form_and_is_lit_until_something_else_is_said(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "sweep", **TINY)
    assert app.button_group("sweep.preset").value == "compare"
    app.button_group("sweep.preset").set_value("quick").run()
    assert not app.exception
    assert app.multiselect("sweep.method").value == ["linear"] and app.number_input("sweep.n").value == 32
    assert app.button("sweep.launch").label == "Start 5 runs"
    assert "32" in app.query_params["n"] and "linear" in app.query_params["method"]
    app.text_input("sweep.alpha").set_value("0.5").run()
    assert app.button_group("sweep.preset").value is None
    app.button_group("sweep.preset").set_value("report_2026_01").run()
    # 15 α of linear, TIES and DARE, and 15 strengths at 3 k
    assert app.button("sweep.launch").label == "Start 90 runs"


def test_time_and_memory_are_told_with_what_they_rest_on(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "sweep", **TINY, method="linear")
    told = next(caption for caption in app.caption if caption.value.startswith("Takes about"))
    assert "of memory" in told.value
    assert "a rough guess" in told.help and "from the sizes of the base model" in told.help
    scope = f"{jobs.default_device()}/{recipes(workspace, 0.5)[0].base.sha256[:12]}"
    Queue(workspace).learn(scope, {"merge": 1.0})
    app = open_page(workspace, "sweep", **TINY, method="linear")
    told = next(caption for caption in app.caption if caption.value.startswith("Takes about"))
    assert "from the speed of earlier jobs" in told.help


def test_fewer_prompts_make_another_run_that_takes_less_time(workspace: Workspace) -> None:
    shelf = {one.name: one for one in catalog.entries(workspace)}
    base = next(one for one in catalog.bases(workspace) if one.name == "tiny-llama")
    few, many = (
        preflight.plan_sweep(
            workspace,
            base,
            shelf["tiny-utility"],
            shelf["tiny-safety"],
            methods=["linear"],
            alphas=[0.5],
            options=preflight.Options(n=n),
        )
        for n in (8, 64)
    )
    assert there(few.seconds) < there(many.seconds) and few.recipes[0].run_id != many.recipes[0].run_id
    assert [suite.n for suite in there(few.recipes[0].evaluation).suites] == [8, 8, 8]


def test_everyone_sees_whose_job_is_whose_and_when_it_starts(open_page: Open, workspace: Workspace) -> None:
    queue = Queue(workspace)
    add(queue, "hers", user="ada", seconds=30)
    add(queue, "his", user="bob")
    app = open_page(workspace, "sweep", **TINY)
    app.session_state["visitor:name"] = "ada"
    app.run()
    assert not app.exception
    said = " ".join(item.value for item in app.markdown)
    assert "**busy** · cleo" in said and "**hers** · **you**" in said and "**his** · bob" in said
    captions = [caption.value for caption in app.caption]
    assert any(text.startswith("Number 1 in the queue, starts in about 1 min, takes about 30 s") for text in captions)
    assert any(text.startswith("Number 2 in the queue, starts in about 1 min 30 s.") for text in captions)


def test_a_waiting_job_is_moved_and_one_of_ones_own_cancelled_from_the_page(
    open_page: Open, workspace: Workspace
) -> None:
    queue = Queue(workspace)
    for name in ("first", "second"):
        add(queue, name)
    app = open_page(workspace, "sweep", **TINY)
    app.button("queue.second.first").click().run()
    assert [job.job_id for job in queue.active()] == ["busy", "second", "first"]
    assert app.button("queue.second.up").disabled and app.button("queue.first.down").disabled
    app.button("queue.first.cancel").click().run()
    assert there(queue.job("first")).state == "cancelled" and not app.exception


def test_a_job_that_started_meanwhile_is_not_moved_and_the_page_says_so(open_page: Open, workspace: Workspace) -> None:
    queue = Queue(workspace)
    add(queue, "first")
    add(queue, "second")
    app = open_page(workspace, "sweep", **TINY)
    queue.ask_to_stop("second")
    app.button("queue.second.up").click().run()
    assert any("Only a waiting job can be moved" in toast.value for toast in app.toast)


def test_a_launched_job_carries_the_visitors_name(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "sweep", **TINY, method="linear", alpha="0.5")
    app.session_state["visitor:name"] = "ada"
    app.button("sweep.launch").click().run()
    assert not app.exception
    assert [(job.user, len(job.run_ids)) for job in jobs.active(workspace) if job.job_id != "busy"] == [("ada", 1)]


@pytest.fixture
def failed(workspace: Workspace) -> tuple[str, list]:
    """A sweep of three points of which the last two failed."""
    points = recipes(workspace, 0.2, 0.4, 0.6)
    queue = Queue(workspace)
    queue.end("busy", "done")
    spec = {"recipes": [point.model_dump(mode="json") for point in points]}
    device = jobs.default_device()
    run_ids = [point.run_id for point in points]
    queue.add("sweep", kind="sweep", name="sweep", user="", device=device, spec=spec, run_ids=run_ids)
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    queue.end("sweep", "failed", "two points failed")
    for point, outcome in zip(points, ("run_finished", "run_failed", "run_failed"), strict=True):
        with EventWriter(workspace.run(point.run_id)) as events:
            told = {"pair": point.pair, "method": point.method, "label": point.label}
            events.write("run_started", run_id=point.run_id, source="measured", alpha=point.parameters["alpha"], **told)
            error = {"error": "prompts.csv: it has no rows."} if outcome == "run_failed" else {"seconds": 1.0}
            events.write(outcome, **error)
    add(queue, "again")
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    return "sweep", run_ids


def test_each_failed_point_has_its_reason_and_a_button_that_retries_it_alone(
    open_page: Open, workspace: Workspace, failed: tuple[str, list]
) -> None:
    job_id, run_ids = failed
    app = open_page(workspace, "sweep", **TINY, job=job_id)
    assert any("2 points failed" in item.value for item in app.markdown)
    assert sum("prompts.csv" in caption.value for caption in app.caption) == 2
    app.button(f"sweep.retry.{run_ids[1]}").click().run()
    assert not app.exception
    waiting = [job for job in jobs.active(workspace) if job.state == "queued"]
    assert [job.run_ids for job in waiting] == [[run_ids[1]]]
    assert app.button(f"sweep.retry.{run_ids[1]}").disabled and not app.button(f"sweep.retry.{run_ids[2]}").disabled


def test_all_failed_points_are_retried_at_once(open_page: Open, workspace: Workspace, failed: tuple[str, list]) -> None:
    job_id, run_ids = failed
    app = open_page(workspace, "sweep", **TINY, job=job_id)
    app.button("sweep.retry.all").click().run()
    assert not app.exception
    waiting = [job for job in jobs.active(workspace) if job.state == "queued"]
    assert [sorted(job.run_ids) for job in waiting] == [sorted(run_ids[1:])]


def test_the_overview_shows_the_queue_and_offers_the_quick_sweep(open_page: Open, workspace: Workspace) -> None:
    add(Queue(workspace), "hers", user="ada")
    app = open_page(workspace, "overview")
    assert not app.exception
    said = " ".join(item.value for item in app.markdown)
    assert "**busy** · cleo" in said and "**hers** · ada" in said
    assert app.button("overview.sweep").label == "Sweep over 5 α"


def test_the_overview_shows_the_tags_of_the_last_runs(open_page: Open, workspace: Workspace, failed) -> None:
    remarks.tag(workspace, failed[1][0], "for | *the* paper")
    app = open_page(workspace, "overview")
    last = next(item.value for item in app.markdown if item.value.startswith("| Run"))
    assert (
        not app.exception
        and [r":gray-badge[for \| \*the\* paper]" in row for row in last.splitlines()].count(True) == 1
    )


def test_a_preset_of_the_merge_page_sets_method_parameters_and_prompts(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "merge", **TINY, method="linear")
    assert app.button_group("merge.preset").value is None
    app.button_group("merge.preset").set_value("report_2026_01").run()
    assert not app.exception
    assert app.selectbox("merge.method").value == "sst_gevp"
    assert (app.number_input("merge.sst_gevp.alpha").value, app.number_input("merge.sst_gevp.k").value) == (0.1, 5)
    assert app.button_group("merge.preset").value == "report_2026_01"


def test_modules_trained_whole_are_asked_for_and_what_is_chosen_goes_into_every_point(
    open_page: Open, workspace: Workspace, tiny_base: Path, tmp_path: Path
) -> None:
    headed = make_adapter(tiny_base, tmp_path / "headed", 3, modules_to_save=["lm_head"])
    catalog.add(workspace, headed, name="headed", role="utility")
    app = open_page(workspace, "sweep", **TINY | {"utility": "headed"}, method="linear", alpha="0.2,0.4")
    assert not app.exception and app.button("sweep.launch").disabled
    app.selectbox("sweep.saved").select("utility").run()
    assert app.button("sweep.launch").label == "Start 2 runs" and not app.button("sweep.launch").disabled
    assert "utility" in app.query_params["saved"]
    app.button("sweep.launch").click().run()
    asked = Queue(workspace).spec(app.session_state["sweep.job"])["recipes"]
    assert [recipe["modules_to_save"] for recipe in asked] == ["utility"] * 2
