"""Eight visitors, four workers and fifty queued jobs on one Streamlit server: what it bears, and whether it grows.

    python -m benchmarks.load [--minutes 10] [--sessions 8] [--workers 4] [--jobs 50] [--record]

Each visitor is a session of its own, as a tab of a browser is one: it opens pages in a random order and lets run what
runs by itself on them. Seconds are from asking for a page until the server has sent the last of it. Workers are real
processes of the queue, with its heartbeat, that write event files as a run does; what they write is made up, no model
is loaded. `--record` writes the section of the load into `docs/reliability.md`. Exit status 1 where an event was lost
or doubled, a page showed an exception, a lock was refused, or the log says what it should not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT, free_port, serving
from benchmarks.load_work import ANSWERS, BATCHES, recipe
from benchmarks.reliability import checks, document
from benchmarks.reliability.visitor import Visitor
from sstmerge_core.workspace import Workspace

PAGES = (
    *(("overview", ""), ("pareto", "pair=A5_A7"), ("alpha_curves", ""), ("compare", ""), ("run", ""), ("query", "")),
    *(("adapters", ""), ("merge", ""), ("sweep", ""), ("report", ""), ("prompts", ""), ("train", "")),
)
LOOKS = (2.0, 6.0)
"""Seconds that a visitor looks at a page, at least and at most"""
LONGEST = 2.0
"""Seconds of the slowest twentieth of the pages on an idle machine"""
EXPECTED = re.compile(
    r"^\s*$|You can now view your Streamlit app|^\s*(Local |Network |External )?URL: |Uvicorn server started"
    r"|^\s*Stopping\.\.\.$"
)
"""Lines that every server of Streamlit prints at its start and end"""


@dataclass
class Watched:
    """What the visitors and the watcher of the server's memory have seen."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    parts: list[float] = field(default_factory=list)
    """Of the parts of pages that run again by themselves"""
    exceptions: list[str] = field(default_factory=list)
    boxes: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(minutes, MB)"""
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--minutes", type=float, default=10.0)
    found.add_argument("--sessions", type=int, default=8)
    found.add_argument("--workers", type=int, default=4)
    found.add_argument("--jobs", type=int, default=50)
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--record", action="store_true")
    options = found.parse_args()
    with tempfile.TemporaryDirectory(prefix="sstmerge-load-") as folder:
        told = measure(options, Path(folder))
    print(json.dumps(told, indent=2))
    if options.record:
        document.section("load", text(told))
    return 1 if told["faults"] else 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that was seen, and what of it is wrong (`faults`)."""
    from tests.synthetic_workspace import fill

    own = fill(Workspace(folder / "workspace"))
    # of each worker's time it works nine tenths; the rest is its start
    pause = 0.9 * 60 * options.minutes * options.workers / options.jobs / BATCHES
    os.environ |= {"SSTMERGE_EXECUTE": "benchmarks.load_work:execute", "SSTMERGE_LOAD_PAUSE": f"{pause:.4f}"}
    os.environ["PYTHONPATH"] = str(ROOT)
    log, port, seen = folder / "server.log", free_port(), Watched()
    with serving(own.root, port=port, log=log):
        server = _server(port)
        _submit(own, options)
        begun = time.monotonic()
        until = begun + 60 * options.minutes
        threads = [
            threading.Thread(target=_visit, args=(port, until, random.Random(f"{options.seed} {number}"), seen))
            for number in range(options.sessions)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            time.sleep(min(5.0, options.minutes))
            seen.memory.append(((time.monotonic() - begun) / 60, server.memory_info().rss / 1e6))
        for thread in threads:
            thread.join()
        ended = _all_done(own, 60 + 30 * options.minutes)
    return _told(own, options, seen, log.read_text(errors="replace"), ended)


def _submit(own: Workspace, options: argparse.Namespace) -> None:
    from sstmerge_core import jobs

    for number in range(options.jobs):
        device = f"device-{number % options.workers}"
        jobs.submit(own, [recipe(number)], name=f"job {number}", user=f"user {number % 3}", device=device)


def _visit(port: int, until: float, rng: random.Random, seen: Watched) -> None:
    """One session: page after page, each looked at for some seconds."""
    while time.monotonic() < until:
        try:
            with Visitor(port) as visitor:
                while time.monotonic() < until:
                    page, query = rng.choice(PAGES)
                    drawn = visitor.open(page, query)
                    with seen.lock:
                        seen.seconds.setdefault(page, []).append(drawn.seconds)
                        seen.exceptions += [f"{page}: {text}" for text in drawn.exceptions]
                        seen.boxes.update(box[:200] for box in drawn.boxes)
                    leave = min(until, time.monotonic() + rng.uniform(*LOOKS))
                    while time.monotonic() < leave:
                        time.sleep(min(1.0, max(0.0, leave - time.monotonic())))
                        for part in drawn.fragments[:2]:
                            again = visitor.open(page, query, fragment=part)
                            with seen.lock:
                                seen.parts.append(again.seconds)
                                seen.exceptions += [f"{page}: {text}" for text in again.exceptions]
        except OSError as error:
            with seen.lock:
                seen.exceptions.append(f"session: {error}")
            time.sleep(1.0)


def _server(port: int) -> Any:
    """The process that listens on `port`, a child of this one."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        if any(one.laddr.port == port for one in child.net_connections() if one.status == "LISTEN"):
            return child
    raise RuntimeError(f"no server listens on {port}")


def _all_done(own: Workspace, seconds: float) -> Counter[str]:
    """States of the jobs once all have ended, or after `seconds`."""
    from sstmerge_core import jobs

    deadline = time.monotonic() + seconds
    while any(job.active for job in jobs.jobs(own, 1000)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return Counter(job.state for job in jobs.jobs(own, 1000))


def _told(own: Workspace, options: argparse.Namespace, seen: Watched, log: str, ended: Counter[str]) -> dict[str, Any]:
    from sstmerge_core.store import Owner

    faults = [f"page: {text}" for text in seen.exceptions]
    faults += [f"page: {box}" for box in seen.boxes if "lock" in box or "disk" in box or "holds the database" in box]
    if set(ended) != {"done"} or ended["done"] != options.jobs:
        faults.append(f"queue: {dict(ended)}")
    wanted = {recipe(number).run_id for number in range(options.jobs)}
    with Owner.open(own) as owner:
        owner.ingest()
        with closing(owner.cursor()) as cursor:
            sql = "SELECT run_id, count(*) FROM samples WHERE list_contains(?, run_id) GROUP BY 1"
            counts = dict(cursor.execute(sql, [sorted(wanted)]).fetchall())
    right = BATCHES * ANSWERS
    faults += [
        f"lost: {run_id} has {counts.get(run_id)} of {right} answers"
        for run_id in wanted
        if counts.get(run_id) != right
    ]
    faults += checks.doubled(own) + checks.one_truth(own, own.root.parent / "scratch")
    noise = [line for line in log.splitlines() if not EXPECTED.search(line)]
    faults += [f"noise: {line}" for line in dict.fromkeys(noise)][:10]
    for path in sorted(own.logs.glob("*.log")):
        said = path.read_text(errors="replace")
        faults += [f"worker: {said[-400:]}"] if "Traceback" in said or "lock" in said else []
    every = sorted(second for listed in seen.seconds.values() for second in listed)
    later = [(minute, size) for minute, size in seen.memory if minute > options.minutes / 4]
    return {
        "minutes": options.minutes,
        "sessions": options.sessions,
        "workers": options.workers,
        "jobs": dict(ended),
        "answers": sum(counts.values()),
        "pages": len(every),
        "median_s": round(statistics.median(every), 3),
        "p95_s": round(_quantile(every, 0.95), 3),
        "slowest_s": round(every[-1], 3),
        "by_page": {
            page: [len(listed), round(statistics.median(listed), 3), round(_quantile(sorted(listed), 0.95), 3)]
            for page, listed in sorted(seen.seconds.items())
        },
        "parts": len(seen.parts),
        "parts_p95_s": round(_quantile(sorted(seen.parts), 0.95), 3) if seen.parts else None,
        "memory_mb": [round(seen.memory[0][1]), round(max(size for _, size in seen.memory)), round(seen.memory[-1][1])],
        "slope_mb_per_minute": round(_slope(later), 2) if len(later) > 2 else None,
        "noise": len(noise),
        "faults": faults,
    }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _slope(points: list[tuple[float, float]]) -> float:
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def text(told: dict[str, Any]) -> str:
    """The section of the document."""
    first, most, last = told["memory_mb"]
    slope = "–" if told["slope_mb_per_minute"] is None else f"{told['slope_mb_per_minute']:+.2f} MB a minute"
    lines = [
        "## Load\n",
        f"{told['sessions']} sessions and {told['workers']} workers for {told['minutes']:g} minutes on one server, "
        f"{sum(told['jobs'].values())} queued jobs. A session opens pages in a random order, looks at each for "
        f"{LOOKS[0]:g} to {LOOKS[1]:g} seconds and lets run what runs by itself. Seconds are the server's, from asking "
        "for a page to the last of it. Workers are real processes that write event files; no model is loaded. "
        f"{document.machine()}.\n",
        "| what | found |",
        "|---|---:|",
        f"| pages drawn | {told['pages']:,} |",
        f"| median, 95th percentile, slowest page | {told['median_s']} s, {told['p95_s']} s, {told['slowest_s']} s |",
        f"| parts that ran by themselves, 95th percentile | {told['parts']:,}, {told['parts_p95_s']} s |",
        f"| jobs | {', '.join(f'{count} {state}' for state, count in told['jobs'].items())} |",
        f"| answers recorded, and in the database | {told['answers']:,} |",
        f"| server's memory at the start, at most, at the end | {first} MB, {most} MB, {last} MB |",
        f"| its slope after the first quarter | {slope} |",
        f"| lines of noise in its log | {told['noise']} |",
        f"| faults: lost, doubled, locks, exceptions, noise | {len(told['faults'])} |\n",
        *[f"- {fault[:300]}" for fault in told["faults"][:20]],
        "\n| page | drawn | median | 95th percentile |",
        "|---|---:|---:|---:|",
        *[f"| {page} | {n} | {median} s | {most} s |" for page, (n, median, most) in told["by_page"].items()],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
