"""How long a page takes until it is drawn, against a bare Streamlit page with one chart.

    python -m benchmarks.pages [--workspace FOLDER] [--times 5]

Both servers are warm (each page is opened once before). Ours and the bare page take turns, so that a busy machine slows
both. "first" is a new browser without a cache, "again" the same browser with one. One JSON object a line.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.browser import chromium, drawn, serving
from benchmarks.lines import Line, compared, device, parser, report
from sstmerge_core.workspace import Workspace

LIMIT = 1.5
CHART = ".js-plotly-plot .main-svg"
TABLE = '[data-testid="stDataFrame"]'
# page → its path and what has to be visible
PAGES = {
    "overview": ("", CHART),
    "adapters": ("adapters", TABLE),
    "merge": ("merge", ".st-key-merge-launch"),
    "sweep": ("sweep", ".st-key-sweep-launch"),
    "pareto": ("pareto", CHART),
    "alpha_curves": ("alpha_curves", CHART),
    "run": ("run", TABLE),
    "query": ("query", "textarea"),
}
BARE = """
import plotly.graph_objects as go
import streamlit as st

st.set_page_config(layout="wide")
st.plotly_chart(go.Figure(go.Scatter(x=[1, 2, 3], y=[2, 1, 3], mode="markers")))
"""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--workspace", type=Path, default=Workspace.default().root)
    options.add_argument("--pages", nargs="*", default=list(PAGES), choices=list(PAGES))
    arguments = options.parse_args()
    return report(figures(arguments))


def figures(arguments: argparse.Namespace) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        with (
            serving(arguments.workspace) as ours,
            serving(Path(folder), script=bare) as peer,
            chromium() as browser,
        ):
            for name in arguments.pages:
                path, mark = PAGES[name]
                for visit, times in compare(browser, f"{ours}/{path}", mark, peer, arguments.times).items():
                    own, other = (statistics.median(values) for values in times)
                    line = compared(f"page {name}, {visit} visit", own, other, LIMIT)
                    yield line | {"device": f"{device()}, headless Chromium"}


def compare(browser: Any, ours: str, mark: str, peer: str, times: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of `times` visits each, ours and the peer's taking turns; the first visit of each does not count."""
    found: dict[str, tuple[list[float], list[float]]] = {"first": ([], []), "again": ([], [])}
    for number in range(times + 1):
        for place, (address, sign) in enumerate(((ours, mark), (peer, CHART))):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            for visit in ("first", "again"):
                seconds = visit_once(context, address, sign)
                if number:
                    found[visit][place].append(seconds)
            context.close()
    return found


def visit_once(context: Any, address: str, mark: str) -> float:
    """Seconds from asking for the page until it is drawn."""
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    drawn(page, mark)
    seconds = time.perf_counter() - start
    page.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
