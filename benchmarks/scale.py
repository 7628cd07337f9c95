"""How long the server takes for each page, and Query for its answer, with many runs in the database.

    python -m benchmarks.scale [--runs 10000 100000] [--samples 1000000] [--pages pareto …] [--keep FOLDER]

The seconds of a page are those of its script from a new visitor's request to the last element, without a browser, just
after a run has reported something: nothing is remembered. Where there are so many event files that looking through them
takes long, a thread of the server does it, here too; otherwise the page looks itself. Queries run in their sandbox. One
JSON object a line; there is no peer, but a time that is allowed.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT
from benchmarks.filled import PAIR, fill
from benchmarks.lines import Line, parser, report, within
from sstmerge_core.store import EventWriter, run_sql
from sstmerge_core.workspace import Workspace

ALLOWED = {10_000: 1.0, 100_000: 3.0}
"""Runs → seconds"""
PAGES = (
    *("overview", "adapters", "train", "merge", "sweep", "pareto", "compare", "alpha_curves", "run"),
    *("experiments", "report", "query"),
)
GROUPED = {
    "runs by method": """
        SELECT method, count(*) AS runs, avg(resistance) AS resistance, max(utility) AS utility
        FROM leaderboard GROUP BY ALL ORDER BY ALL""",
    "answers by method and suite": """
        SELECT method, suite, count(*) AS answers, avg(n_tokens) AS tokens
        FROM samples JOIN runs USING (run_id) GROUP BY ALL ORDER BY ALL""",
    "refusals by suite": """
        SELECT suite, count(*) AS answers, avg((label = 'refusal')::INT) AS refused
        FROM verdicts GROUP BY ALL ORDER BY ALL""",
}


def main() -> int:
    options = parser(__doc__)
    options.set_defaults(times=3)
    options.add_argument("--runs", type=int, nargs="*", default=list(ALLOWED))
    options.add_argument("--samples", type=int, default=1_000_000)
    options.add_argument("--pages", nargs="*", default=list(PAGES), choices=list(PAGES))
    options.add_argument("--keep", type=Path, help="where the workspaces are left, or found from an earlier time")
    arguments = options.parse_args()
    return report(figures(arguments))


def figures(arguments: argparse.Namespace) -> Iterator[Line]:
    for runs in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace((arguments.keep or Path(folder)).resolve() / str(runs))
            if not workspace.database.is_file():
                fill(workspace, runs, arguments.samples)
            allowed = ALLOWED.get(runs, max(ALLOWED.values()))
            size = f"with {runs:,} runs and {arguments.samples:,} answers"
            for page in arguments.pages:
                seconds = page_seconds(workspace, page, arguments.times)
                yield within(f"within: server time of {page} {size}", seconds, allowed)
            forget()
            for name, sql in GROUPED.items():
                seconds = median(partial(run_sql, workspace, sql), arguments.times)
                yield within(f"within: Query, {name}, {size}", seconds, allowed)


def page_seconds(workspace: Workspace, page: str, times: int) -> float:
    """Median seconds of a page's script for a new visitor, each after news from a run."""
    from streamlit.testing.v1 import AppTest

    from studio import start

    logging.disable(logging.WARNING)  # AppTest's remarks on threads without a browser
    os.environ["SSTMERGE_WORKSPACE"] = str(workspace.root)
    os.chdir(ROOT)
    first, second = sorted(path.name for path in workspace.runs.iterdir())[:2]
    said: dict[str, dict[str, Any]] = {
        "run": {"run": first},
        "compare": {"run": [first, second]},
        "pareto": {"pair": PAIR},
    }

    def visit() -> float:
        with EventWriter(workspace.run(first)) as events:
            events.write("stage", stage="note", status="done", seconds=0.0)
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=600)
        for name, value in said.get(page, {}).items():
            app.query_params[name] = value
        if page != "overview":
            app.switch_page(f"pages/{page}.py")
        if start.store().looking_seconds > start.NOTICED:
            start.take_in()  # what the server's thread would have done a few seconds later
        begun = time.perf_counter()
        app.run()
        seconds = time.perf_counter() - begun
        if app.exception:
            raise RuntimeError(f"{page}: {app.exception[0].value}")
        return seconds

    visit()  # modules are imported and the database is opened at the first
    return statistics.median(visit() for _ in range(times))


def forget() -> None:
    """Close the database of the workspace that was measured."""
    import streamlit as st

    st.cache_resource.clear()


def median(work: Callable[[], object], times: int) -> float:
    """Median seconds; the first time does not count."""
    seconds = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    sys.exit(main())
