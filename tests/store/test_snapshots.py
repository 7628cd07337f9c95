"""A snapshot that is made of the one before it holds what a whole copy would."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from sstmerge_core.store import EventWriter, Owner, audit, remarks, snapshot
from sstmerge_core.store.fold import KEYS
from sstmerge_core.workspace import Workspace
from tests.store.conftest import metric, write_run

TABLES = (*KEYS, "leaderboard", "front", "ingested", "meta")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry a snapshot that was copied whole."""
    copied: list[str] = []
    copy = snapshot._copy

    def noted(connection: object, name: str) -> None:
        copied.append(name)
        copy(connection, name)

    monkeypatch.setattr(snapshot, "_copy", noted)
    return copied


def rows(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(connection.execute(f"FROM {table}").fetchall(), key=repr) for table in TABLES}


def same(owner: Owner, made: Path) -> bool:
    with duckdb.connect(str(made), read_only=True) as copy, owner.cursor() as cursor:
        return rows(copy) == rows(cursor)


def test_what_changed_is_all_that_is_copied_and_all_of_it(workspace: Workspace, owner: Owner, whole: list[str]) -> None:
    for number in range(3):
        write_run(workspace, f"r{number}")
    owner.ingest()
    assert same(owner, owner.publish()) and len(whole) == 1
    changes = (
        lambda: write_run(workspace, "r3"),
        lambda: shutil.rmtree(workspace.run("r1")),
        lambda: remarks.tag(workspace, "r0", "star"),
        lambda: audit.record(workspace, "looked", about="x"),
        lambda: _measured_again(workspace, "r2"),
    )
    for change in changes:
        change()
        owner.ingest()
        assert same(owner, owner.publish())
    for change in (lambda: write_run(workspace, "r1"), lambda: remarks.tag(workspace, "r0", "star", removed=True)):
        change()
    owner.ingest()
    assert same(owner, owner.publish()) and len(whole) == 1


def _measured_again(workspace: Workspace, run_id: str) -> None:
    with EventWriter(workspace.run(run_id)) as events:
        events.write("metrics", rows=[metric("resistance", "harmful", 0.125)])


def test_a_whole_copy_is_made_where_the_last_is_gone_failed_or_too_much_has_changed(
    workspace: Workspace, owner: Owner, whole: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(name: str) -> Path:
        write_run(workspace, name)
        owner.ingest()
        return owner.publish()

    changed("r0").unlink()
    assert same(owner, changed("r1")) and len(whole) == 2, "it is gone"
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_renew", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            changed("r2")
    assert same(owner, changed("r3")) and len(whole) == 3, "what the failed one had to tell is in the next"
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "MOST_CHANGED", 0)
        assert same(owner, changed("r4")) and len(whole) == 4
    monkeypatch.setattr(snapshot, "GROWN", (0.0, 0))
    assert same(owner, changed("r5")) and len(whole) == 5
