"""A newcomer's first minutes: the server's start, and the Overview's first button until its point is in the chart.

    python -m benchmarks.first_minutes [--workspace FOLDER] [--times 3]

Works on a copy of FOLDER, a workspace as `make app` prepares it; without one it prepares its own, which takes half a
minute more. First `sstmerge serve` and a bare Streamlit page take turns, each from the command until its first page is
drawn in a browser. Then a hand opens the Overview and presses its first button, "Try it", which makes a merge that is
not there yet and measures it; it is done when the new point is drawn in the chart with its ring. One JSON object a
line, with every step's seconds since the press, and the load of the machine before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT, chromium, drawn, free_port, running, serving
from benchmarks.lines import Line, parser, report, within
from benchmarks.pages import BARE, CHART
from benchmarks.path import prepare

START_ALLOWED, MERGE_ALLOWED = 5.0, 60.0
"""Seconds"""
FIRST_BUTTON = "Try it"
"""Words on it"""
PROGRESS = '[data-testid="stProgress"]'
RESULT = "Answers, spectrum, recipe"
RINGED = """() => [...document.querySelectorAll('.js-plotly-plot')].some(plot => {
    const rings = (plot.calcdata || []).filter(points => points[0] && points[0].trace
        && points[0].trace.visible === true && points[0].trace.marker
        && points[0].trace.marker.symbol === 'circle-open' && points[0].trace.meta === undefined);
    return rings.length > 0 && plot.querySelectorAll('.scatterlayer .point').length > 1;
})"""
"""Whether a chart on the page shows a ring that bears no letter, which is the one around the run that was just made"""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--workspace", type=Path, help="is copied; default: one is prepared")
    options.add_argument("--only", choices=["start", "merge"], help="default: both")
    options.set_defaults(times=3)
    return report(figures(options.parse_args()))


def figures(arguments: argparse.Namespace) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        if arguments.workspace:
            workspace = folder / "workspace"
            # sockets of a server that runs on it are no files
            shutil.copytree(arguments.workspace, workspace, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
        else:
            workspace = prepare(folder / "workspace")
        if arguments.only != "merge":
            yield start(browser, folder, workspace, arguments.times)
        if arguments.only != "start":
            yield first_merge(browser, workspace)


def start(browser: Any, folder: Path, workspace: Path, times: int) -> Line:
    """From the command to the first page, with the bare page's seconds beside it; medians of `times` turns."""
    bare = folder / "bare.py"
    bare.write_text(BARE)
    streamlit = [sys.executable, "-m", "streamlit", "run", str(bare), "--server.headless", "true"]
    streamlit += ["--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false", "--server.port"]
    serve = [sys.executable, "-m", "sstmerge_core.cli", "serve", "--no-browser", "--workspace", str(workspace)]
    before = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(times):
        seconds["ours"].append(until_drawn(browser, [*serve, "--port"], ROOT))
        seconds["bare"].append(until_drawn(browser, streamlit, folder))
    own, other = (round(statistics.median(found), 3) for found in seconds.values())
    line = within("within: sstmerge serve to the first page drawn, the demo prepared", own, START_ALLOWED)
    return line | {"bare_streamlit_s": other, "load": [before, os.getloadavg()[0]]}


def until_drawn(browser: Any, command: Sequence[str], folder: Path) -> float:
    """Seconds from starting a server until its first page is drawn in a browser that knows nothing of it."""
    address = f"http://localhost:{(port := free_port())}"
    begun = time.perf_counter()
    with (
        running([*command, str(port)], f"{address}/_stcore/health", folder=folder),
        contextlib.closing(browser.new_context(viewport={"width": 1440, "height": 900})) as context,
    ):
        page = context.new_page()
        page.goto(address, wait_until="commit")
        drawn(page, CHART, timeout=180)
        return time.perf_counter() - begun


def first_merge(browser: Any, workspace: Path) -> Line:
    """From the press of the first button to the ringed point."""
    before = os.getloadavg()[0]
    with (
        serving(workspace) as address,
        contextlib.closing(browser.new_context(viewport={"width": 1440, "height": 900})) as context,
    ):
        page = context.new_page()
        page.goto(address, wait_until="commit")
        drawn(page, CHART, timeout=180)
        button = page.get_by_role("button", name=FIRST_BUTTON).first
        begun = time.perf_counter()
        button.click()
        steps = walked(
            begun,
            {
                "merge page opened": lambda: page.wait_for_url("**/merge?**", timeout=60_000),
                "progress shown": lambda: page.locator(PROGRESS).first.wait_for(timeout=120_000),
                "result shown": lambda: page.get_by_text(RESULT).first.wait_for(timeout=540_000),
                "point drawn with its ring": lambda: page.wait_for_function(RINGED, polling="raf", timeout=120_000),
            },
        )
    line = within("within: first merge pressed to its point drawn, with its ring", [*steps.values()][-1], MERGE_ALLOWED)
    return line | {"steps_s": steps, "load": [before, os.getloadavg()[0]]}


def walked(begun: float, waits: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Each step's seconds from `begun` to when it had come; the steps come in this order."""
    found = {}
    for step, wait in waits.items():
        wait()
        found[step] = round(time.perf_counter() - begun, 3)
    return found


if __name__ == "__main__":
    sys.exit(main())
