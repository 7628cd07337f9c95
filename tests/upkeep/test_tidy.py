"""Tidying up: what goes is listed with its size and why, and nothing goes that something needs."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sstmerge_core import access
from sstmerge_core.cli import main
from sstmerge_core.errors import AccessError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, audit, remarks, trash
from sstmerge_core.upkeep import shipped, tidy
from sstmerge_core.upkeep.uses import DAY
from sstmerge_core.workspace import Workspace

LONG_AGO = time.time() - 90 * DAY


def old(path: Path) -> None:
    for one in (*path.rglob("*"), path) if path.is_dir() else (path,):
        os.utime(one, (LONG_AGO, LONG_AGO))


def young(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.touch()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


def a_run(workspace: Workspace, run_id: str, end: str = "run_finished", *, weights: bool = True, **recipe) -> None:
    with EventWriter(workspace.run(run_id)) as events:
        events.write("run_started", label=run_id, recipe=recipe)
        if reference := recipe.pop("reference", None):
            events.write("metrics", rows=[{"metric": "tax", "suite": "s", "judge": "j", "reference": reference}])
        events.write(end)
    if weights:
        folder = workspace.merged_adapter(run_id)
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"w" * 1000)
    old(workspace.run(run_id))


def listed(workspace: Workspace) -> set[tuple[str, str]]:
    return {(item.kind, item.name) for item in tidy.plan(workspace)}


def test_old_weights_and_runs_without_a_result_are_listed_with_size_and_why(workspace):
    a_run(workspace, "done")
    a_run(workspace, "broken", "run_failed", weights=False)
    weights, run = tidy.plan(workspace)
    assert (weights.kind, weights.name, weights.bytes) == (tidy.WEIGHTS, "done", 1000)
    assert "its recipe makes the same bits again" in weights.why
    assert (run.kind, run.name) == (tidy.RUN, "broken") and "failed 90 days ago" in run.why


KEPT: dict[str, Callable[[Workspace], object]] = {
    "a tag": lambda w: remarks.tag(w, "r", "star"),
    "a note": lambda w: remarks.note(w, "r", "look"),
    "a label": lambda w: remarks.label(w, "r", {("harmful", "p"): "refusal"}),
    "an active job": lambda w: Queue(w).add("j", kind="m", name="n", user="", device="x", spec={}, run_ids=["r"]),
    "youth": lambda w: young(w.run("r")),
}


@pytest.mark.parametrize("end", ["run_finished", "run_failed"])
@pytest.mark.parametrize("why", KEPT)
def test_a_run_is_kept_by(why, end, workspace):
    a_run(workspace, "r", end)
    assert listed(workspace) == {(tidy.WEIGHTS if end == "run_finished" else tidy.RUN, "r")}
    KEPT[why](workspace)
    assert listed(workspace) == set()


def test_what_a_tagged_run_was_made_of_and_measured_against_is_kept(workspace):
    a_run(workspace, "reference")
    a_run(workspace, "expert")
    source = {"name": "expert", "path": str(workspace.merged_adapter("expert")), "sha256": "0" * 64}
    a_run(workspace, "star", adapters=[source], reference="reference")
    a_run(workspace, "other")
    assert {name for _, name in listed(workspace)} == {"reference", "expert", "star", "other"}
    remarks.tag(workspace, "star", "star")
    assert listed(workspace) == {(tidy.WEIGHTS, "other")}


def test_shipped_runs_are_kept(workspace):
    run_id, events = next(shipped.runs())
    workspace.run(run_id).mkdir()
    (workspace.run(run_id) / "events.jsonl").write_bytes(events)
    folder = workspace.merged_adapter(run_id)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"w")
    old(workspace.run(run_id))
    assert listed(workspace) == set()


def test_caches_logs_and_leftovers_of_killed_processes_go_but_not_what_is_in_use(workspace):
    (workspace.cache / "gradients" / "g").mkdir(parents=True)
    (workspace.cache / "gradients" / "g" / "x").write_bytes(b"1")
    (workspace.cache / "models" / "m").mkdir(parents=True)
    (workspace.logs / "job.log").write_text("said")
    for name in (".adapter.partial-dead", ".adapter.partial-alive"):
        (workspace.runs / name).mkdir()
    old(workspace.root)
    held = os.open(workspace.runs / ".adapter.partial-alive", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert listed(workspace) == {
            (tidy.CACHE, "cache/gradients/g"),
            (tidy.LOG, "logs/job.log"),
            (tidy.LEFTOVER, "runs/.adapter.partial-dead"),
        }
        tidy.carry_out(workspace, tidy.plan(workspace))
    finally:
        os.close(held)
    assert (workspace.cache / "models" / "m").is_dir() and (workspace.runs / ".adapter.partial-alive").is_dir()
    assert not (workspace.cache / "gradients" / "g").exists() and not (workspace.logs / "job.log").exists()


def test_a_cache_is_left_alone_while_a_job_runs_or_waits(workspace):
    (workspace.cache / "gradients" / "g").mkdir(parents=True)
    old(workspace.cache)
    Queue(workspace).add("j", kind="m", name="n", user="", device="x", spec={}, run_ids=[])
    assert listed(workspace) == set()


def test_what_went_to_the_trash_comes_back_bit_for_bit_and_it_is_recorded(workspace):
    a_run(workspace, "done")
    a_run(workspace, "broken", "run_failed", weights=False)
    before = {path: path.read_bytes() for path in workspace.runs.rglob("*") if path.is_file()}
    gone, kept = tidy.carry_out(workspace, tidy.plan(workspace))
    assert len(gone) == 2 and not kept and tidy.plan(workspace) == []
    for entry in trash.entries(workspace):
        trash.restore(workspace, entry)
    assert {path: path.read_bytes() for path in workspace.runs.rglob("*") if path.is_file()} == before
    assert "tidied up" in [one["action"] for one in audit.entries(workspace)]


def test_a_run_that_is_tagged_between_the_list_and_the_deed_stays(workspace):
    a_run(workspace, "done")
    items = tidy.plan(workspace)
    remarks.tag(workspace, "done", "star")
    gone, kept = tidy.carry_out(workspace, items)
    assert not gone and kept == ["done: it is needed now."]
    assert trash.weights(workspace, "done")


def test_only_who_may_empty_may_tidy(workspace, monkeypatch):
    a_run(workspace, "done")
    items = tidy.plan(workspace)
    monkeypatch.setattr(access, "_ask", lambda: access.Actor("rob", "runner", "dashboard"))
    with pytest.raises(AccessError):
        tidy.carry_out(workspace, items)
    assert trash.weights(workspace, "done")


def test_the_command_shows_first_and_does_it_when_told(workspace, monkeypatch, capsys):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    a_run(workspace, "done")
    assert main(["tidy"]) == 0
    assert "1 kB would go" in capsys.readouterr().out and trash.weights(workspace, "done")
    assert main(["tidy", "--yes"]) == 0
    assert "1 kB in the trash" in capsys.readouterr().out and not trash.weights(workspace, "done")
    assert main(["runs", "restore", "done"]) == 0
    assert trash.weights(workspace, "done")
