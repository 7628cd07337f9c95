"""How long a page takes until it is drawn, against a bare Streamlit page with one chart, and against optuna-dashboard.

    python -m benchmarks.pages [--workspace FOLDER] [--times 5] [--pages overview … many]

Both servers are warm (each page is opened once before). Ours and the peer's take turns, so that a busy machine slows
both. "first" is a new browser without a cache, "again" the same browser with one. One JSON object a line.

``many``: the Pareto page with 10,000 runs and 1,000,000 answers in the database against optuna-dashboard's Pareto plot
of as many trials with the same two values, until every point is on the screen, and then until the chart answers a mouse
that moves over it; needs the extra `[bench]`.

``click``: from a click on a point of the Pareto page until the table of what is selected is drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.browser import (
    ROOT,
    answers,
    chromium,
    drawn,
    free_port,
    many_points_drawn,
    points_drawn,
    running,
    serving,
)
from benchmarks.filled import PAIR, fill
from benchmarks.lines import Line, compared, device, parser, report, within
from sstmerge_core.store import Owner, queries
from sstmerge_core.workspace import Workspace

LIMITS = {"first": 1.5, "again": 1.3}
MANY, CLICK = "many", "click"
CLICK_ALLOWED = 0.4
"""Seconds"""
MANY_LIMIT, INTERACTIVE_LIMIT = 0.25, 0.5
MANY_TIMES = 3
RUNS, SAMPLES = 10_000, 1_000_000
CHART = ".js-plotly-plot .main-svg"
TABLE = '[data-testid="stDataFrame"]'
ANYTHING = '[data-testid="stMain"] [data-testid="stElementContainer"]'
# page → its path and what has to be visible
PAGES = {
    "overview": ("", CHART),
    "adapters": ("adapters", TABLE),
    "prompts": ("prompts", ANYTHING),
    "train": ("train", ANYTHING),
    "merge": ("merge", ".st-key-merge-launch"),
    "sweep": ("sweep", ".st-key-sweep-launch"),
    "pareto": ("pareto", CHART),
    "alpha_curves": ("alpha_curves", CHART),
    "compare": ("compare", ANYTHING),
    "run": ("run", TABLE),
    "playground": ("playground", ANYTHING),
    "query": ("query", "textarea"),
    "experiments": ("experiments", ANYTHING),
    "report": ("report", CHART),
}
IN_PARTS = {"report"}
"""Pages of which the first screen counts: what follows comes as it is computed"""
A_POINT = """number => {
    const points = [...document.querySelectorAll('.js-plotly-plot .scatterlayer .point')];
    const box = points[Math.floor((number + 1) * points.length / 20) % points.length].getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
}"""
SELECTED = """() => [...document.querySelectorAll('h3')].some(title => / selected$/.test(title.textContent))
    && document.querySelector('[data-testid="stApp"]').getAttribute('data-test-script-state') === 'notRunning'"""
BARE = """
import plotly.graph_objects as go
import streamlit as st

st.set_page_config(layout="wide")
st.plotly_chart(go.Figure(go.Scatter(x=[1, 2, 3], y=[2, 1, 3], mode="markers")))
"""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--workspace", type=Path, default=Workspace.default().root)
    options.add_argument("--pages", nargs="*", default=[*PAGES, CLICK, MANY], choices=[*PAGES, CLICK, MANY])
    arguments = options.parse_args()
    return report(figures(arguments))


def figures(arguments: argparse.Namespace) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        if pages := [page for page in arguments.pages if page in PAGES]:
            yield from against_a_bare_page(browser, folder, arguments.workspace, pages, arguments.times)
        if CLICK in arguments.pages:
            yield click_to_selection(browser, arguments.workspace, arguments.times)
        if MANY in arguments.pages:
            yield from against_optuna(browser, folder, min(arguments.times, MANY_TIMES))


def against_a_bare_page(browser: Any, folder: Path, workspace: Path, pages: list[str], times: int) -> Iterator[Line]:
    bare = folder / "bare.py"
    bare.write_text(BARE)
    with serving(workspace) as ours, serving(folder, script=bare) as peer:
        for name in pages:
            path, mark = PAGES[name]
            own = (f"{ours}/{path}", lambda page, name=name, mark=mark: drawn(page, mark, whole=name not in IN_PARTS))
            yield from compare(browser, f"page {name}", own, (peer, lambda page: drawn(page, CHART)), times, LIMITS)


def click_to_selection(browser: Any, workspace: Path, times: int) -> Line:
    """Median seconds of `times` clicks, each on another point; the first does not count."""
    seconds = []
    with serving(workspace) as address:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/pareto")
        drawn(page, CHART)
        for number in range(times + 1):
            across, up = page.evaluate(A_POINT, number)
            page.mouse.move(across, up)
            begun = time.perf_counter()
            page.mouse.click(across, up)
            page.wait_for_function(SELECTED, polling="raf")
            seconds += [time.perf_counter() - begun] if number else []
            page.get_by_role("button", name="Clear").click()
            page.get_by_role("heading", name=re.compile("The front")).wait_for()
            drawn(page, CHART)
        page.close()
    line = within("within: click on Pareto to its selection drawn", statistics.median(seconds), CLICK_ALLOWED)
    return line | {"device": f"{device()}, headless Chromium"}


def against_optuna(browser: Any, folder: Path, times: int) -> Iterator[Line]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    dashboard = shutil.which("optuna-dashboard", path=path)
    if dashboard is None:
        print('many: left out, its peer is missing: pip install -e ".[bench]"', file=sys.stderr)
        return
    workspace = fill(Workspace(folder / "filled"), RUNS, SAMPLES)
    with Owner.open(workspace) as owner, owner.cursor() as cursor:
        runs = queries.leaderboard(cursor, pairs=[PAIR], sources=["measured"])
    with serving(workspace.root) as ours, studying(dashboard, folder, runs) as peer:
        address = f"{ours}/pareto?pair={PAIR}"
        name = f"pareto of {RUNS:,} runs against optuna-dashboard"
        for what, own, other, limit in (
            ("all points shown", own_shown, peer_shown, MANY_LIMIT),
            ("interactive", own_interactive, peer_interactive, INTERACTIVE_LIMIT),
        ):
            yield from compare(
                browser, f"{name}, {what}", (address, own), (peer, other), times, dict.fromkeys(LIMITS, limit)
            )


def own_shown(page: Any) -> None:
    many_points_drawn(page, RUNS)


def own_interactive(page: Any) -> None:
    own_shown(page)
    answers(page, ".many-chart .plane", ".many-chart .tip")


def peer_shown(page: Any) -> None:
    points_drawn(page, "#graph-pareto-front", RUNS)


def peer_interactive(page: Any) -> None:
    peer_shown(page)
    answers(page, "#graph-pareto-front .nsewdrag", "#graph-pareto-front .hoverlayer .hovertext")


@contextlib.contextmanager
def studying(dashboard: str, folder: Path, runs: pd.DataFrame) -> Iterator[str]:
    """Run optuna-dashboard on a study whose trials have the runs' α, method, resistance and utility."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / "study.log"
    space = {
        "alpha": FloatDistribution(0.0, float(runs["alpha"].max())),
        "method": CategoricalDistribution(sorted(runs["method"].unique())),
    }
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
    study = optuna.create_study(storage=storage, study_name="merges", directions=["maximize", "maximize"])
    columns = runs[["alpha", "method", "resistance", "utility"]].itertuples(index=False)
    study.add_trials(
        [
            optuna.create_trial(params={"alpha": alpha, "method": method}, distributions=space, values=[safe, useful])
            for alpha, method, safe, useful in columns
        ]
    )
    address = f"http://127.0.0.1:{(port := free_port())}"
    with running([dashboard, str(file), "--port", str(port)], f"{address}/dashboard/", folder=ROOT):
        yield f"{address}/dashboard/studies/0"


Side = tuple[str, Callable[[Any], None]]
"""An address, and how to wait until its page is drawn"""


def compare(browser: Any, name: str, ours: Side, peer: Side, times: int, limits: Mapping[str, float]) -> Iterator[Line]:
    """Medians of `times` visits each, ours and the peer's taking turns; the first visit of each does not count."""
    found: dict[str, tuple[list[float], list[float]]] = {"first": ([], []), "again": ([], [])}
    for number in range(times + 1):
        for place, side in enumerate((ours, peer)):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            for visit in ("first", "again"):
                seconds = visit_once(context, *side)
                if number:
                    found[visit][place].append(seconds)
            context.close()
    for visit, values in found.items():
        own, other = map(statistics.median, values)
        yield compared(f"{name}, {visit} visit", own, other, limits[visit]) | {
            "device": f"{device()}, headless Chromium"
        }


def visit_once(context: Any, address: str, wait: Callable[[Any], None]) -> float:
    """Seconds from asking for the page until it is drawn."""
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    wait(page)
    seconds = time.perf_counter() - start
    page.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
