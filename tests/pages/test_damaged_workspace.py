"""Pages on a damaged workspace say which file it is and what to do, and never show a traceback."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, Owner
from sstmerge_core.workspace import Workspace
from tests.corpus.texts import DEEP

Open = Callable[..., AppTest]
PAGES = ("overview", "adapters", "train", "merge", "sweep", "pareto", "compare", "run", "playground", "query")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "ws").create()
    with EventWriter(made.run("r1")) as events:
        events.write("run_started", label="r1", source="measured")
        events.write("run_finished", seconds=1.0)
    with Owner.open(made) as owner:
        owner.ingest()
        owner.publish()
    return made


def said(app: AppTest) -> str:
    assert not app.exception
    return " ".join(box.value for box in (*app.error, *app.warning)).replace("\\", "").replace("\u2060", "")


@pytest.mark.parametrize("page", PAGES)
def test_a_damaged_database_is_named_with_the_fix(workspace: Workspace, open_page: Open, page: str) -> None:
    workspace.database.write_bytes(b"no database " * 1000)
    told = said(open_page(workspace, page))
    assert "sstmerge.duckdb" in told and "`sstmerge db rebuild`" in told


@pytest.mark.parametrize("page", ["overview", "merge", "sweep", "train", "adapters"])
def test_a_damaged_queue_is_named_where_a_page_needs_it(workspace: Workspace, open_page: Open, page: str) -> None:
    workspace.queue.write_bytes(b"no queue " * 1000)
    told = said(open_page(workspace, page, job="job-1"))
    assert told == "" or ("queue.sqlite" in told and "mv " in told)


def test_a_flipped_bit_in_an_event_is_told_on_the_runs_page(workspace: Workspace, open_page: Open) -> None:
    path = workspace.run("r2") / "events.jsonl"
    with EventWriter(path.parent) as events:
        events.write("run_started", label="r2", source="measured")
        events.write(
            "metrics", rows=[{"metric": "resistance", "suite": "harmful", "judge": "j", "value": 0.75, "n": 8}]
        )
        events.write("run_finished", seconds=1.0)
    path.write_bytes(path.read_bytes().replace(b"0.75", b"0.35"))
    told = said(open_page(workspace, "run", run="r2"))
    assert "1 line of its events cannot be read" in told and "measure it again" in told
    assert "cannot be read" not in said(open_page(workspace, "run", run="r1"))


def test_a_full_disk_is_told_and_what_is_known_is_still_shown(
    workspace: Workspace, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_page(workspace, "run", run="r1")
    with EventWriter(workspace.run("r2")) as events:
        events.write("run_started", label="r2", source="measured")

    def full(*_: object) -> None:
        import duckdb

        raise duckdb.IOException(f"IO Error: Could not write file: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr("sstmerge_core.store.owner._write", full)
    app = open_page(workspace, "run", run="r1")
    assert "the disk is full" in said(app) and app.header
    monkeypatch.undo()


def test_a_disk_error_of_a_page_is_drawn_in_place(
    workspace: Workspace, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/secret")

    monkeypatch.setattr("studio.pick.bases", refused)
    assert "/data/secret" in said(open_page(workspace, "merge"))


@pytest.mark.parametrize("ending", ["yaml", "json", "jsonl"])
def test_an_upload_that_is_too_deep_is_told_and_so_is_the_link_to_it(
    workspace: Workspace, open_page: Open, ending: str
) -> None:
    file = workspace.uploads / "abc" / f"rows.{ending}"
    file.parent.mkdir(parents=True)
    file.write_text(DEEP["lists"])
    for _ in range(2):
        app = open_page(workspace, "train", file=str(file.relative_to(workspace.root)))
        said(app)
        app = open_page(workspace, "train", file=str(file))
        assert "within each other" in said(app)


def test_the_queue_is_not_touched_by_looking_at_pages(workspace: Workspace, open_page: Open) -> None:
    Queue(workspace).active()
    before = json.dumps([vars(job) for job in Queue(workspace).jobs(9)], default=str)
    said(open_page(workspace, "overview"))
    assert json.dumps([vars(job) for job in Queue(workspace).jobs(9)], default=str) == before
