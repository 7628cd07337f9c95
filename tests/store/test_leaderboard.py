"""The leaderboard is a table that the owner keeps: always what it would be if it were made anew."""

from __future__ import annotations

from sstmerge_core.store import EventWriter, Owner, queries, rebuild
from tests.store.conftest import metric, write_run
from tests.there import there


def made_anew(owner: Owner) -> list[tuple]:
    (ids,) = there(owner.cursor().execute("SELECT list(run_id) FROM runs").fetchone())
    return owner.cursor().execute("FROM leaderboard_of(?) ORDER BY run_id", [ids]).fetchall()


def kept(owner: Owner) -> list[tuple]:
    return owner.cursor().execute("FROM leaderboard ORDER BY run_id").fetchall()


def test_it_follows_every_start_metric_and_end_of_a_run(workspace, owner):
    assert kept(owner) == made_anew(owner) and len(kept(owner)) == 180, "the reported figures are in it from the start"
    write_run(workspace, "r1", safe=0.2, finish=False)
    owner.ingest()
    assert kept(owner) == made_anew(owner)
    assert there(queries.leaderboard_row(owner.cursor(), "r1"))["status"] == "running"
    with EventWriter(workspace.run("r1")) as events:
        events.write("metrics", rows=[metric("resistance", "harmful", 0.9), metric("over_refusal", "near_miss", 0.4)])
        events.write("run_finished", seconds=3.0)
    write_run(workspace, "r2")
    owner.ingest()
    row = there(queries.leaderboard_row(owner.cursor(), "r1"))
    assert (row["status"], row["resistance"], row["over_refusal"]) == ("finished", 0.9, 0.4)
    assert kept(owner) == made_anew(owner)


def test_metrics_that_come_before_their_run_are_in_it_once_the_run_has_started(workspace, owner):
    with EventWriter(workspace.run("r1")) as events:
        events.write("metrics", rows=[metric("resistance", "harmful", 0.7)])
    owner.ingest()
    assert queries.leaderboard_row(owner.cursor(), "r1") is None
    with EventWriter(workspace.run("r1")) as events:
        events.write("run_started", run_id="r1", pair="A5_A7", method="linear")
    owner.ingest()
    assert there(queries.leaderboard_row(owner.cursor(), "r1"))["resistance"] == 0.7


def test_it_survives_a_restart_and_a_rebuild(workspace):
    with Owner.open(workspace) as owner:
        write_run(workspace, "r1", safe=0.3)
        owner.ingest()
        before = kept(owner)
    with Owner.open(workspace) as owner:
        assert owner.ingest() == 0 and kept(owner) == before
    rebuild(workspace)
    with Owner.open(workspace) as owner:
        assert kept(owner) == before == made_anew(owner)
