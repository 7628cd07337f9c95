from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from sstmerge_core.errors import StoreError
from sstmerge_core.store import EventWriter, Owner, audit, connect, queries, rebuild, remarks
from sstmerge_core.store import owner as owner_module
from sstmerge_core.store.fold import KEYS
from tests.store.conftest import metric, sample, write_run
from tests.there import there


def dump(owner: Owner) -> dict[str, list[tuple]]:
    """Every table in a comparable order."""
    cursor = owner.cursor()
    return {table: sorted(cursor.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in KEYS}


def test_a_run_is_in_every_table_after_ingest_and_once_only(workspace, owner):
    write_run(workspace, "r1")
    assert owner.ingest() == 9
    assert owner.ingest() == 0
    counted = queries.counts(owner.cursor())
    assert (counted["runs"], counted["finished"], counted["samples"]) == (1, 1, 2)
    row = there(queries.run(owner.cursor(), "r1"))
    assert (row["status"], row["utility_suite"], row["user"], row["seconds"]) == ("finished", "facts", "ada", 3.0)
    assert row["artifacts"] == [{"name": "adapter", "path": "artifacts/adapter", "sha256": "s", "bytes": 5}]


def test_events_are_taken_in_as_they_come_and_half_a_line_waits(workspace, owner):
    with EventWriter(workspace.run("r1")) as events:
        events.write("run_started", method="linear")
        assert owner.ingest() == 1
        assert there(queries.run(owner.cursor(), "r1"))["status"] == "running"
        path = workspace.run("r1") / "events.jsonl"
        with open(path, "ab") as raw:
            raw.write(b'{"event": "run_fini')
            raw.flush()
            assert owner.ingest() == 0
            raw.write(b'shed", "t": 5.0, "seconds": 2.0}\n')
    assert owner.ingest() == 1
    row = there(queries.run(owner.cursor(), "r1"))
    assert (row["status"], row["seconds"], row["method"]) == ("finished", 2.0, "linear")


@pytest.mark.parametrize("together", [True, False])
def test_a_resumed_run_keeps_its_first_start_and_has_its_last_status(workspace, owner, together):
    steps = [
        {"event": "run_started", "t": 100.0, "method": "linear", "alpha": 0.1},
        {"event": "run_failed", "t": 110.0, "error": "no luck"},
        {"event": "run_started", "t": 200.0, "method": "linear", "alpha": 0.1},
        {"event": "run_finished", "t": 230.0, "seconds": 30.0},
    ]
    folder = workspace.run("r1")
    folder.mkdir()
    for step in steps:
        with open(folder / "events.jsonl", "ab") as file:
            file.write(owner_module.json.dumps(step).encode() + b"\n")
        if not together:
            owner.ingest()
            assert there(queries.run(owner.cursor(), "r1"))["error"] == step.get("error")
    owner.ingest()
    row = there(queries.run(owner.cursor(), "r1"))
    assert (row["status"], row["error"], row["seconds"], row["alpha"]) == ("finished", None, 30.0, 0.1)
    assert (row["created_at"].minute, row["finished_at"].minute) == (1, 3)


def test_a_new_verdict_and_a_new_metric_replace_the_old_ones_and_a_sample_stays(workspace, owner):
    write_run(workspace, "r1")
    owner.ingest()
    with EventWriter(workspace.run("r1")) as events:
        events.write("samples", suite="harmful", rows=[sample("h1", "another")])
        events.write(
            "verdicts", judge="refusal_regex_v2", suite="harmful", rows=[{"prompt_id": "h1", "label": "degenerate"}]
        )
        events.write("metrics", rows=[metric("resistance", "harmful", 0.9)])
    owner.ingest()
    samples = queries.run_samples(owner.cursor(), "r1", "harmful")
    assert samples.response.tolist() == ["no", "sure"] and samples.label.tolist()[0] == "degenerate"
    assert queries.leaderboard(owner.cursor(), sources=["measured"]).resistance.tolist() == [0.9]


def test_a_line_that_is_no_event_is_kept_in_sight_and_stops_nothing(workspace, owner):
    write_run(workspace, "r1", finish=False)
    with open(workspace.run("r1") / "events.jsonl", "ab") as file:
        file.write(b"not json\n" + b'{"event": "metrics", "t": 1, "rows": [{"metric": "asr", "value": "high"}]}\n')
        file.write(b'{"event": "samples", "t": 1, "rows": [{"prompt": "without its id"}]}\n')
        file.write(b'{"event": "run_finished", "t": 9, "seconds": 1}\n')
    owner.ingest()
    con = owner.cursor()
    assert there(queries.run(con, "r1"))["status"] == "finished"
    assert "unreadable_line" in queries.run_stages(con, "r1").event.tolist()
    assert queries.run_metrics(con, "r1").set_index("metric").value.isna()["asr"]
    assert queries.counts(con)["samples"] == 2


def test_ten_thousand_answers_are_in_the_database_in_under_two_seconds(workspace, owner):
    with EventWriter(workspace.run("r1")) as events:
        for batch in range(100):
            rows = [sample(f"{batch}-{i}", "an answer " * 30) for i in range(100)]
            events.write("samples", suite="harmful", batch=batch, rows=rows)
    start = time.perf_counter()
    assert owner.ingest() == 100
    assert time.perf_counter() - start < 2
    assert queries.counts(owner.cursor())["samples"] == 10_000


def test_rebuilding_from_the_event_files_gives_the_same_tables(workspace):
    with Owner.open(workspace) as owner:
        for i in range(3):
            write_run(workspace, f"r{i}", alpha=i / 10)
            owner.ingest()
        with EventWriter(workspace.catalog) as events:
            events.write("adapter_added", sha256="a", name="A5", role="utility", scores={"rouge_l": 0.8})
            events.write("adapter_added", sha256="b", name="A7", role="safety")
            events.write("sweep_submitted", sweep_id="s", name="n", user="u", recipe_count=2, run_ids=["r0", "r1"])
        owner.ingest()
        with EventWriter(workspace.catalog) as events:
            events.write("adapter_removed", sha256="b")
        with EventWriter(workspace.pairs / "p") as events:
            events.write("pair_inspected", pair_id="p", base="x", utility="a", safety="b")
            events.write("module_stats", rows=[{"module": "m", "stat": "cosine", "value": 0.2}])
        with EventWriter(workspace.run("r0")) as events:
            events.write("run_started", method="linear", alpha=0.0)
            events.write("run_cancelled")
        remarks.tag(workspace, "r1", "keep")
        audit.record(workspace, "launched", "job 1")
        owner.ingest()
        before = dump(owner)
        assert queries.adapters(owner.cursor()).name.tolist() == ["A5"]
        assert queries.sweeps(owner.cursor()).finished.tolist() == [1]
    assert all(before[table] for table in KEYS), "the comparison covers every table"
    rebuild(workspace)
    with Owner.open(workspace) as owner:
        assert dump(owner) == before


def test_an_owner_killed_in_the_middle_of_an_ingest_loses_nothing_and_doubles_nothing(workspace):
    for i in range(300):
        write_run(workspace, f"r{i:03}")
    code = (
        "import sys; from pathlib import Path; from sstmerge_core.store import Owner, owner;"
        "from sstmerge_core.workspace import Workspace; owner.BATCH_BYTES = 20_000\n"
        "o = Owner.open(Workspace(Path(sys.argv[1]))); print('open', flush=True); o.ingest(); print('all', flush=True)"
    )
    for delay in (0.05, 0.2):
        child = subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE, text=True)
        assert there(child.stdout).readline() == "open\n"
        time.sleep(delay)
        child.kill()
        child.wait()
    with Owner.open(workspace) as owner:
        already = queries.counts(owner.cursor())["runs"]
        owner.ingest()
        after = dump(owner)
        assert already < 300 and queries.counts(owner.cursor())["runs"] == 300
    rebuild(workspace)
    with Owner.open(workspace) as owner:
        assert dump(owner) == after


def test_threads_may_ingest_and_read_at_the_same_time(workspace, owner):
    for i in range(20):
        write_run(workspace, f"r{i}")
    totals: list[int] = []
    threads = [threading.Thread(target=lambda: totals.append(owner.ingest())) for _ in range(4)]
    threads += [threading.Thread(target=lambda: queries.leaderboard(owner.cursor())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals) == 20 * 9


def held(workspace) -> subprocess.Popen:
    code = (
        "import sys; from pathlib import Path; from sstmerge_core.store import Owner;"
        "from sstmerge_core.workspace import Workspace;"
        "o = Owner.open(Workspace(Path(sys.argv[1]))); o.ingest(); print('open', flush=True);"
        "input(); o.publish(); print('published', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert there(child.stdout).readline() == "open\n"
    return child


def test_while_another_process_owns_the_database_it_is_named_and_the_snapshot_is_read(workspace):
    write_run(workspace, "r1")
    child = held(workspace)
    try:
        with pytest.raises(StoreError, match=f"process {child.pid} holds the database"):
            Owner.open(workspace, wait=0)
        with pytest.raises(StoreError, match="holds the database"):
            connect(workspace)
        there(child.stdin).write("\n")
        there(child.stdin).flush()
        assert there(child.stdout).readline() == "published\n"
        with connect(workspace) as reader:
            assert reader.read_only and reader.ingest() == 0
            assert queries.counts(reader.cursor())["runs"] == 1
            with pytest.raises(Exception, match="read-only"):
                reader.cursor().execute("DELETE FROM runs")
    finally:
        child.kill()
        child.communicate()
    with connect(workspace) as owner:
        assert not owner.read_only


def test_a_snapshot_is_a_whole_copy_made_only_when_something_changed_and_old_ones_go(workspace, owner):
    first = owner.publish()
    assert owner.publish() == first
    for i in range(3):
        write_run(workspace, f"r{i}")
        owner.ingest()
        newest = owner.publish()
        assert newest != first
    assert len(list(workspace.snapshots.iterdir())) == 2
    owner.close()
    workspace.database.unlink()
    os.rename(newest, workspace.database)
    with Owner.open(workspace) as copy:
        assert queries.counts(copy.cursor())["finished"] == 3
        assert len(queries.leaderboard(copy.cursor(), sources=["measured"])) == 3


def test_a_database_of_another_schema_is_made_again(workspace, monkeypatch):
    write_run(workspace, "r1")
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.cursor().execute("UPDATE meta SET value = 'old' WHERE key = 'schema'")
    with Owner.open(workspace) as owner:
        assert queries.counts(owner.cursor())["runs"] == 0
        assert owner.ingest() == 9


def test_a_file_that_is_no_database_is_an_error_that_names_it(workspace):
    workspace.database.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="sstmerge.duckdb"):
        Owner.open(workspace)
