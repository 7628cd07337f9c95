"""What a workspace costs as it grows: bytes and seconds a run, looking for news, snapshots, tables against Parquet.

    python -m benchmarks.growth [--runs 100000] [--samples 1000000] [--demo WORKSPACE] [--model DIR] [--keep FOLDER]

One JSON object a line; docs/scale.md extrapolates from them. Runs are those of `benchmarks.filled`; what a run costs is
read from a workspace with real ones, which is only read. Wall and CPU seconds are the least of several times.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.filled import fill
from sstmerge_core.content import BASE, ContentStore, fetch
from sstmerge_core.store import EventWriter, Owner, owner, rebuild, snapshot
from sstmerge_core.store.events import read_events
from sstmerge_core.upkeep import shelve
from sstmerge_core.workspace import Workspace

Figure = dict[str, Any]
LARGE = ("samples", "verdicts")
TABLES = (*LARGE, "metrics", "runs", "leaderboard", "events")
QUERIES = {
    "front of every pair": "SELECT count(*) FROM front",
    "runs by method": "SELECT method, count(*), avg(resistance), max(utility) FROM leaderboard GROUP BY ALL",
    "answers by method": "SELECT method, suite, count(*), avg(n_tokens) FROM samples JOIN runs USING (run_id) "
    "GROUP BY ALL",
    "refusals by suite": "SELECT suite, count(*), avg((label = 'refusal')::INT) FROM verdicts GROUP BY ALL",
    "answers of one run": "SELECT * FROM samples WHERE run_id = '{run}'",
}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=100_000)
    options.add_argument("--samples", type=int, default=1_000_000)
    options.add_argument("--demo", type=Path, help="a workspace with measured runs")
    options.add_argument("--model", type=Path, help="a base model's folder, to share by a folder of this disk")
    options.add_argument("--keep", type=Path, help="where the made-up workspace is left, or found from an earlier time")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part in (
            a_run(given.demo, place) if given.demo else (),
            shared(given.model, place) if given.model else (),
            grown((given.keep or place).resolve(), given.runs, given.samples),
        ):
            for figure in part:
                print(json.dumps(figure), flush=True)
    return 0


def a_run(demo: Path, place: Path) -> Iterator[Figure]:
    """What measured merges left behind, and how long it takes to make the database of it."""
    workspace = Workspace(place / "demo").create()
    for name in ("runs", "finished", "pairs", "catalog", "annotations", "audit"):
        if (demo / name).is_dir():
            shutil.copytree(demo / name, workspace.root / name, dirs_exist_ok=True)
    events, answers, seconds, weights = [], [], [], []
    for folder in workspace.run_folders():
        told = list(read_events(folder))
        ended = [event for event in told if event["event"] == "run_finished"]
        started = next((event for event in told if event["event"] == "run_started"), {})
        given = sum(len(event["rows"]) for event in told if event["event"] == "samples")
        if ended and given and started.get("method") not in ("adapter", "base"):
            events.append((folder / "events.jsonl").stat().st_size)
            answers.append(given)
            seconds.append(ended[0]["seconds"])
            weights += [event["bytes"] for event in told if event["event"] == "artifact"][-1:]
    yield {"figure": "merges looked at", "value": len(events)}
    for name, values in {
        "answers": answers,
        "bytes of events": events,
        "bytes of the adapter": weights,
        "seconds": seconds,
    }.items():
        yield {"figure": f"{name} a run", "mean": round(statistics.mean(values)), "most": round(max(values))}
    whole = sum(workspace.event_files().values())
    yield {"figure": "database made again", "bytes of events": whole, **timed(lambda: rebuild(workspace), 2)}
    yield {"figure": "database", "bytes": workspace.database.stat().st_size, "runs": len(list(workspace.run_folders()))}


def shared(model: Path, place: Path) -> Iterator[Figure]:
    """A base model put into the content store and fetched, hashes included; the same again, when it is there."""
    store, node = ContentStore(str(place / "store")), Workspace(place / "node").create()
    kept: list[Any] = []
    for again in ("", " again"):
        yield {"figure": f"push{again}", **timed(lambda: kept.append(store.push(BASE, model, model.name).manifest), 1)}
        yield {"figure": f"fetch{again}", **timed(lambda: fetch(BASE, kept[0].sha256, node, store=store), 1)}
    yield {"figure": "bytes of the model", "value": kept[0].bytes}


def grown(folder: Path, runs: int, samples: int) -> Iterator[Figure]:
    """Looking for news, ingesting, publishing and asking, with many runs; flat first, then with most of them moved."""
    workspace = Workspace(folder / str(runs))
    if not workspace.database.is_file():
        written = timed(lambda: fill(workspace, runs, samples), 1)
        yield {"figure": f"{runs:,} runs and {samples:,} answers written", **written}
    shutil.rmtree(workspace.snapshots, ignore_errors=True)
    flat = not workspace.finished.is_dir()
    first = min(path.name for path in workspace.run_folders())
    if flat:
        yield {"figure": "look, all in one folder", **timed(workspace.event_files, 4)}
    with Owner.open(workspace) as held:
        held.ingest()
        yield {"figure": "snapshot copied whole", **timed(held.publish, 1)}
        seconds = []
        for _ in range(3):
            with EventWriter(workspace.run(first)) as events:
                events.write("stage", stage="note", status="done", seconds=0.0)
            held.ingest()
            seconds.append(timed(held.publish, 1))
        yield {"figure": "snapshot of the one before it", **min(seconds, key=lambda one: one["wall"])}
        newest = snapshot.newest(workspace.snapshots)
        assert newest is not None
        yield {"figure": "bytes", "database": workspace.database.stat().st_size, "snapshot": newest.stat().st_size}
        yield from parquet(newest, folder / "parquet", first)
        if flat:
            shelve.QUIET = -1.0
            moving = shelve.movable(workspace, most=runs // 20)
            yield {"figure": f"{len(moving):,} runs moved", **timed(lambda: shelve.move(workspace, moving), 1)}
            yield {"figure": "ingest after the move", **timed(held.ingest, 1)}
    workspace.event_files()
    time.sleep(1.0)  # a folder that has just changed is looked through once more
    workspace.event_files()
    yield {"figure": "look, most of them moved", **timed(workspace.event_files, 4)}


def parquet(made: Path, folder: Path, run: str) -> Iterator[Figure]:
    """The same queries on the tables of a snapshot, and on Parquet files in partitions by the run's id."""
    import duckdb

    shutil.rmtree(folder, ignore_errors=True)
    with duckdb.connect(str(made), read_only=True) as plain, duckdb.connect() as files:
        files.execute(f"ATTACH '{made}' AS s (READ_ONLY)")

        def write() -> None:
            for table in TABLES:
                (folder / table).mkdir(parents=True)
                cut = ", PARTITION_BY (part)" if table in LARGE else ""
                rows = f"SELECT *, substr(run_id, 1, 1) AS part FROM s.{table}" if cut else f"FROM s.{table}"
                target = folder / table if cut else folder / table / "all.parquet"
                files.execute(f"COPY ({rows}) TO '{target}' (FORMAT parquet{cut}, OVERWRITE_OR_IGNORE true)")

        yield {"figure": "Parquet written", **timed(write, 1)}
        files.execute("DETACH s")
        for table in TABLES:
            files.execute(f"CREATE VIEW {table} AS FROM read_parquet('{folder}/{table}/**/*.parquet')")
        _, _, views = owner._schema().partition("CREATE VIEW front")
        files.execute("CREATE VIEW front" + views.partition(";")[0])
        for name, sql in QUERIES.items():
            asked = sql.format(run=run)
            for kind, connection in (("table", plain), ("Parquet", files)):
                found = timed(lambda c=connection, q=asked: c.execute(q).fetchall(), 5)  # type: ignore[misc]
                yield {"figure": f"{name}, {kind}", **found}
    shutil.rmtree(folder, ignore_errors=True)


def timed(work: Callable[[], object], times: int) -> dict[str, float]:
    """The least wall seconds of several times, and the CPU seconds of that time."""
    found = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(found)
    return {"wall": round(wall, 3), "cpu": round(cpu, 3)}


if __name__ == "__main__":
    sys.exit(main())
