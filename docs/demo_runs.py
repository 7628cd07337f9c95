"""The merges that ship with the demo, each pressed on the Merge page: ``python docs/demo_runs.py [PAIR ...]``.

Opens the page for every method and pair with its defaults, presses Merge, waits until the queue is empty, and checks
that every method has a point on the Pareto page. About a minute a merge on two cores; a second call presses nothing
that is known. ``python -m sstmerge_core.upkeep.shipped`` then takes the runs from the workspace into ``data/demo``.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browser import chromium, drawn, serving
from sstmerge_core import jobs, methods
from sstmerge_core.plots.style import style
from sstmerge_core.workspace import Workspace

PAIRS = ("A5_A7", "A6_A7")
POINTS = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot._fullData || [])
    .filter(trace => (trace.mode || '').includes('markers')).map(trace => trace.name)"""


def press(page: Any, address: str, pair: str, method: str) -> str:
    """Launch one merge from the page unless it is known; returns what happened."""
    utility, safety = pair.split("_")
    page.goto(f"{address}/merge?utility={utility}&safety={safety}&method={method}")
    drawn(page, ".st-key-merge-launch")
    if page.get_by_text("Already known").count():
        return "known"
    if page.locator('[data-testid="stException"], .st-key-merge-launch button[disabled]').count():
        raise RuntimeError(f"{pair} {method}: the page does not let it be launched")
    page.get_by_role("button", name=re.compile(r"Merge$")).click()
    page.get_by_role("button", name=re.compile(r"Cancel$")).wait_for(timeout=60_000)
    return "launched"


def main(pairs: list[str]) -> int:
    workspace = Workspace.default()
    with serving(workspace.root) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        for pair in pairs:
            for method in methods.names():
                print(pair, method, press(page, address, pair, method), flush=True)
        page.goto("about:blank")  # a page that watches a job would draw all the while
        while waiting := [job for job in jobs.jobs(workspace) if job.state in ("queued", "running")]:
            print(f"{len(waiting)} jobs left", flush=True)
            time.sleep(30)
        failed: list[Any] = [job for job in jobs.jobs(workspace) if job.state != "done"]
        for job in failed:
            print(job.job_id, job.state, job.name, job.error)
        for pair in pairs:
            page.goto(f"{address}/pareto?pair={pair}")
            drawn(page, ".js-plotly-plot .main-svg")
            points = set(map(str, page.evaluate(POINTS)))
            missing = [name for name in methods.names() if style(name).title not in points]
            print(pair, f"{len(missing)} of {len(methods.names())} methods have no point on the Pareto page", *missing)
            failed += missing
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PAIRS)))
