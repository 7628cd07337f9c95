"""Workspaces that earlier versions made, frozen with what those versions said of them, opened by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core import catalog, jobs
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import Owner, audit, rebuild, saved, trash
from sstmerge_core.upkeep import backup, importing, tidy
from sstmerge_core.workspace import Workspace

FROZEN = sorted((Path(__file__).parent / "workspaces").glob("*.tar.xz"))
"""Made by ``workspaces/make.py``; one a released version, and one of the days between"""


@pytest.fixture(params=FROZEN, ids=[path.name.removesuffix(".tar.xz") for path in FROZEN])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Workspace, dict[str, Any]]:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return Workspace(tmp_path / "workspace"), json.loads((tmp_path / "expected.json").read_text())


def said(workspace: Workspace) -> dict[str, Any]:
    with Owner.open(workspace) as owner:
        owner.ingest()
        ask = owner.cursor().execute
        board = "SELECT run_id, method, status, alpha, resistance, utility FROM leaderboard"
        return {
            "leaderboard": [list(row) for row in ask(f"{board} WHERE source = 'measured' ORDER BY run_id").fetchall()],
            "tags": [list(row) for row in ask("SELECT run_id, tag FROM tags ORDER BY ALL").fetchall()],
            "notes": [list(row) for row in ask("SELECT run_id, note FROM notes ORDER BY ALL").fetchall()],
            "counts": {
                table: ask(f"SELECT count(*) FROM {table}").fetchall()[0][0]
                for table in ("samples", "verdicts", "metrics", "module_stats", "spectra", "pair_inspections")
            },
        }


def test_the_first_release_is_among_them():
    assert "0.1.0.tar.xz" in [path.name for path in FROZEN]


def test_runs_figures_and_remarks_are_what_the_old_version_said(old):
    workspace, expected = old
    assert len(expected["leaderboard"]) > 5
    for _ in range(2):  # by its own database, which is made again, and by the event files alone
        found = said(workspace)
        assert found == {name: expected[name] for name in found}
        rebuild(workspace)


def test_its_queue_is_read_and_goes_on(old):
    workspace, _ = old
    states = {job.job_id[-6:]: (job.state, job.user) for job in jobs.jobs(workspace)}
    assert states == {"aaaaaa": ("done", "ada"), "bbbbbb": ("failed", "")}
    assert Queue(workspace).rates("cpu/x") == {"generate": 0.5}
    job_id = "20261122-000001-bbbbbb"
    Queue(workspace).requeue(job_id)
    Queue(workspace).move(job_id, "first")
    assert Queue(workspace).ask_to_stop(job_id) == "queued"


def test_deleted_runs_come_back_and_saved_queries_and_adapters_are_there(old):
    workspace, expected = old
    entry = trash.find(workspace, expected["trash"][0])
    trash.restore(workspace, entry)
    assert len(said(workspace)["leaderboard"]) == len(expected["leaderboard"]) + 1
    assert [query.name for query in saved.saved(workspace)] == ["all"]
    assert saved.history(workspace)[0].user == "ada"
    with_path = [path for path in catalog.ever_registered(workspace) if path.name == "mine"]
    assert with_path, "the adapter was registered where it lay then"
    found = catalog.add(workspace, workspace.adapters / "mine", "again")
    assert found.rank and audit.entries(workspace)[0]["action"] == "added adapter"


def test_it_is_backed_up_restored_imported_and_tidied(old, tmp_path):
    workspace, expected = old
    backup.make(workspace, tmp_path / "old.zip")
    backup.restore(tmp_path / "old.zip", tmp_path / "after")
    assert said(Workspace(tmp_path / "after"))["leaderboard"] == expected["leaderboard"]
    new = Workspace(tmp_path / "new").create()
    found = importing.take(new, tmp_path / "old.zip")
    ended = [row for row in expected["leaderboard"] if row[2] in importing.ENDED]
    assert found.new["runs"] == len(ended)
    assert {row[0] for row in said(new)["leaderboard"]} == {row[0] for row in ended}
    tidy.plan(workspace, older_than=0.0)
