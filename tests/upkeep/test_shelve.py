"""Runs that ended long ago move out of the one folder, and nobody who names them by id notices."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sstmerge_core import workspace as layout
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import EventWriter, Owner, queries, rebuild, remarks, trash
from sstmerge_core.store.events import last_status, run_folder
from sstmerge_core.upkeep import backup, importing, limits, shelve, tidy
from sstmerge_core.workspace import Workspace
from tests.store.conftest import write_run
from tests.store.test_owner import dump
from tests.there import there

IDS = [f"{number:x}" * 16 for number in (1, 2, 3)]


def quiet(workspace: Workspace) -> None:
    """As after two days, the smaller ids first."""
    for place, run_id in enumerate(IDS):
        then = time.time() - 2 * 86_400 + place
        os.utime(workspace.run(run_id) / "events.jsonl", (then, then))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "w").create()
    for run_id in IDS:
        write_run(found, run_id)
    quiet(found)
    return found


def moved(workspace: Workspace, most: int = 0) -> list[str]:
    shelve.move(workspace, shelve.movable(workspace, most))
    return sorted(path.name for path in workspace.finished.glob("*/*"))


def test_the_oldest_move_and_the_database_is_the_same_before_and_after_and_made_again(workspace: Workspace) -> None:
    with Owner.open(workspace) as owner:
        owner.ingest()
        before = dump(owner)
        assert moved(workspace, 1) == IDS[:2] and workspace.run(IDS[0]).parent == workspace.shelf(IDS[0])
        assert owner.ingest() == 0 and dump(owner) == before, "read on where it was left, and nothing read again"
        assert owner.cursor().execute("SELECT count(*) FROM ingested").fetchone() == (3,)
    rebuild(workspace)
    with Owner.open(workspace) as owner:
        assert dump(owner) == before


def test_what_is_said_of_a_moved_run_later_and_its_deletion_and_return_are_seen(workspace: Workspace) -> None:
    moved(workspace)
    for shelf in workspace.finished.iterdir():  # as if it had been so for long: what was found is remembered
        os.utime(shelf, (1e9, 1e9))
    with Owner.open(workspace) as owner:
        owner.ingest()
        looked = []
        with pytest.MonkeyPatch.context() as patch:
            sizes = layout._sizes
            patch.setattr(layout, "_sizes", lambda root, parents: looked.append(root) or sizes(root, parents))  # type: ignore[func-returns-value]
            assert owner.ingest() == 0 and not [root for root in looked if "finished" in root]
        with EventWriter(run_folder(workspace, IDS[0])) as events:
            events.write("run_failed", error="after all")
        assert owner.ingest() == 1 and there(queries.run(owner.cursor(), IDS[0]))["status"] == "failed"
        remarks.tag(workspace, IDS[1], "star")
        assert owner.ingest() == 1
        entry = trash.delete_run(workspace, IDS[2])
        assert owner.ingest() > 0 and queries.run(owner.cursor(), IDS[2]) is None
        trash.restore(workspace, entry)
        owner.ingest()
        assert there(queries.run(owner.cursor(), IDS[2]))["status"] == "finished"


def test_what_is_unfinished_young_at_work_being_written_or_registered_stays(workspace: Workspace) -> None:
    with EventWriter(workspace.run(IDS[0])) as events:
        events.write("run_failed", error="x")
    quiet(workspace)
    os.utime(workspace.run(IDS[1]) / "events.jsonl")
    Queue(workspace).add("j", kind="m", name="n", user="", device="x", spec={}, run_ids=[IDS[2]])
    assert moved(workspace) == []
    Queue(workspace).ask_to_stop("j")
    with EventWriter(workspace.run(IDS[2])):
        assert moved(workspace) == []
    folder = workspace.merged_adapter(IDS[2])
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    told = dict.fromkeys(("name", "role", "suite", "base_name", "description"), "") | {"scores": {}, "alpha": 1.0}
    told |= {"sha256": "0" * 64, "path": str(folder), "rank": 1, "modules": 1, "bytes": 1}
    with EventWriter(workspace.catalog) as events:
        events.write("adapter_added", **told)
    assert moved(workspace) == []
    with EventWriter(workspace.catalog) as events:
        events.write("adapter_removed", sha256="0" * 64)
    assert moved(workspace) == [IDS[2]]


def test_a_name_that_leads_out_of_the_runs_is_none(workspace: Workspace) -> None:
    (workspace.root / "secret").mkdir()
    for name in ("../secret", "..", "", "11/../../secret", f"../finished/11/{IDS[0]}"):
        folder = workspace.run(name)
        assert not workspace.is_run(folder) or not (folder / "events.jsonl").is_file(), name


def test_tidy_lists_it_and_backup_and_import_know_of_it(workspace: Workspace, tmp_path: Path) -> None:
    limits.file(workspace).write_text("runs = 1")
    (item,) = [one for one in tidy.plan(workspace) if one.kind == tidy.SHELVE]
    assert item.name == "2 runs" and item.bytes == 0 and "nothing goes" in item.why
    tidy.carry_out(workspace, [item])
    assert sorted(path.name for path in workspace.run_folders()) == IDS
    file = tmp_path / "backup.zip"
    backup.make(workspace, file)
    backup.restore(file, tmp_path / "restored")
    other = Workspace(tmp_path / "restored")
    assert last_status(other.run(IDS[0])) == "finished" and other.run(IDS[0]).parent.name == IDS[0][:2]
    third = Workspace(tmp_path / "third").create()
    importing.take(third, workspace.root)
    assert sorted(path.name for path in third.run_folders()) == IDS
    assert "runs 0" not in importing.told(importing.take(third, workspace.root))
